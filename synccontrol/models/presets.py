"""The four presets of settings, adapted to each model family.

The values were measured on the bundled model (`benchmarks/frontier/README.md`). For other models they are scaled by
the cost of a window, with the guidance and steps that the models' authors recommend.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from synccontrol.spec.image_settings import BEST, DEFAULT, FAST, PAPER, PRESETS
from synccontrol.spec.schema import require_choice
from synccontrol.spec.settings import MODEL, ONCE, Geometry, SamplingConfig, SyncConfig, WindowConfig

PAPER_STEPS = 50
DRAFT_STRENGTH, BEST_DRAFT_STRENGTH = 0.8, 0.65  # lower is more coherent and follows edges a little less closely
# Noise factor over the draft, which loses detail when it is upscaled.
DRAFT_NOISE, FAST_NOISE, BEST_NOISE = 1.05, 1.15, 1.0
FAST_STEPS, BEST_STEPS = 1 / 2, 3 / 2  # relative to `default`
# Share of guided steps, from the first. The last steps only settle detail, and cost half without guidance.
GUIDED_SHARE = 0.67
PAPER_STRIDE, BEST_STRIDE, STRIDE, FAST_STRIDE = 1 / 4, 1 / 2, 5 / 8, 3 / 4  # relative to a window's shorter side
FEW_STEPS = 10  # a model with so few steps is distilled, and its number of steps stays
LARGE_FAMILIES = ("z_image", "qwen_image")  # families that predict one window at a time
DISTILLED_SCHEDULERS = ("LCMScheduler", "TCDScheduler")  # schedulers of distilled models
REPLACED_SCHEDULERS = ("", "PNDMScheduler")  # schedulers of published models that a faster one replaces

_SAMPLING: Mapping[str, SamplingConfig] = MappingProxyType(
    {
        "sd": SamplingConfig(steps=18, scheduler="dpmpp_2m"),
        "sdxl": SamplingConfig(steps=25, guidance_scale=5.0, scheduler="dpmpp_2m"),
        "z_image": SamplingConfig(steps=25, guidance_scale=5.0, control_scale=0.75),
        "qwen_image": SamplingConfig(steps=30, guidance_scale=4.0),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetSettings:
    """The settings of a preset, all of them set."""

    sampling: SamplingConfig = SamplingConfig()
    windows: WindowConfig = WindowConfig()
    sync: SyncConfig = SyncConfig()

    def __post_init__(self) -> None:
        for name in ("sampling", "windows", "sync"):
            object.__setattr__(self, name, getattr(self, name).complete())


def default_preset(
    sampling: SamplingConfig,
    geometry: Geometry,
    *,
    objective: str = "lpips",
    batch: int = 4,
    stride: float = STRIDE,
    draft_strength: float = DRAFT_STRENGTH,
    noise: float = DRAFT_NOISE,
) -> PresetSettings:
    """Return the settings of the preset `default`.

    A draft of the whole canvas is generated in one window first. Then windows are aligned in style and overlap little.
    The objective has weight 0; its settings are the cheapest ones, for users who give it a weight.

    Args:
        sampling: sampling settings of the model.
        geometry: its native sizes.
        objective: the sync objective.
        batch: windows in one call.
        stride: stride relative to a window's side.
        draft_strength: img2img strength over the draft.
        noise: factor on the noise that is added to the draft.
    """
    return PresetSettings(
        sampling=sampling.replace(guidance_end=GUIDED_SHARE if sampling.guidance_scale > 1 else 1.0),
        windows=WindowConfig(stride=_cells(geometry, stride), weights="ramp", batch=batch),
        sync=SyncConfig(
            adain=1.0,
            adain_steps=-(-sampling.steps // 2),
            weight=0.0,
            gradient="x0",
            step_size="rms",
            predict=ONCE,
            objective=objective,
            draft_strength=draft_strength,
            draft_noise=noise,
            shrink=2 if min(geometry.window_px) < 512 else 4,  # so that it sees 128 px or more
        ),
    )


def family_default_preset(family: str, geometry: Geometry, scheduler: str = "") -> PresetSettings:
    """Return the settings of a model without a preset of its own.

    Args:
        family: the last name of the family's module in `synccontrol.families`.
        geometry: its native sizes.
        scheduler: class name of the model's scheduler; a stock scheduler is replaced.
    """
    sampling = _SAMPLING.get(family, SamplingConfig())
    if scheduler in DISTILLED_SCHEDULERS:
        sampling = sampling.replace(steps=8, guidance_scale=1.0, scheduler=MODEL)
    elif scheduler not in REPLACED_SCHEDULERS:
        sampling = sampling.replace(scheduler=MODEL)
    return default_preset(sampling, geometry, batch=1 if family in LARGE_FAMILIES else 4)


@functools.cache
def preset_variants(default: PresetSettings, geometry: Geometry) -> Mapping[str, PresetSettings]:
    """Return the four presets of a model by name, given its `default`.

    `paper` is SyncDiffusion as published (arXiv 2306.05178), with the model's own guidance and objective. `fast` uses
    fewer steps and windows. `best` uses more of both, and a lower draft strength.
    """
    sampling = default.sampling
    is_distilled = sampling.steps <= FEW_STEPS

    def steps(share: float) -> SamplingConfig:
        return sampling if is_distilled else sampling.replace(steps=round(sampling.steps * share))

    shared: dict[str, Any] = {"objective": default.sync.objective, "batch": default.windows.batch}
    scheduler = sampling.scheduler if sampling.scheduler == MODEL else "ddim"
    paper = PresetSettings(
        sampling=sampling.replace(
            steps=sampling.steps if is_distilled else PAPER_STEPS, scheduler=scheduler, guidance_end=1.0
        ),
        windows=WindowConfig(stride=_cells(geometry, PAPER_STRIDE), batch=default.windows.batch),
        sync=SyncConfig(objective=default.sync.objective),
    )
    fast = default_preset(steps(FAST_STEPS), geometry, stride=FAST_STRIDE, noise=FAST_NOISE, **shared)
    best = default_preset(
        steps(BEST_STEPS), geometry, stride=BEST_STRIDE, draft_strength=BEST_DRAFT_STRENGTH, noise=BEST_NOISE, **shared
    )
    return MappingProxyType({PAPER: paper, DEFAULT: default, FAST: fast, BEST: best})


def select_preset(presets: Mapping[str, PresetSettings], preset: object) -> PresetSettings:
    """Return the settings of a preset by name. Raise `ConfigError` if there is none of that name."""
    require_choice("preset", preset, PRESETS)
    return presets[str(preset)]


def _cells(geometry: Geometry, part: float) -> int:
    """Return a fraction of a window's side in cells, at least 1."""
    return max(1, int(min(geometry.window) * part))
