"""What all pictures of a run have in common, and with its job a `Picture`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from preprocess import Detector
from synccontrol.config import FITS, MIDDLE, Geometry, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError
from synccontrol.files import fitting, provenance
from synccontrol.jobs.plan import Job
from synccontrol.jobs.runtime import Request
from synccontrol.picture import ANCHOR, CONTROL_MAP, GUIDE, IP_IMAGE, Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all pictures of a run have in common."""

    request: Request
    detectors: Sequence[Detector]  # one per control, for guides
    outside: Sequence[fitting.Colour | None]  # what each map shows beyond its guide; None: its border goes on
    fit: str  # how a guide or control map of another aspect comes onto the canvas, one of `FITS`
    sampling: SamplingConfig
    windows: WindowConfig
    sync: SyncConfig
    anchor: Path | None = None  # the file of sync's anchor, if it is one
    ip_image: Path | None = None  # the file of what the IP-Adapter is shown
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; known: {', '.join(FITS)}")


def check_settings(recipe: Recipe, geometry: Geometry) -> None:
    """Raises `ConfigError` for settings with which no picture of this model can be made."""
    recipe.sync.check_side(min(geometry.window_px))
    recipe.sampling.check_controls(len(recipe.request.controls))


def picture_of(job: Job, recipe: Recipe, height: int, width: int) -> Picture:
    """Returns what decides a job's picture of height x width px. Raises `InputError` if a file cannot be read."""
    files = [(GUIDE, job.guide), *((CONTROL_MAP, path) for path in job.control_maps)]
    files += [(ANCHOR, recipe.anchor), (IP_IMAGE, recipe.ip_image)]
    request = recipe.request
    return Picture(
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        height=height,
        width=width,
        seed=job.seed,
        sampling=recipe.sampling,
        windows=recipe.windows,
        sync=recipe.sync if recipe.anchor is None else dataclasses.replace(recipe.sync, anchor=MIDDLE),
        sources=tuple(provenance.source(role, path) for role, path in files if path is not None),
        model=request.model,
        controls=request.controls,
        controlnets=request.controlnets,
        detectors=() if job.control_maps else request.detectors,
        extras=request.extras,
        fit=recipe.fit,
    )
