"""How large a picture is: as asked, or by its guide."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from synccontrol import preprocess
from synccontrol.batch.job import Job, Recipe, anchored
from synccontrol.batch.model_request import detector_names, outside
from synccontrol.canvas import sphere
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import lay_out
from synccontrol.errors import ConfigError, InputError
from synccontrol.io import images, masks, poses, resize
from synccontrol.pipeline.denoise import window_shares
from synccontrol.pipeline.stages import Pass, passes
from synccontrol.sampling.anchors import anchor_index, of_regions
from synccontrol.spec.image_spec import INIT_IMAGE, MASK
from synccontrol.spec.settings import EQUIRECTANGULAR, MIDDLE, Geometry

LARGEST_ENLARGEMENT = 8  # a guide enlarged further has nothing left to follow


def canvas_size(guide: Image.Image | None, job: Job, geometry: Geometry) -> tuple[int, int]:
    """Returns height and width, px: as asked; else the guide's aspect, its shorter side the model's native one.

    Raises:
        ConfigError: there is neither guide nor size.
        InputError: the guide is so small that nothing is left to follow once it is enlarged.
    """
    height, width, windows = job.height, job.width, job.recipe.windows
    native_h, native_w = geometry.window_px
    if guide is None and width is None and height is None:
        raise ConfigError("without a guide the picture needs --width in pixels, and --height if not the native one")
    if windows.projection == EQUIRECTANGULAR:
        height, width = sphere.size(height, width, geometry)
    if guide is None:
        return native_h if height is None else height, native_w if width is None else width
    aspect = guide.width / guide.height
    if height is None and width is None:
        height = native_h if aspect >= native_w / native_h else round(native_w / aspect)
    if width is None:
        assert height is not None
        width = round(height * aspect)
        if windows.loop:  # whole cells, or the ring would not close
            width = max(round(width / geometry.cell) * geometry.cell, native_w)
    height = round(width / aspect) if height is None else height
    smallest = min(guide.size)
    if min(height, width) > LARGEST_ENLARGEMENT * smallest:
        needed = -(-min(height, width) // LARGEST_ENLARGEMENT)
        raise InputError(
            f"the guide is only {guide.width}x{guide.height}: to fill {width}x{height} it would be enlarged more than "
            f"{LARGEST_ENLARGEMENT} times; its shorter side needs at least {needed} pixels"
        )
    return height, width


def size_of(start: Image.Image, job: Job) -> tuple[int, int]:
    """Returns height and width, px, of a picture that starts from another: as asked, else the other's, grown.

    Raises:
        ConfigError: it would grow by more than the width that is asked for.
    """
    grown = sum(job.recipe.img2img.margins)
    if job.width is not None and job.width <= grown:
        raise ConfigError(f"width {job.width} leaves nothing of the picture that grows by {grown} px; use more")
    height, kept = job.height, None if job.width is None else job.width - grown
    if height is None:
        height = start.height if kept is None else round(kept * start.height / start.width)
    if kept is None:
        kept = round(height * start.width / start.height)
    return height, kept + grown


Note = Callable[[str], object]
Detect = Callable[[Recipe, str, str | None], preprocess.Detector]  # by control and name


def silent(text: str) -> None:
    """Notes nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laid:
    """A job whose files are read and whose windows lie: what it follows, and how that comes onto the canvas."""

    height: int  # px
    width: int  # px
    layout: AbstractLayout
    sources: Mapping[int | None, Image.Image]  # ready-made control maps by their control's place; None: the guide
    fittings: Mapping[int | None, resize.Fitting]  # of each source
    started: Mapping[str, Image.Image]  # what is started from, and its mask, by their role


