"""A job's files, read: its canvas, its control maps, and what each stage of it predicts."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image

from synccontrol import preprocess
from synccontrol.batch.job import Job, Recipe, anchored
from synccontrol.batch.model_request import detector_names, outside
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import lay_out
from synccontrol.errors import InputError
from synccontrol.io import images, masks, poses
from synccontrol.pipeline import inputs
from synccontrol.pipeline.denoise import window_shares
from synccontrol.pipeline.inputs import Canvas
from synccontrol.pipeline.stages import Pass, passes
from synccontrol.sampling.anchors import of_canvas
from synccontrol.spec.image_spec import INIT_IMAGE, MASK
from synccontrol.spec.settings import MIDDLE, Geometry

Note = Callable[[str], object]
Detect = Callable[[Recipe, str, str | None], preprocess.Detector]  # by control and name


def silent(text: str) -> None:
    """Notes nothing."""


def prepare_canvas(job: Job, geometry: Geometry, note: Note = silent) -> Canvas:
    """Return the canvas of a job, its files read. `note` is called with a line for every image whose aspect changes.

    Raises:
        SyncControlError: a file cannot be read, or an image of that size or stride cannot be generated.
    """
    sources, names = _open_sources(job)
    recipe = job.recipe
    start = {role: images.open_image(path) for role, path in recipe.shown.items() if role in (INIT_IMAGE, MASK)}
    if start:
        size = inputs.outpainted_size(start[INIT_IMAGE], job.height, job.width, recipe.img2img)
    else:
        guide = next(iter(sources.values()), None)
        size = inputs.canvas_size(guide, job.height, job.width, recipe.windows, geometry)
    canvas = inputs.prepare_canvas(recipe, size, geometry, sources=sources, names=names, start=start)
    place = next(iter(sources), None)
    if sources and not start and job.width is None and job.height is None:
        guide, size = sources[place], (canvas.width, canvas.height)
        if guide.size != size:
            note(
                f"the {names[place]} is {guide.width}x{guide.height} and the image {size[0]}x{size[1]}, by the model's "
                "native size; --width and --height choose another"
            )
    for text in canvas.notes:
        note(text)
    return canvas


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What there is to predict of a job."""

    layout: AbstractLayout
    views: tuple[int, ...]  # of each window: how many regions it touches, or 1; 0 where it is kept as it is
    moving: frozenset[int]  # the windows that follow others
    drawn: Pass  # what it is the work of

    def count(self, windows: Iterable[int]) -> int:
        """Returns how often the networks look to predict some windows once."""
        return sum(self.views[window] for window in windows)


def check(job: Job, geometry: Geometry, note: Note = silent) -> list[Work]:
    """Return what each stage of a job predicts, after all checks that need no model.

    Raises:
        SyncControlError: as `prepare_canvas`; there is no such anchor window; or regions contradict each other.
    """
    canvas = prepare_canvas(job, geometry, note)
    recipe, spec = job.recipe, job.picture(canvas.height, canvas.width)
    region_map = None if recipe.region_map is None else images.open_image(recipe.region_map)
    anchor, works = anchored(recipe).anchor, []
    regions = tuple(region.relative(canvas.height, canvas.width) for region in spec.regions)
    elsewhere = MIDDLE if isinstance(anchor, int) else anchor  # an index counts the windows of the asked-for canvas
    for stage in passes(recipe, (canvas.height, canvas.width), geometry, bool(canvas.start)):
        height, width = stage.size
        layout = lay_out(height, width, geometry, recipe.windows)
        sized = dataclasses.replace(spec, height=height, width=width, regions=regions)
        shares = window_shares(sized, region_map, layout, geometry.cell)
        still = of_canvas(elsewhere if stage.rough else anchor, layout, shares).still
        views = (1,) * len(layout) if shares is None else tuple((shares.amax(dim=(2, 3)) > 0).sum(dim=1).tolist())
        works.append(Work(layout=layout, views=views, moving=frozenset(range(len(layout))) - still, drawn=stage))
        anchor = anchor if stage.rough else elsewhere
    generated = _generated_windows(canvas, recipe, geometry)
    first = dataclasses.replace(works[0], views=tuple(map(int.__mul__, works[0].views, generated)))
    return [first, *works[1:]]


def _generated_windows(canvas: Canvas, recipe: Recipe, geometry: Geometry) -> list[int]:
    """Return 1 for every window in which something is generated, and 0 for those that stay as they are."""
    layout, start = canvas.layout, canvas.start.get(INIT_IMAGE)
    if start is None:
        return [1] * len(layout)
    side, closed = min(geometry.window_px), recipe.windows.closed
    _, new = masks.prepare_init_image(start, canvas.start.get(MASK), recipe.img2img, side, closed)
    if new is None:
        return [1] * len(layout)
    cells = torch.from_numpy(masks.latent_mask(new, geometry.cell, (layout.height, layout.width)))
    return [int(window.any()) for window in layout.look(cells[None, None], 1, range(len(layout)))]


def _open_sources(job: Job) -> tuple[dict[int | None, Image.Image], dict[int | None, str]]:
    """Returns the pictures that a job follows, and what to call each."""
    controls = job.recipe.request.followed
    if job.control_maps and len(job.control_maps) != len(controls):
        raise InputError(f"{len(job.control_maps)} control maps for {len(controls)} controls; give one for each")
    sources: dict[int | None, Image.Image] = {}
    names: dict[int | None, str] = {None: "guide"}
    if job.guide is not None:
        sources[None] = images.open_image(job.guide)
    for place, path in enumerate(job.control_maps):
        if path is not None:
            sources[place] = _open_map(path, controls[place])
            names[place] = f"control map {path}"
    return sources, names


def _open_map(path: Path, control: str) -> Image.Image:
    if path.suffix.lower() != poses.SUFFIX:
        return images.open_image(path)
    if control != "pose":
        raise InputError(f"{path} is no control map for {control}: only pose is read from JSON; give a picture")
    return poses.open_map(path)


def control_maps(job: Job, canvas: Canvas, geometry: Geometry, detect: Detect) -> list[Image.Image]:
    """Returns the control maps on the canvas, one per control that follows one: ready-made, or those of the guide.

    Raises:
        SyncControlError: a detector is not to be had, or a map cannot be made.
    """
    recipe, controls = job.recipe, job.recipe.request.followed
    if not canvas.sources:
        return []
    shown = {place: canvas.fittings[place].show(picture) for place, picture in canvas.sources.items()}
    names = dict(zip(job.detected, detector_names(recipe.request, job.detected), strict=True))
    beyond = outside(recipe.request)
    maps = []
    for place, control in enumerate(controls):
        if place in names:
            map_ = picture = detect(recipe, control, names[place])(shown[None])
            fit, box = canvas.fittings[None], (0.0, 0.0, float(map_.width), float(map_.height))
        else:
            map_, picture = shown[place], canvas.sources[place]
            fit, box = canvas.fittings[place], canvas.fittings[place].box
        people = poses.on_canvas(picture, box, fit, geometry.window_px[0], recipe.windows.closed)
        maps.append(people or fit.pad(map_, beyond[place]))
    return maps


def remarks(maps: Sequence[Image.Image], recipe: Recipe) -> list[str]:
    """Returns a line for every control map that holds nothing, or cannot be right."""
    known = preprocess.names()
    return [
        f"{control}: {remark}"
        for control, control_map in zip(recipe.request.followed, maps, strict=False)  # drawn from text, it has none
        if control in known
        for remark in preprocess.remarks(control, control_map)
    ]
