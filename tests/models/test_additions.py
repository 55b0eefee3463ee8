"""LoRAs, IP-Adapters, autoencoders and other files beside a model: loaded by name, or refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from synccontrol import Adapters, Montage, SamplingConfig, SyncConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.models import loader
from tests.conftest import CELL, CHANNELS, WINDOW, PipeFactory
from tests.families import tiny_additions, tiny_sdxl

SIZE = WINDOW * CELL  # px


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(params=["sd", "sdxl"])
def folder(request: pytest.FixtureRequest, checkpoint: Path, sdxl: Path) -> Path:
    return checkpoint if request.param == "sd" else sdxl


def draw(montage: Montage, **options: Any) -> Any:
    """Return the result of a canvas of one window."""
    settings = {"sampling": SamplingConfig(steps=2).complete(), "sync": SyncConfig(weight=0.0).complete(), **options}
    return montage("a hill", height=SIZE, width=SIZE, **settings)


def load(folder: Path, **adapters: Any) -> Montage:
    return Montage.from_pretrained(str(folder), adapters=Adapters(**adapters), offline=True)


def test_loras_are_loaded_with_their_weights(folder: Path, tmp_path: Path) -> None:
    plain = load(folder)
    file = tiny_additions.save_lora(plain.denoiser.pipe, tmp_path)
    second = file.rename(tmp_path / "a:b.safetensors")
    drawn = [draw(load(folder, lora=lora)) for lora in ((f"{second}:0.5",), (str(second),), (f"{second}:0.25",) * 2)]
    by_hand = plain.denoiser.pipe
    by_hand.load_lora_weights(str(second), adapter_name="style")
    by_hand.set_adapters(["style"], [0.5])
    assert torch.equal(drawn[0].latents, draw(Montage.from_pipe(by_hand)).latents)
    assert not torch.allclose(drawn[0].latents, drawn[1].latents)
    assert torch.allclose(drawn[0].latents, drawn[2].latents, atol=1e-3 * drawn[0].latents.std())
    assert drawn[0].config["lora"] == [f"{second}:0.5"]


def test_loras_of_another_model_are_rejected(checkpoint: Path, sdxl: Path, tmp_path: Path) -> None:
    pipe = loader.load(str(sdxl), [], offline=True)
    file = tiny_additions.save_lora(pipe, tmp_path)
    with pytest.raises(ModelError, match="is for another model"):
        load(checkpoint, lora=[str(file)])
    nothing = {f"other.{key}": value for key, value in load_file(file).items()}
    save_file(nothing, tmp_path / "nothing.safetensors")
    with pytest.raises(ModelError, match=r"nothing\.safetensors (holds nothing for|is for another)"):
        load(sdxl, lora=[str(tmp_path / "nothing.safetensors")])
    with pytest.raises(ModelError, match=r"cannot be used|has not been downloaded"):
        load(sdxl, lora=[str(tmp_path / "missing.safetensors")])
    with pytest.raises(ConfigError, match="must be a list"):
        Adapters(lora="a.safetensors")  # type: ignore[arg-type]


@pytest.mark.parametrize("named", ["file", "folder"])
def test_an_ip_adapter_is_loaded(
    folder: Path, tmp_path: Path, make_map: Callable[..., Image.Image], named: str
) -> None:
    pipe = loader.load(str(folder), [], offline=True)
    inside = "sdxl_models/ip-adapter_sdxl" if hasattr(pipe, "text_encoder_2") else "models/ip-adapter_sd15"
    file = tiny_additions.save_ip_adapter(pipe.unet, tmp_path, f"{inside}.safetensors")
    picture = make_map(48, 32)
    name = str(file if named == "file" else tmp_path)
    drawn = [draw(load(folder, ip_adapter=name, ip_scale=scale), ip_image=picture).latents for scale in (0.0, 1.0)]
    assert torch.allclose(drawn[0], draw(Montage.from_pipe(pipe)).latents, atol=1e-4)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)


def test_an_ip_adapter_of_another_model_is_rejected(checkpoint: Path, sdxl: Path, tmp_path: Path) -> None:
    file = tiny_additions.save_ip_adapter(loader.load(str(sdxl), [], offline=True).unet, tmp_path, "ip.safetensors")
    with pytest.raises(ModelError, match="is for another model"):
        load(checkpoint, ip_adapter=str(file))


def test_another_autoencoder(folder: Path, tmp_path: Path) -> None:
    four = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    tiny = AutoencoderTiny(**four, latent_channels=CHANNELS, num_encoder_blocks=(1,) * 4)
    tiny.save_pretrained(tmp_path)
    montage = load(folder, vae=str(tmp_path))
    assert isinstance(montage.denoiser.pipe.vae, AutoencoderTiny)
    assert draw(montage).config["vae"] == str(tmp_path)
    assert isinstance(
        loader.blank(str(folder), [], [], torch.float32, True, Adapters(vae=str(tmp_path))).vae, AutoencoderTiny
    )


def test_other_weight_files_are_read_with_a_note(make_pipe: PipeFactory, tmp_path: Path) -> None:
    pipe = make_pipe(0, torch.float32)
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    assert not list(tmp_path.glob("unet/*.safetensors"))
    montage = Montage.from_pretrained(str(tmp_path), offline=True)
    result = draw(montage)
    assert any("is no .safetensors file; of other files nothing but weights is read" in note for note in result.notes)
    assert torch.equal(result.latents, draw(Montage.from_pipe(pipe)).latents)


def test_pickles_with_code_are_rejected(make_pipe: PipeFactory, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "harmed",)  # type: ignore[return-value]

    pipe = make_pipe(0, torch.float32)
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    (file,) = tmp_path.glob("unet/*.bin")
    torch.save({"conv_in.weight": Harm()}, file)
    with pytest.raises(ModelError):
        Montage.from_pretrained(str(tmp_path), offline=True)
    assert not (tmp_path / "harmed").exists()


def test_initial_latents_of_the_bundled_model_are_stable(checkpoint: Path) -> None:
    drawn: list[Tensor] = [draw(load(checkpoint)).latents, draw(Montage.from_pretrained(str(checkpoint))).latents]
    assert torch.equal(*drawn)
