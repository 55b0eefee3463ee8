"""A tiny VAE, through which the objective and previews look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from synccontrol import Adapters, Montage, SamplingConfig, SyncConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.errors import ConfigError, ModelError
from synccontrol.models import loader, registry
from synccontrol.models.adapters import add_tiny_vae, tiny_vae_source
from synccontrol.models.loader import revision
from tests.conftest import CELL, CHANNELS, WINDOW
from tests.families import tiny_sdxl

SIZE = WINDOW * CELL  # px
SYNC = SyncConfig(weight=20.0, steps=2, gradient="full", step_size="rms", objective="stlpips").complete()


def save(folder: Path, channels: int = CHANNELS, cells: int = 4) -> AutoencoderTiny:
    """Return a tiny VAE of random weights, saved into a folder."""
    blocks = {"encoder_block_out_channels": (8,) * cells, "decoder_block_out_channels": (8,) * cells}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tiny = AutoencoderTiny(
            **blocks, latent_channels=channels, num_encoder_blocks=(1,) * cells, num_decoder_blocks=(1,) * cells
        ).eval()
    tiny.save_pretrained(folder)
    return tiny


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("sdxl"))


def load(folder: Path, **adapters: str) -> Montage:
    return Montage.from_pretrained(str(folder), adapters=Adapters(**adapters), offline=True)


def draw(montage: Montage, sync: SyncConfig = SYNC, **options: Any) -> Any:
    sampling = SamplingConfig(steps=3, guidance_scale=1.0).complete()
    return montage("a hill", height=SIZE, width=2 * SIZE, sampling=sampling, sync=sync, **options)


@pytest.mark.parametrize("model", ["checkpoint", "sdxl"])
def test_the_objective_and_previews_use_the_tiny_vae(
    request: pytest.FixtureRequest, tmp_path: Path, model: str
) -> None:
    folder, small = request.getfixturevalue(model), str(tmp_path)
    save(tmp_path)
    ours, instead, plain = load(folder, tiny_vae=small), load(folder, vae=small), load(folder)
    previews: list[list[Any]] = [[], []]
    drawn = [
        draw(montage, on_step=lambda step, to=to: to.append(step.render()))
        for montage, to in zip((ours, instead), previews, strict=True)
    ]
    assert torch.equal(drawn[0].latents, drawn[1].latents)
    assert not torch.allclose(drawn[0].latents, draw(plain).latents, atol=1e-4)
    assert all(np.array_equal(*map(np.asarray, pair)) for pair in zip(*previews, strict=True))
    assert not np.array_equal(*(np.asarray(one.image) for one in drawn))  # the finished image is the model's own
    again = draw(plain, SyncConfig(weight=0.0).complete())
    assert np.array_equal(*(np.asarray(draw(one, SyncConfig(weight=0.0).complete()).image) for one in (ours, plain)))
    assert drawn[0].config["tiny_vae"] == small and again.config["tiny_vae"] == ""


def test_flow_models_use_the_tiny_vae(z_image: Path, tmp_path: Path) -> None:
    own = load(z_image).denoiser.geometry
    save(tmp_path, own.channels, own.cell.bit_length())
    montage = load(z_image, tiny_vae=str(tmp_path))
    x0 = torch.randn(1, own.channels, *own.window, generator=torch.Generator().manual_seed(1))
    family = montage.denoiser
    with family.session(), torch.no_grad():
        assert torch.equal(family.decode_preview(x0), AutoencoderTiny.from_pretrained(tmp_path).decode(x0).sample)
        assert not torch.allclose(family.decode_preview(x0), family.decode(x0), atol=1e-3)
    seen: list[Tensor] = []

    def objective(images: Tensor, anchor: Tensor) -> Tensor:
        seen.append(images.detach())
        return (images - anchor).square().mean(dim=(1, 2, 3))

    side = own.window_px[0]
    montage(
        "a hill",
        height=side,
        width=2 * side,
        sampling=SamplingConfig(steps=4, guidance_scale=1.0).complete(),
        sync=SyncConfig(weight=1.0, steps=1, gradient="full", objective=objective).complete(),
    )
    assert seen and seen[0].shape == (1, 3, side, side)
    assert all(one.isfinite().all() for one in seen)


def test_tiny_vaes_of_other_latents_are_rejected(checkpoint: Path, tmp_path: Path) -> None:
    save(tmp_path / "channels", channels=CHANNELS + 1)
    with pytest.raises(
        ConfigError, match=r"reads latents of 5 channels and cells of 8 px, and this model's have 4 and 8"
    ):
        load(checkpoint, tiny_vae=str(tmp_path / "channels"))
    save(tmp_path / "cells", cells=3)
    with pytest.raises(ConfigError, match="cells of 4 px"):
        load(checkpoint, tiny_vae=str(tmp_path / "cells"))
    load(checkpoint).denoiser.pipe.vae.save_pretrained(tmp_path / "large")
    with pytest.raises(ConfigError, match="is an AutoencoderKL, not a tiny VAE"):
        load(checkpoint, tiny_vae=str(tmp_path / "large"))
    with pytest.raises(ModelError, match="missing"):
        load(checkpoint, tiny_vae=str(tmp_path / "missing"))
    with pytest.raises(ModelError, match=r"no tiny VAE is known for .*name one"):
        load(checkpoint, tiny_vae="auto")


def test_named_models_have_a_known_tiny_vae() -> None:
    known = {name: preset.tiny_vae for name, preset in registry.PRESETS.items() if preset.tiny_vae}
    assert known.keys() == registry.PRESETS.keys() - {"tiny", "qwen-image"}
    for name, found in known.items():
        assert tiny_vae_source(name, Adapters(tiny_vae="auto")) == found
    assert tiny_vae_source("sd15", Adapters()) == ""


def test_it_counts(checkpoint: Path, tmp_path: Path) -> None:
    tiny = save(tmp_path)
    asked = Adapters(tiny_vae=str(tmp_path))
    assert revision(str(checkpoint), [], [], asked) != revision(str(checkpoint), [], [])
    found = []
    for adapters in (Adapters(), asked):
        with memory_estimate.fake_mode():
            family = families.wrap(
                loader.blank(str(checkpoint), [], [], torch.float32, offline=True, adapters=adapters)
            )
            add_tiny_vae(family, str(checkpoint), adapters, offline=True, blank=True)
            found.append(memory_estimate._held(family._modules()))
    assert found[1] - found[0] == sum(weight.nbytes for weight in tiny.state_dict().values())
