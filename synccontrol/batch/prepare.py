"""Read a job's files: its canvas, its control maps, and the work of its stages."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image

from synccontrol import preprocess
from synccontrol.batch.job import Job, Recipe, sync_with_anchor
from synccontrol.batch.model_request import detector_names, outside
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import lay_out
from synccontrol.errors import InputError
from synccontrol.io import images, masks, poses
from synccontrol.pipeline import inputs
from synccontrol.pipeline.denoise import window_shares
from synccontrol.pipeline.inputs import Canvas
from synccontrol.pipeline.stages import Stage, plan_stages
from synccontrol.sampling.anchors import canvas_anchors
from synccontrol.spec.image_spec import INIT_IMAGE, MASK
from synccontrol.spec.settings import MIDDLE, Geometry

Note = Callable[[str], object]
Detect = Callable[[Recipe, str, str | None], preprocess.Detector]  # by control and name


def silent(text: str) -> None:
    """Ignore a note."""


def prepare_canvas(job: Job, geometry: Geometry, note: Note = silent) -> Canvas:
    """Read a job's files and return its canvas.

    Args:
        job: the job.
        geometry: the model's native sizes.
        note: called with a line for every image whose aspect changes.

    Raises:
        SyncControlError: a file cannot be read, or the model cannot generate an image of that size or stride.
    """
    sources, names = _open_sources(job)
    recipe = job.recipe
    start = {role: images.open_image(path) for role, path in recipe.images.items() if role in (INIT_IMAGE, MASK)}
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
class StageWork:
    """The windows that a stage of a job predicts."""

    layout: AbstractLayout
    views: tuple[int, ...]  # predictions of each window: 1, or one per region; 0 where the init image stays
    moving: frozenset[int]  # windows that follow an anchor
    stage: Stage

    def count(self, windows: Iterable[int]) -> int:
        """Return the number of network evaluations that predict some windows once."""
        return sum(self.views[window] for window in windows)


def check(job: Job, geometry: Geometry, note: Note = silent) -> list[StageWork]:
    """Return the work of each stage of a job, after all checks that need no model.

    Raises:
        SyncControlError: as `prepare_canvas`; the anchor window does not exist; or regions contradict each other.
    """
    canvas = prepare_canvas(job, geometry, note)
    recipe, spec = job.recipe, job.spec(canvas.height, canvas.width)
    region_map = None if recipe.region_map is None else images.open_image(recipe.region_map)
    anchor, works = sync_with_anchor(recipe).anchor, []
    regions = tuple(region.relative(canvas.height, canvas.width) for region in spec.regions)
    other_anchor = MIDDLE if isinstance(anchor, int) else anchor  # an index means the requested canvas alone
    for stage in plan_stages(recipe, (canvas.height, canvas.width), geometry, bool(canvas.start)):
        height, width = stage.size
        layout = lay_out(height, width, geometry, recipe.windows)
        stage_spec = dataclasses.replace(spec, height=height, width=width, regions=regions)
        shares = window_shares(stage_spec, region_map, layout, geometry.cell)
        still_windows = canvas_anchors(other_anchor if stage.is_draft else anchor, layout, shares).still
        views = (1,) * len(layout) if shares is None else tuple((shares.amax(dim=(2, 3)) > 0).sum(dim=1).tolist())
        works.append(
            StageWork(layout=layout, views=views, moving=frozenset(range(len(layout))) - still_windows, stage=stage)
        )
        anchor = anchor if stage.is_draft else other_anchor
    window_flags = _generated_windows(canvas, recipe, geometry)
    first_work = dataclasses.replace(works[0], views=tuple(map(int.__mul__, works[0].views, window_flags)))
    return [first_work, *works[1:]]


def _generated_windows(canvas: Canvas, recipe: Recipe, geometry: Geometry) -> list[int]:
    """Return 1 for every window that is generated, at least in part, and 0 for unchanged windows."""
    layout, start = canvas.layout, canvas.start.get(INIT_IMAGE)
    if start is None:
        return [1] * len(layout)
    side, closed = min(geometry.window_px), recipe.windows.closed
    _, alpha = masks.prepare_init_image(start, canvas.start.get(MASK), recipe.img2img, side, closed)
    if alpha is None:
        return [1] * len(layout)
    cells = torch.from_numpy(masks.latent_mask(alpha, geometry.cell, (layout.height, layout.width)))
    return [int(window.any()) for window in layout.crop_image(cells[None, None], 1, range(len(layout)))]


def _open_sources(job: Job) -> tuple[dict[int | None, Image.Image], dict[int | None, str]]:
    """Return the guide and the control maps of a job, and their names in errors."""
    controls = job.recipe.request.mapped_controls
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
        raise InputError(f"{path} is no control map for {control}: only pose is read from JSON; give an image")
    return poses.open_map(path)


def control_maps(job: Job, canvas: Canvas, geometry: Geometry, detect: Detect) -> list[Image.Image]:
    """Return the control maps on the canvas, one per control with a map: from files, or detected in the guide.

    Raises:
        SyncControlError: a detector is not available, or fails.
    """
    recipe, controls = job.recipe, job.recipe.request.mapped_controls
    if not canvas.sources:
        return []
    fitted = {place: canvas.fittings[place].apply(image) for place, image in canvas.sources.items()}
    names = dict(zip(job.detected, detector_names(recipe.request, job.detected), strict=True))
    padding_colours = outside(recipe.request)
    maps = []
    for place, control in enumerate(controls):
        if place in names:
            map_ = image = detect(recipe, control, names[place])(fitted[None])
            fit, box = canvas.fittings[None], (0.0, 0.0, float(map_.width), float(map_.height))
        else:
            map_, image = fitted[place], canvas.sources[place]
            fit, box = canvas.fittings[place], canvas.fittings[place].box
        pose_map = poses.redraw_on_canvas(image, box, fit, geometry.window_px[0], recipe.windows.closed)
        maps.append(pose_map or fit.pad(map_, padding_colours[place]))
    return maps


def remarks(maps: Sequence[Image.Image], recipe: Recipe) -> list[str]:
    """Return a line for every control map that is empty or cannot be right."""
    types = preprocess.names()
    return [
        f"{control}: {remark}"
        for control, control_map in zip(recipe.request.mapped_controls, maps, strict=False)  # text only: no maps
        if control in types
        for remark in preprocess.remarks(control, control_map)
    ]
