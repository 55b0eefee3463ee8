"""What a run would do, in words: canvas, windows, steps, network calls, memory."""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby

from synccontrol import families
from synccontrol.canvas.layout import AbstractLayout
from synccontrol.config import ONCE, Geometry
from synccontrol.errors import ModelError
from synccontrol.jobs import footprint, maps
from synccontrol.jobs.job import Job
from synccontrol.jobs.recipe import Recipe
from synccontrol.jobs.runtime import device_of, dtype_of
from synccontrol.models import hub
from synccontrol.sampling import objectives
from synccontrol.sampling.objectives import AbstractObjective

GB = 1e9


def forecast(jobs: Sequence[Job]) -> list[str]:
    """Returns lines that say what a run would do, per picture: canvas, windows, steps, network calls.

    Raises:
        SyncControlError: a guide or a setting is wrong; nothing has been done by then.
    """
    lines: list[str] = []
    for request, group in groupby(jobs, key=lambda job: job.recipe.request):
        lines.append(f"model    {request.model} on {device_of(request)}, {dtype_of(request)}")
        lines += _forecast_model(group, hub.geometry(request.model, request.offline))
    return lines


def _forecast_model(jobs: Iterable[Job], geometry: Geometry) -> list[str]:
    describe = cache(lambda layout, recipe: _forecast_one(layout, geometry, recipe))
    lines: list[str] = []
    for job in jobs:
        notes: list[str] = []
        layout = maps.check(job, geometry, notes.append)
        lines.append(f"{' + '.join(map(str, job.inputs)) or 'text only'} -> {job.output}")
        lines += [*(f"  fit      {note}" for note in notes), *describe(layout, job.recipe)]
    return lines


def _forecast_one(layout: AbstractLayout, geometry: Geometry, recipe: Recipe) -> list[str]:
    n, sampling, sync = len(layout), recipe.sampling, recipe.sync
    follows = recipe.anchor is None  # one of the windows, which itself is not synced
    others = n - 1 if follows else n
    synced = sum(sync.due(i) for i in range(sampling.steps)) if others else 0
    evaluations, backward = _evaluations(n, others, synced, recipe)
    h, w = geometry.window_px
    return [
        f"  canvas   {layout.width * geometry.cell}x{layout.height * geometry.cell} px, "
        f"{layout.width}x{layout.height} cells" + (f", {layout.kind}" if layout.kind else ""),
        f"  windows  {n} of {w}x{h} px, stride {layout.stride * geometry.cell} px, {recipe.windows.batch} in a call",
        f"  steps    {sampling.steps}, {synced} of them synced ({sync.objective}, gradient {sync.gradient})",
        f"  network  {evaluations} window evaluations, {backward} of them with a backward pass, {others * synced} "
        "pictures through the objective",
        _forecast_memory(layout, recipe, synced > 0),
    ]


def _evaluations(n: int, others: int, synced: int, recipe: Recipe) -> tuple[int, int]:
    """Returns how often the networks see a window, with and without prompt apart, and how often gradients go back."""
    halves = 2 if recipe.sampling.guidance_scale > 1 else 1
    full, once = recipe.sync.gradient == "full", recipe.sync.predict == ONCE
    extra = others * (full if once else 1)  # beyond one look at every window: nudged windows are looked at again
    return halves * (n * recipe.sampling.steps + extra * synced), halves * others * synced * full


def _forecast_memory(layout: AbstractLayout, recipe: Recipe, synced: bool) -> str:
    request = recipe.request
    objective = _objective(recipe) if synced else None
    with footprint.fake():
        try:
            pipe = hub.blank(request.model, request.controls, request.controlnets, dtype_of(request), request.offline)
        except ModelError:
            return "  memory   unknown until the model's configuration files are downloaded"
        found = footprint.rehearse(
            families.wrap(pipe, request.controls),
            layout,
            recipe.sampling,
            recipe.windows,
            recipe.sync if synced else None,
            objective,
        )
    lasting = (
        f"weights {found.weights / GB:.2f}, embeddings {found.embeddings / GB:.2f}, canvas {found.canvas / GB:.2f}"
    )
    sampling, others = f"sampling {found.sampling / GB:.2f}", f"decoding {found.decoding / GB:.2f}"
    if found.sync:
        others = f"sync {found.sync / GB:.2f}, {others}"
    if device_of(request) != "cpu":
        return f"  memory   about {found.peak / GB:.2f} GB: {lasting}, and the largest of {sampling}, {others}"
    return (
        f"  memory   about {found.grown / GB:.2f} GB: {lasting}, {sampling}, and the largest of {others}; "
        f"this program itself holds {footprint.resident() / GB:.2f}"
    )


def _objective(recipe: Recipe) -> AbstractObjective | None:
    """Returns the objective of sync, if it is on this machine already."""
    try:
        return objectives.load(recipe.sync.objective, offline=True)
    except ModelError:
        return None
