"""What a run would do, in words: canvas, windows, steps, network calls, memory."""

from collections.abc import Sequence
from functools import cache

from synccontrol.canvas.layout import AbstractLayout
from synccontrol.config import Geometry
from synccontrol.errors import ModelError
from synccontrol.jobs import batch, footprint
from synccontrol.jobs.plan import Job
from synccontrol.jobs.recipe import Recipe
from synccontrol.jobs.runtime import Request, device_of, dtype_of
from synccontrol.models import presets

GB = 1e9


def forecast(request: Request, jobs: Sequence[Job], recipe: Recipe) -> list[str]:
    """Returns lines that say what a run would do, per guide: canvas, windows, steps, network calls.

    Raises:
        SyncControlError: a guide or a setting is wrong; nothing has been done by then.
    """
    geometry = presets.geometry(request.model, request.offline)
    describe = cache(lambda layout: _forecast_one(layout, request, geometry, recipe))
    lines = [f"model    {request.model} on {device_of(request)}, {dtype_of(request)}"]
    for job in jobs:
        notes: list[str] = []
        layout = batch.check(job, recipe, geometry, notes.append)
        lines.append(f"{job.guide or 'text only'} -> {job.output}")
        lines += [*(f"  fit      {note}" for note in notes), *describe(layout)]
    return lines


def _forecast_one(layout: AbstractLayout, request: Request, geometry: Geometry, recipe: Recipe) -> list[str]:
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
    layout: AbstractLayout, request: Request, recipe: Recipe, halves: int, gradient: str | None
) -> str:
    with footprint.fake():
        try:
            skeleton = presets.skeleton(
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
