"""How a model is used when nothing is said: four presets of settings, made for each family from its own strengths.

What they rest on was measured on the bundled model (`benchmarks/frontier/README.md`). For other models the same is
carried over, by what a window costs there, with the guidance and steps that their makers advise.
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
DRAFT_STRENGTH, BEST_DRAFT_STRENGTH = 0.8, 0.65  # less is more of one scene, and follows edges a little less closely
NOISE, FAST_NOISE, BEST_NOISE = 1.05, 1.15, 1.0  # over a scaffold, which lost detail as it was stretched
FAST_STEPS, BEST_STEPS = 1 / 2, 3 / 2  # of those of `default`
GUIDED = 0.67  # part of the steps that are guided, from the first: the last ones settle detail, and cost half without
PAPER_STRIDE, BEST_STRIDE, STRIDE, FAST_STRIDE = 1 / 4, 1 / 2, 5 / 8, 3 / 4  # of a window's shorter side
FEW_STEPS = 10  # a model that draws in so many was distilled to, and gets no more
LARGE = ("z_image", "qwen_image")  # families of which one window is enough at a time
DISTILLED = ("LCMScheduler", "TCDScheduler")  # what such models come with
UNCHOSEN = ("", "PNDMScheduler")  # what published models come with, where a faster solver serves better

_SAMPLING: Mapping[str, SamplingConfig] = MappingProxyType(
    {
        "sd": SamplingConfig(steps=18, scheduler="dpmpp_2m"),
        "sdxl": SamplingConfig(steps=25, guidance_scale=5.0, scheduler="dpmpp_2m"),
        "z_image": SamplingConfig(steps=25, guidance_scale=5.0, control_scale=0.75),
        "qwen_image": SamplingConfig(steps=30, guidance_scale=4.0),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defaults:
    """The settings of a preset, every one of them set."""

    sampling: SamplingConfig = SamplingConfig()
    windows: WindowConfig = WindowConfig()
    sync: SyncConfig = SyncConfig()

    def __post_init__(self) -> None:
        for name in ("sampling", "windows", "sync"):
            object.__setattr__(self, name, getattr(self, name).complete())


def made_for(
    sampling: SamplingConfig,
    geometry: Geometry,
    *,
    objective: str = "lpips",
    batch: int = 4,
    stride: float = STRIDE,
    draft_strength: float = DRAFT_STRENGTH,
    noise: float = NOISE,
) -> Defaults:
    """Returns the settings of the preset `default`.

    All of the canvas is drawn in one window first; then, windows take on the anchor's statistics, and overlap little.

    The objective has nothing to do; it is set to its cheapest form, for who gives it a weight.

    Args:
        sampling: how the model is denoised.
        geometry: its native sizes.
        objective: what compares its windows, where they are compared.
        batch: windows in one call.
        stride: between windows, as a part of their side.
        draft_strength: img2img strength over the draft.
        noise: factor on the noise that is laid over that.
    """
    return Defaults(
        sampling=sampling.replace(guidance_end=GUIDED if sampling.guidance_scale > 1 else 1.0),
        windows=WindowConfig(stride=_part(geometry, stride), weights="ramp", batch=batch),
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


def of_family(family: str, geometry: Geometry, scheduler: str = "") -> Defaults:
    """Returns the settings of a model that has none of its own.

    Args:
        family: the module of `synccontrol.families` that serves it, by its last name.
        geometry: its native sizes.
        scheduler: the class of the scheduler that it comes with, which is kept if somebody chose it.
    """
    own = _SAMPLING.get(family, SamplingConfig())
    if scheduler in DISTILLED:
        own = own.replace(steps=8, guidance_scale=1.0, scheduler=MODEL)
    elif scheduler not in UNCHOSEN:
        own = own.replace(scheduler=MODEL)
    return made_for(own, geometry, batch=1 if family in LARGE else 4)


@functools.cache
def variants(default: Defaults, geometry: Geometry) -> Mapping[str, Defaults]:
    """Returns the four presets of a model, by name, given its `default`.

    `paper` is SyncDiffusion as published (arXiv 2306.05178), with the model's own guidance and objective. `fast` takes
    fewer steps and windows. `best` takes more of both, and keeps more of the scaffold.
    """
    own = default.sampling
    few = own.steps <= FEW_STEPS

    def steps(share: float) -> SamplingConfig:
        return own if few else own.replace(steps=round(own.steps * share))

    kept: dict[str, Any] = {"objective": default.sync.objective, "batch": default.windows.batch}
    solver = own.scheduler if own.scheduler == MODEL else "ddim"
    paper = Defaults(
        sampling=own.replace(steps=own.steps if few else PAPER_STEPS, scheduler=solver, guidance_end=1.0),
        windows=WindowConfig(stride=_part(geometry, PAPER_STRIDE), batch=default.windows.batch),
        sync=SyncConfig(objective=default.sync.objective),
    )
    fast = made_for(steps(FAST_STEPS), geometry, stride=FAST_STRIDE, noise=FAST_NOISE, **kept)
    best = made_for(
        steps(BEST_STEPS), geometry, stride=BEST_STRIDE, draft_strength=BEST_DRAFT_STRENGTH, noise=BEST_NOISE, **kept
    )
    return MappingProxyType({PAPER: paper, DEFAULT: default, FAST: fast, BEST: best})


def chosen(found: Mapping[str, Defaults], preset: object) -> Defaults:
    """Returns the settings of a preset by its name. Raises `ConfigError` if there is none of that name."""
    require_choice("preset", preset, PRESETS)
    return found[str(preset)]


def _part(geometry: Geometry, part: float) -> int:
    """Returns a part of a window's side in cells, 1 at least."""
    return max(1, int(min(geometry.window) * part))
