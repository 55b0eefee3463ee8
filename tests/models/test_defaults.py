"""The four presets of settings: what they are for every model, and that pipelines start as well as named models."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import pytest
import torch

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError
from synccontrol.models import presets as defaults
from synccontrol.models import registry
from synccontrol.models.presets import default_preset, preset_variants
from synccontrol.spec.settings import Geometry
from tests.conftest import CELL, WINDOW, PipeFactory


@pytest.mark.parametrize("model", list(registry.PRESETS))
def test_every_model_has_four_presets_of_rising_cost(model: str) -> None:
    preset = registry.PRESETS[model]
    found = preset_variants(preset.defaults, preset.geometry)
    assert tuple(sorted(found)) == tuple(sorted(defaults.PRESETS))
    default, fast, best, paper = (found[name] for name in ("default", "fast", "best", "paper"))
    assert default == preset.defaults
    assert fast.sampling.steps <= default.sampling.steps <= best.sampling.steps <= paper.sampling.steps
    assert fast.windows.stride > default.windows.stride > best.windows.stride > paper.windows.stride
    assert not any(own.sync.perceptual for own in (default, fast, best))  # none compares images
    assert default.sync.adain == fast.sync.adain == best.sync.adain == 1.0
    assert (
        default.sync.draft_strength
        == fast.sync.draft_strength
        > best.sync.draft_strength
        > paper.sync.draft_strength
        == 0
    )
    assert fast.sync.draft_noise > default.sync.draft_noise > best.sync.draft_noise == 1.0
    for own in (default, fast, best):
        own.sync.check_side(min(preset.geometry.window_px))


def test_paper_preset_matches_the_paper() -> None:
    preset = registry.PRESETS["sd15"]
    paper = preset_variants(preset.defaults, preset.geometry)["paper"]
    assert paper.sampling == SamplingConfig(steps=50, guidance_scale=7.5, scheduler="ddim").complete()
    assert paper.windows == WindowConfig(stride=16).complete()
    assert (
        paper.sync
        == SyncConfig(weight=20.0, steps=5, decay=0.95, gradient="full", objective="lpips", adain=0.0).complete()
    )


def test_distilled_models_keep_their_steps() -> None:
    turbo = default_preset(
        SamplingConfig(steps=4, guidance_scale=1.0).complete(), Geometry(window=(64, 64), cell=8, channels=4)
    )
    assert {
        own.sampling.steps for own in preset_variants(turbo, Geometry(window=(64, 64), cell=8, channels=4)).values()
    } == {4}
    assert turbo.sampling.guidance_end == 1.0  # there is no guidance to end


@pytest.mark.parametrize(
    ("scheduler", "steps", "guidance", "kept"),
    [
        ("PNDMScheduler", 18, 7.5, "dpmpp_2m"),  # what Stable Diffusion comes with
        ("UniPCMultistepScheduler", 18, 7.5, "model"),  # what somebody chose
        ("LCMScheduler", 8, 1.0, "model"),
    ],
)
def test_a_loaded_pipeline_has_its_familys_defaults(
    make_pipe: PipeFactory, scheduler: str, steps: int, guidance: float, kept: str
) -> None:
    pipe = make_pipe(0)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    own = Montage.from_pipe(pipe).defaults
    assert (own.sampling.steps, own.sampling.guidance_scale, own.sampling.scheduler) == (steps, guidance, kept)
    assert own.windows == WindowConfig(stride=WINDOW * 5 // 8, weights="ramp").complete()
    assert own.sync.adain == 1.0


def test_a_preset_in_a_call_equals_its_settings(make_pipe: PipeFactory) -> None:
    montage = Montage.from_pipe(make_pipe(0))
    montage.defaults = replace(montage.defaults, sampling=SamplingConfig(steps=2, scheduler="ddim").complete())
    size = {"height": WINDOW * CELL, "width": 2 * WINDOW * CELL}
    fast = preset_variants(montage.defaults, montage.denoiser.geometry)["fast"]
    by_name = montage("x", **size, preset="fast")
    by_hand = montage("x", **size, sampling=fast.sampling, windows=fast.windows, sync=fast.sync)
    assert torch.equal(by_name.latents, by_hand.latents)
    assert by_name.config == by_hand.config
    changed = montage("x", **size, preset="fast", windows=WindowConfig(stride=2).complete())
    assert changed.config["stride"] == 2 and changed.config["steps"] == fast.sampling.steps
    with pytest.raises(ConfigError, match="unknown preset 'slow'; known: paper, default, fast, best"):
        montage("x", **size, preset="slow")
