"""From a request in words to what a run needs: device, dtype, model, detectors, and a forecast of the work."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

import preprocess
from synccontrol.canvas.layout import AbstractLayout
from synccontrol.config import Geometry
from synccontrol.errors import ConfigError, ModelError, translated
from synccontrol.files.fitting import Colour
from synccontrol.jobs import batch, footprint
from synccontrol.models import hub
from synccontrol.montage import Montage

AUTO = "auto"
BLACK = (0, 0, 0)
GB = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Which model, detectors and machine to use."""

    model: str
    controls: tuple[str, ...]
    controlnets: tuple[str, ...]
    detectors: tuple[str, ...]
    device: str = AUTO
    dtype: str = AUTO
    offline: bool = False

    def settings(self) -> dict[str, Any]:
        """Returns the part of the request that decides the picture, as JSON values by flag."""
        return {
            "model": self.model,
            "control": list(self.controls),
            "controlnet": list(self.controlnets),
            "detector": list(self.detectors),
        }


def device_of(request: Request) -> str:
    """Returns the torch device: as asked, or the best there is."""
    if request.device != AUTO:
        hub.check_device(request.device)
        return request.device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def dtype_of(request: Request) -> torch.dtype:
    """Returns the dtype: as asked, or float16 on cuda and float32 elsewhere. Raises `ConfigError` if unknown."""
    if request.dtype == AUTO:
        return torch.float16 if device_of(request).startswith("cuda") else torch.float32
    if request.dtype not in hub.DTYPES:
        raise ConfigError(f"unknown dtype {request.dtype!r}; known: {', '.join(hub.DTYPES)}")
    return hub.DTYPES[request.dtype]


def detectors(request: Request, loop: bool) -> list[tuple[str, batch.Detector]]:
    """Returns each control type with its detector; weights are loaded when it is first called.

    Args:
        request: what is asked for.
        loop: guides are rings, and so are the control maps.

    Raises:
        ConfigError: a control type or detector is unknown.
        ModelError: a detector's weights cannot be had.
    """
    names = request.detectors or (None,) * len(request.controls)
    return [
        (control, _detector(control, name, request, loop))
        for control, name in zip(request.controls, names, strict=True)
    ]


def outside(request: Request) -> list[Colour | None]:
    """Returns what the map of each control shows beyond its guide: a colour, or None: its border goes on."""
    known = preprocess.names()
    return [preprocess.outside(control) if control in known else BLACK for control in request.controls]


def _detector(control: str, name: str | None, request: Request, loop: bool) -> batch.Detector:
    with translated():
        detect = preprocess.load(control, name, device=device_of(request), offline=request.offline, loop=loop)
    return translated()(detect)


def load(request: Request) -> Montage:
    """Returns the montage of a request. Raises `ModelError` when something is not to be had."""
    return Montage.from_pretrained(
        request.model,
        request.controls,
        controlnets=request.controlnets,
        device=device_of(request),
        dtype=dtype_of(request),
        offline=request.offline,
    )


def forecast(request: Request, jobs: Sequence[batch.Job], recipe: batch.Recipe) -> list[str]:
    """Returns lines that say what a run would do, per guide: canvas, windows, steps, network calls.

    Raises:
        SyncControlError: a guide or a setting is wrong; nothing has been done by then.
    """
    geometry = hub.geometry(request.model, request.offline)
    describe = cache(lambda layout: _forecast_one(layout, request, geometry, recipe))
    lines = [f"model    {request.model} on {device_of(request)}, {dtype_of(request)}"]
    for job in jobs:
        notes: list[str] = []
        layout = batch.check(job, recipe, geometry, notes.append)
        lines.append(f"{job.guide or 'text only'} -> {job.output}")
        lines += [*(f"  fit      {note}" for note in notes), *describe(layout)]
    return lines


def _forecast_one(layout: AbstractLayout, request: Request, geometry: Geometry, recipe: batch.Recipe) -> list[str]:
    n, steps, sync = len(layout), recipe.sampling.steps, recipe.sync
    halves = 2 if recipe.sampling.guidance_scale > 1 else 1
    synced = sum(sync.due(i) for i in range(steps)) if n > 1 else 0
    calls = halves * (n * steps + (n - 1) * synced)
    backward = halves * (n - 1) * synced if sync.gradient == "full" else 0
    h, w = geometry.window_px
    return [
        f"  canvas   {layout.width * geometry.cell}x{layout.height * geometry.cell} px, "
        f"{layout.width}x{layout.height} cells" + (f", {layout.kind}" if layout.kind else ""),
        f"  windows  {n} of {w}x{h} px, stride {layout.stride * geometry.cell} px, {recipe.windows.batch} in a call",
        f"  steps    {steps}, {synced} of them synced ({sync.objective}, gradient {sync.gradient})",
        f"  network  {calls} window evaluations, {backward} of them with a backward pass, {(n - 1) * synced} pictures "
        "through the objective",
        _forecast_memory(layout, request, recipe, halves, sync.gradient if synced else None),
    ]


def _forecast_memory(
    layout: AbstractLayout, request: Request, recipe: batch.Recipe, halves: int, gradient: str | None
) -> str:
    with footprint.fake():
        try:
            skeleton = hub.skeleton(
                request.model, request.controls, request.controlnets, dtype_of(request), request.offline
            )
        except ModelError:
            return "  memory   unknown until the model's configuration files are downloaded"
        found = footprint.rehearse(skeleton, layout, recipe.windows.batch, halves, gradient)
    parts = {"sampling": found.sampling, "sync": found.sync, "decoding": found.decoding}
    working = ", ".join(f"{name} {size / GB:.2f}" for name, size in parts.items() if size)
    return (
        f"  memory   about {found.peak / GB:.2f} GB: weights {found.weights / GB:.2f}, and the largest of {working} "
        "(the objective's network comes on top)"
    )
