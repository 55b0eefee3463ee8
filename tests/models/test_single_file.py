"""A checkpoint in one file draws what the same model in a folder draws; what is needed beside it is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers.loaders import single_file_utils
from PIL import Image
from safetensors.torch import save_file

from synccontrol import Adapters, Img2ImgConfig, Montage, SamplingConfig, SyncConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.errors import ModelError
from synccontrol.models import loader, registry, single_file
from tests.conftest import CELL, WINDOW, PipeFactory
from tests.families import tiny_sdxl
from tests.families.test_inpaint_unets import taught
from tests.models import checkpoint_file

SIZE = WINDOW * CELL  # px
OPTIONS = {
    "height": SIZE,
    "width": SIZE,
    "sampling": SamplingConfig(steps=2).complete(),
    "sync": SyncConfig(weight=0.0).complete(),
}


@pytest.fixture
def file(make_pipe: PipeFactory, tmp_path: Path) -> Path:
    """Return the tiny checkpoint as one file."""
    return checkpoint_file.save(make_pipe(0, torch.float32), tmp_path / "model.safetensors")


@pytest.fixture
def configured(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return nothing; the preset that a file is taken for is the tiny checkpoint."""
    nets = {"depth": str(checkpoint / "controlnet-depth")}
    preset = dataclasses.replace(registry.PRESETS["sd15"], base=str(checkpoint), controlnets=nets)
    monkeypatch.setattr(registry, "PRESETS", {"sd15": preset})


@pytest.mark.usefixtures("configured")
def test_a_single_file_gives_the_same_image_as_its_folder(file: Path, checkpoint: Path) -> None:
    theirs = Montage.from_pretrained(str(checkpoint), offline=True)("a hill", **OPTIONS)
    ours = Montage.from_pretrained(str(file), offline=True)
    result = ours("a hill", **OPTIONS)
    assert torch.allclose(result.latents, theirs.latents, atol=1e-5)
    assert result.config["model"] == str(file)
    assert ours.defaults == loader.defaults(str(file), offline=True)
    # the ControlNets of the preset that it is like
    assert Montage.from_pretrained(str(file), ["depth"], offline=True).denoiser.controls == 1
    loader.blank(str(file), ["depth"], [], torch.float32, offline=True)


def test_stable_diffusion_xl_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_sdxl.save(tmp_path / "sdxl")
    monkeypatch.setattr(registry, "PRESETS", {"sdxl": dataclasses.replace(registry.PRESETS["sdxl"], base=str(folder))})
    # what tells the published files apart is the last of a long text encoder's layers
    last = "conditioner.embedders.1.model.transformer.resblocks.2.mlp.c_proj.bias"
    monkeypatch.setitem(single_file_utils.CHECKPOINT_KEY_NAMES, "xl_base", last)
    theirs = Montage.from_pretrained(str(folder), offline=True)
    file = checkpoint_file.save(theirs.denoiser.pipe, tmp_path / "model.safetensors")
    ours = Montage.from_pretrained(str(file), offline=True)
    assert torch.allclose(ours("a hill", **OPTIONS).latents, theirs("a hill", **OPTIONS).latents, atol=1e-5)


@pytest.mark.usefixtures("configured")
def test_a_single_file_inpainting_model(make_pipe: PipeFactory, tmp_path: Path) -> None:
    theirs = taught(make_pipe(0, torch.float32))
    file = str(checkpoint_file.save(theirs, tmp_path / "inpainting.safetensors"))
    assert single_file.preset_of(file) == "sd15"
    ours = Montage.from_pretrained(file, ["depth"], offline=True)
    assert ours.denoiser.is_inpainting_model and ours.denoiser.controls == 1
    picture = Image.effect_noise((2 * SIZE, SIZE), 60).convert("RGB")
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, (SIZE // 2, 0, SIZE, SIZE))
    given = {"init_image": picture, "mask": mask, "img2img": Img2ImgConfig(mask_feather=0.0)}
    options = {"sampling": OPTIONS["sampling"], "sync": OPTIONS["sync"], **given}
    found = Montage.from_pretrained(file, offline=True)("a hill", **options)
    assert torch.allclose(found.latents, Montage.from_pipe(theirs)("a hill", **options).latents, atol=1e-5)
    with memory_estimate.fake_mode():
        assert families.wrap(
            loader.blank(file, ["depth"], [], torch.float32, offline=True), ["depth"]
        ).is_inpainting_model


@pytest.mark.usefixtures("configured")
def test_unsupported_unets_are_rejected(make_pipe: PipeFactory, tmp_path: Path) -> None:
    file = checkpoint_file.save(taught(make_pipe(0, torch.float32), 5), tmp_path / "depth.safetensors")
    with pytest.raises(ModelError, match="the UNet takes 5 channels, so it is no text-to-image or inpainting model"):
        Montage.from_pretrained(str(file), offline=True)


@pytest.mark.usefixtures("configured")
def test_an_autoencoder_in_one_file(file: Path, checkpoint: Path, make_pipe: PipeFactory) -> None:
    pipe = make_pipe(0, torch.float32)
    pipe.vae.decoder.conv_out.weight.data.mul_(2)
    other = checkpoint_file.save(pipe, file.with_name("vae.safetensors"))
    montage = Montage.from_pretrained(str(checkpoint), adapters=Adapters(vae=str(other)), offline=True)
    x0 = torch.zeros(1, 4, WINDOW, WINDOW)
    with montage.denoiser.session(), torch.no_grad():
        assert torch.allclose(montage.denoiser.decode(x0), pipe.vae.decode(x0).sample, atol=1e-5)


def test_missing_configuration_files_are_named(file: Path) -> None:
    needed = (
        r"configuration and tokenizers of stable-diffusion-v1-5/stable-diffusion-v1-5@[0-9a-f]+ are needed, a few MB"
    )
    with pytest.raises(ModelError, match=needed):
        Montage.from_pretrained(str(file), offline=True)


def test_checkpoint_types_are_detected(file: Path, tmp_path: Path) -> None:
    assert single_file.preset_of(str(file)) == "sd15"
    second, xl = tmp_path / "second.safetensors", tmp_path / "xl.safetensors"
    tensors = {single_file.UNET_KEY: torch.zeros(1, 4, 1, 1)}
    key = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({**tensors, key: torch.zeros(1, 1024)}, second)
    assert single_file.preset_of(str(second)) == "sd21-768"
    save_file({single_file.UNET_KEY: torch.zeros(1, 9, 1, 1), key: torch.zeros(1, 1024)}, second)
    assert single_file.preset_of(str(second)) == "sd21"  # made from the base model of 512 px
    key = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
    for channels in (4, 9):
        save_file({single_file.UNET_KEY: torch.zeros(1, channels, 1, 1), key: torch.zeros(1)}, xl)
        assert single_file.preset_of(str(xl)) == "sdxl"


def test_other_files_are_rejected(tmp_path: Path) -> None:
    lora, broken = tmp_path / "lora.safetensors", tmp_path / "broken.safetensors"
    save_file({"unet.down.lora_A.weight": torch.zeros(1)}, lora)
    broken.write_bytes(b"nothing")
    for name, why in (
        (lora, "is no checkpoint of Stable Diffusion"),
        (broken, "it is no .safetensors file"),
        (tmp_path / "missing.safetensors", "is not there"),
    ):
        with pytest.raises(ModelError, match=why):
            Montage.from_pretrained(str(name), offline=True)
