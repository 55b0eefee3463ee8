"""Presets: the bundled model is what its preset says, and tiny models stand in for the published ones."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

import preprocess
from synccontrol import Montage, SyncConfig
from synccontrol.errors import ModelError
from synccontrol.jobs import footprint
from synccontrol.models import hub, presets
from tests.conftest import FEATURES, PipeFactory
from tests.families import tiny_sdxl


def test_the_bundled_model_is_what_its_preset_says() -> None:
    preset = presets.PRESETS["tiny"]
    montage = Montage.from_pretrained("tiny", controls=["depth", "canny", "pose"], offline=True)
    assert montage.denoiser.geometry == preset.geometry
    assert montage.denoiser.controls == 3
    assert montage.defaults == preset.defaults
    files = [path for path in presets.BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert max(path.stat().st_size for path in files) <= 20e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]


def test_presets_name_what_the_hub_and_the_detectors_know() -> None:
    for name, preset in presets.PRESETS.items():
        ids = [preset.base, *preset.controlnets.values(), *([preset.vae] if preset.vae else [])]
        assert name == "tiny" or all(re.fullmatch(r"[\w.-]+/[\w.-]+", one) for one in ids)
        assert set(preset.controlnets) <= set(preprocess.names())
        windows = preset.defaults.windows
        assert windows.stride <= min(preset.geometry.window) // 2


def test_a_preset_brings_its_autoencoder_and_its_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_sdxl.save(tmp_path / "base")
    pipe = tiny_sdxl.load(base, 0)
    pipe.vae.register_to_config(force_upcast=False)
    pipe.vae.save_pretrained(tmp_path / "vae")
    halves = tmp_path / "halves"
    pipe.to(dtype=torch.float16).save_pretrained(halves, variant="fp16")
    union = str(base / tiny_sdxl.UNION)
    preset = dataclasses.replace(
        presets.PRESETS["sdxl"],
        base=str(halves),
        vae=str(tmp_path / "vae"),
        controlnets={"depth": str(base / "controlnet-depth"), "normal": union, "softedge": union},
    )
    monkeypatch.setattr(presets, "PRESETS", {"sdxl": preset})
    montage = Montage.from_pretrained("sdxl", ["normal", "softedge"], dtype=torch.float16, offline=True)
    assert montage.denoiser.controls == 2
    assert montage.denoiser.pipe.vae.config.force_upcast is False
    assert {part.dtype for part in (montage.denoiser.pipe.unet, montage.denoiser.pipe.vae)} == {torch.float16}
    assert (
        Montage.from_pretrained("sdxl", ["depth", "normal"], dtype=torch.float16, offline=True).denoiser.controls == 2
    )
    with pytest.raises(ModelError, match="no file named"):  # the files of 32 bits, which are not there
        Montage.from_pretrained("sdxl", dtype=torch.float32, offline=True)
    with footprint.fake():
        blank = hub.blank("sdxl", ["depth"], [], torch.float16, offline=True)
    assert blank.vae.dtype == torch.float16  # it needs no float32


def test_stable_diffusion_2_1_at_768_pixels(
    make_pipe: PipeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model with the windows, the prediction and the projections of the published one."""
    preset = presets.PRESETS["sd21-768"]
    h, w = preset.geometry.window
    pipe = make_pipe(0, torch.float32, prediction_type="v_prediction")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel(
            sample_size=h,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            norm_num_groups=4,
            cross_attention_dim=FEATURES,
        )
    pipe.save_pretrained(tmp_path)
    monkeypatch.setattr(presets, "PRESETS", {"sd21-768": dataclasses.replace(preset, base=str(tmp_path))})
    montage = Montage.from_pretrained("sd21-768", offline=True)
    assert montage.denoiser.geometry == hub.geometry(str(tmp_path), offline=True) == preset.geometry
    noise = torch.randn(1, 4, h, w, generator=torch.Generator().manual_seed(0))
    few = dataclasses.replace(montage.defaults.sampling, steps=2)
    ours = montage("a hill", height=768, width=768, latents=noise, sampling=few, sync=SyncConfig(weight=0.0)).latents
    theirs = montage.denoiser.pipe("a hill", latents=noise, num_inference_steps=2, output_type="latent").images
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()
