"""What a run would do, in words: canvas, windows, steps, network calls, memory."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from synccontrol import families
from synccontrol.batch import existing, memory_estimate, prepare
from synccontrol.batch.job import Job, Recipe
from synccontrol.batch.model_request import device_of, devices_of, dtype_of
from synccontrol.batch.prepare import Work
from synccontrol.errors import ModelError
from synccontrol.models import loader
from synccontrol.models.adapters import add_tiny_vae
from synccontrol.models.devices import CPU
from synccontrol.pipeline.denoise import solver_of
from synccontrol.pipeline.stages import Pass
from synccontrol.sampling import objectives
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.spec.image_settings import CONFIGS
from synccontrol.spec.schema import flags
from synccontrol.spec.settings import Geometry

GB = 1e9
UNKNOWN = "  memory   unknown until the model's configuration files are downloaded"
BEFORE = Path("the pass before")  # what a pass over another picture starts from


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Estimate:
    """What one stage of an image takes."""

    lines: tuple[str, ...]
    windows: int
    evaluations: int  # of windows by the networks


def forecast(jobs: Sequence[Job], folder: Path) -> list[str]:
    """Return lines on what a run would do: canvas, windows, steps and network calls of each image, and totals.

    Args:
        jobs: the images.
        folder: of all outputs; what its results log says of like images gives the time.

    Raises:
        SyncControlError: a guide or a setting is wrong; nothing has been done by then.
    """
    lines: list[str] = []
    everything: list[_Estimate] = []
    for request, group in groupby(jobs, key=lambda job: job.recipe.request):
        adapters = request.adapters
        uncounted = "; LoRAs and IP-Adapters are not counted" if adapters.lora or adapters.ip_adapter else ""
        lines.append(f"model    {request.model} on {', '.join(devices_of(request))}, {dtype_of(request)}{uncounted}")
        own, estimates = _forecast_model(group, loader.geometry(request.model, request.offline))
        lines += own
        everything += estimates
    windows, evaluations = (sum(getattr(one, name) for one in everything) for name in ("windows", "evaluations"))
    lines.append(f"total    {_counted(len(jobs), 'image')}, {windows} windows, {evaluations} window evaluations")
    return [*lines, _time(jobs, folder)]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _time(jobs: Sequence[Job], folder: Path) -> str:
    """Return a line on how long a run takes, by the images of the same settings that the results log has."""
    seconds: dict[str, list[float]] = {}
    for record in existing.read(folder):
        if isinstance(record.get("seconds"), dict) and isinstance(record.get("settings"), dict):
            key = _alike(record["settings"], str(record.get("device")))
            seconds.setdefault(key, []).append(sum(map(float, record["seconds"].values())))
    times = []
    for job in jobs:
        like = _alike(job.picture(1, 1, hashes=False).settings(), ",".join(devices_of(job.recipe.request)))
        if like not in seconds:
            return "time     unknown: no image of these settings and this device is in the output's results.jsonl yet"
        times.append(statistics.median(seconds[like]))
    return f"time     about {sum(times):.0f} s, by the images of these settings in results.jsonl"


def _alike(settings: Mapping[str, Any], device: str) -> str:
    """Return a key that images share which take about the same time: of one model, device, canvas and sampling."""
    names = ("model", "control", "upscale", *(flag.key for kind in CONFIGS.values() for flag in flags(kind).values()))
    return json.dumps([device, {name: settings.get(name) for name in names}], sort_keys=True, default=str)


def _forecast_model(jobs: Iterable[Job], geometry: Geometry) -> tuple[list[str], list[_Estimate]]:
    describe = cache(lambda work, recipe: _forecast_one(work, geometry, recipe))
    lines: list[str] = []
    estimates: list[_Estimate] = []
    for job in jobs:
        notes: list[str] = []
        works = prepare.check(job, geometry, notes.append)
        lines.append(f"{' + '.join(map(str, job.inputs)) or 'text only'} -> {job.output}")
        lines += [f"  fit      {note}" for note in notes]
        lines += ["  rough, all of the canvas squeezed:"] if works[0].drawn.rough else []
        described = [describe(work, _over(job.recipe, work.drawn)) for work in reversed(works)]  # raises as was asked
        for before, own in zip((None, *works), reversed(described), strict=False):
            if before is not None:
                lines.append(f"  {'stretched' if before.drawn.rough else 'upscaled'}, and drawn over:")
            lines += own.lines
            estimates.append(own)
    return lines, estimates


def _over(recipe: Recipe, drawn: Pass) -> Recipe:
    """Returns what a pass has in common with the whole: one over another picture starts from it."""
    own = dataclasses.replace(recipe, sampling=drawn.sampling, sync=drawn.sync)
    return own if drawn.over is None else dataclasses.replace(own, img2img=drawn.over, init_image=BEFORE)


def _forecast_one(work: Work, geometry: Geometry, recipe: Recipe) -> _Estimate:
    layout, sampling = work.layout, recipe.sampling
    skipped = recipe.img2img.skipped(sampling.steps) if recipe.init_image is not None else 0
    sync = recipe.sync.later(0 if work.drawn.anew else skipped)
    n, others = len(layout), len(work.moving)
    memory, count = _forecast_memory(
        work, recipe, skipped, bool(others and sync.perceptual), bool(others and sync.active)
    )
    views, moving = work.count(range(n)), work.count(work.moving)
    steps = range(count) if others else ()
    synced, restyled = sum(sync.due(i) for i in steps), sum(sync.adain_due(i) for i in steps)
    halves = [1 + sampling.guided(i, count) for i in range(count)]
    evaluations = sum(half * (views + moving * sync.further_looks(i)) for i, half in enumerate(halves))
    backward = sum(half * moving * sync.due(i) for i, half in enumerate(halves)) if sync.gradient == "full" else 0
    h, w = geometry.window_px
    shared = len(devices_of(recipe.request))
    lines = [
        f"  canvas   {layout.width * geometry.cell}x{layout.height * geometry.cell} px, "
        f"{layout.width}x{layout.height} cells" + (f", {layout.kind}" if layout.kind else ""),
        f"  windows  {n} of {w}x{h} px, stride {layout.stride * geometry.cell} px, {recipe.windows.batch} in a call"
        + (f" of each of {shared} devices" if shared > 1 else "")
        + (f"; {views} views, one for every region that a window touches" if recipe.regions else ""),
        f"  steps    {count}, {restyled} of them with the anchor's statistics, {synced} synced"
        + (f" ({sync.objective}, gradient {sync.gradient})" if synced else ""),
        f"  network  {evaluations} window evaluations, {backward} of them with a backward pass, {others * synced} "
        "pictures through the objective",
        memory,
    ]
    return _Estimate(lines=tuple(lines), windows=n, evaluations=evaluations)


def _forecast_memory(work: Work, recipe: Recipe, skipped: int, synced: bool, moved: bool) -> tuple[str, int]:
    """Return a line, and how many steps the scheduler takes.

    Raises:
        ConfigError: the scheduler cannot make the steps, or not continue where sync moves the canvas.
    """
    steps = recipe.sampling.steps - skipped
    request = recipe.request
    objective = _objective(recipe) if synced else None
    with memory_estimate.fake():
        try:
            pipe = loader.blank(
                request.model,
                request.controls,
                request.controlnets,
                dtype_of(request),
                request.offline,
                request.adapters,
            )
        except ModelError:
            return UNKNOWN, steps
        family = families.wrap(pipe, request.controls)
        try:
            add_tiny_vae(family, request.model, request.adapters, request.offline, blank=True)
        except ModelError:
            return UNKNOWN, steps
        found = memory_estimate.rehearse(
            family,
            work.layout,
            recipe.sampling,
            recipe.windows,
            recipe.sync if synced else None,
            objective,
            work.views,
        ).offloaded(request.offload)
    solver = solver_of(family, recipe.sampling, torch.Generator(), skipped)
    steps = len(solver.levels)  # Heun and KDPM2 look twice at a step
    if moved:
        solver.require_moves()
    lasting = (
        f"weights {found.weights / GB:.2f}, embeddings {found.embeddings / GB:.2f}, canvas {found.canvas / GB:.2f}"
    )
    sampling, others = f"sampling {found.sampling / GB:.2f}", f"decoding {found.decoding / GB:.2f}"
    if found.sync:
        others = f"sync {found.sync / GB:.2f}, {others}"
    others += f"; each further device {found.further / GB:.2f}" if devices_of(request)[1:] else ""
    if device_of(request) != CPU:
        return f"  memory   about {found.peak / GB:.2f} GB: {lasting}, and the largest of {sampling}, {others}", steps
    line = (
        f"  memory   about {found.grown / GB:.2f} GB: {lasting}, {sampling}, and the largest of {others}; "
        f"this program itself holds {memory_estimate.resident() / GB:.2f}"
    )
    return line, steps


def _objective(recipe: Recipe) -> AbstractObjective | None:
    """Returns the objective of sync, if it is on this machine already."""
    try:
        return objectives.load(recipe.sync.objective, offline=True)
    except ModelError:
        return None