def lay(job: Job, geometry: Geometry, note: Note = silent) -> Laid:
    """Returns a job with its files read. `note` is called with a line for every picture whose aspect changes.

    Raises:
        SyncControlError: a file cannot be read, or a size or stride cannot be drawn.
    """
    sources, names = _sources(job)
    recipe = job.recipe
    start = {role: images.open_image(path) for role, path in recipe.shown.items() if role in (INIT_IMAGE, MASK)}
    if not start:
        height, width = canvas_size(next(iter(sources.values()), None), job, geometry)
    else:
        height, width = size_of(start[INIT_IMAGE], job)
    layout = lay_out(height, width, geometry, recipe.windows)
    fittings = {
        place: resize.plan(image, height, width, names[place], recipe.fit, recipe.windows.closed)
        for place, image in sources.items()
    }
    notes = [fit.note for fit in fittings.values()]
    for role, picture in start.items():
        recipe.img2img.skipped(recipe.sampling.steps)  # leaves some
        kept = width - sum(recipe.img2img.margins)
        fit = resize.plan(picture, height, kept, role.replace("_", " "), recipe.fit, recipe.windows.closed)
        notes.append(fit.note)
        start[role] = fit.pad(fit.show(picture), None)
    for text in notes:
        if text:
            note(text)
    return Laid(height=height, width=width, layout=layout, sources=sources, fittings=fittings, started=start)


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
    """Returns what there is to predict in each pass of a job, all that can be checked without a model having been.

    Raises:
        SyncControlError: as `lay`, an anchor that is not there, or regions that make no sense.
    """
    laid = lay(job, geometry, note)
    recipe, picture = job.recipe, job.picture(laid.height, laid.width)
    region_map = None if recipe.region_map is None else images.open_image(recipe.region_map)
    anchor, found = anchored(recipe).anchor, []
    regions = tuple(region.relative(laid.height, laid.width) for region in picture.regions)
    elsewhere = MIDDLE if isinstance(anchor, int) else anchor  # the windows of another canvas are others
    for drawn in passes(recipe, (laid.height, laid.width), geometry, bool(laid.started)):
        height, width = drawn.size
        layout = lay_out(height, width, geometry, recipe.windows)
        sized = dataclasses.replace(picture, height=height, width=width, regions=regions)
        shares = window_shares(sized, region_map, layout, geometry.cell)
        found.append(_work(layout, shares, elsewhere if drawn.rough else anchor, drawn))
        anchor = anchor if drawn.rough else elsewhere
    free = _free(laid, recipe, geometry)
    first = dataclasses.replace(found[0], views=tuple(map(int.__mul__, found[0].views, free)))
    return [first, *found[1:]]


def _free(laid: Laid, recipe: Recipe, geometry: Geometry) -> list[int]:
    """Returns 1 for every window of which something is drawn, and 0 for those that are kept wholly."""
    layout, start = laid.layout, laid.started.get(INIT_IMAGE)
    if start is None:
        return [1] * len(layout)
    side, closed = min(geometry.window_px), recipe.windows.closed
    _, new = masks.placed(start, laid.started.get(MASK), recipe.img2img, side, closed)
    if new is None:
        return [1] * len(layout)
    cells = torch.from_numpy(masks.cells(new, geometry.cell, (layout.height, layout.width)))
    seen = layout.look(cells[None, None], 1, range(len(layout)))
    return [int(window.any()) for window in seen]


def _work(layout: AbstractLayout, shares: Tensor | None, anchor: "int | str | Image.Image", drawn: Pass) -> Work:
    n = len(layout)
    if shares is None:
        leading = anchor_index(anchor, layout)
        still, views = frozenset(() if leading is None else (leading,)), [1] * n
    else:
        still = of_regions(anchor, layout, shares).still
        views = (shares.amax(dim=(2, 3)) > 0).sum(dim=1).tolist()
    return Work(layout=layout, views=tuple(views), moving=frozenset(range(n)) - still, drawn=drawn)


def _sources(job: Job) -> tuple[dict[int | None, Image.Image], dict[int | None, str]]:
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


def control_maps(job: Job, laid: Laid, geometry: Geometry, detect: Detect) -> list[Image.Image]:
    """Returns the control maps on the canvas, one per control that follows one: ready-made, or those of the guide.

    Raises:
        SyncControlError: a detector is not to be had, or a map cannot be made.
    """
    recipe, controls = job.recipe, job.recipe.request.followed
    if not laid.sources:
        return []
    shown = {place: laid.fittings[place].show(picture) for place, picture in laid.sources.items()}
    names = dict(zip(job.detected, detector_names(recipe.request, job.detected), strict=True))
    beyond = outside(recipe.request)
    maps = []
    for place, control in enumerate(controls):
        if place in names:
            map_ = picture = detect(recipe, control, names[place])(shown[None])
            fit, box = laid.fittings[None], (0.0, 0.0, float(map_.width), float(map_.height))
        else:
            map_, picture = shown[place], laid.sources[place]
            fit, box = laid.fittings[place], laid.fittings[place].box
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
