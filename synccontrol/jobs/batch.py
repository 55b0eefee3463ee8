"""Making the pictures of a run, one after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

import preprocess
from synccontrol.canvas.layout import AbstractLayout
from synccontrol.canvas.windows import lay_out
from synccontrol.config import Geometry
from synccontrol.errors import InputError, MemoryLimitError, ModelError
from synccontrol.files import fitting, images, metadata, outputs, poses, provenance
from synccontrol.jobs.plan import Job
from synccontrol.jobs.recipe import Recipe, picture_of
from synccontrol.jobs.sizes import canvas_size
from synccontrol.montage import Montage
from synccontrol.result import Step
from synccontrol.sampling.sync import anchor_index

Note = Callable[[str], object]


def silent(text: str) -> None:
    """Notes nothing."""


def _sources(job: Job, recipe: Recipe) -> list[tuple[str, Image.Image]]:
    """Returns the pictures that a job follows, and what to call each: ready-made control maps, or else the guide."""
    if not job.control_maps:
        return [("guide", images.open_image(job.guide))] if job.guide is not None else []
    controls = recipe.request.controls
    if len(job.control_maps) != len(controls):
        raise InputError(f"{len(job.control_maps)} control maps for {len(controls)} controls; give one for each")
    return [
        (f"control map {path}", _open_map(path, control))
        for path, control in zip(job.control_maps, controls, strict=True)
    ]


def _first(sources: Sequence[tuple[str, Image.Image]]) -> Image.Image | None:
    return sources[0][1] if sources else None


def _open_map(path: Path, control: str) -> Image.Image:
    if path.suffix.lower() != poses.SUFFIX:
        return images.open_image(path)
    if control != "pose":
        raise InputError(f"{path} is no control map for {control}: only pose is read from JSON; give a picture")
    return poses.open_map(path)


def _fittings(
    sources: Sequence[tuple[str, Image.Image]], recipe: Recipe, height: int, width: int, note: Note
) -> list[fitting.Fitting]:
    """Returns how each picture comes onto a canvas of height x width px; changes of aspect are noted."""
    found = [fitting.plan(image, height, width, what, recipe.fit, recipe.windows.closed) for what, image in sources]
    for one in found:
        if one.note:
            note(one.note)
    return found


def check(job: Job, recipe: Recipe, geometry: Geometry, note: Note = silent) -> AbstractLayout:
    """Returns where a job's windows lie, having looked at its guide and sizes, before any model is loaded.

    `note` is called with a line for every picture whose aspect changes.

    Raises:
        SyncControlError: the guide cannot be read, or a size or stride cannot be drawn.
    """
    sources = _sources(job, recipe)
    height, width = canvas_size(_first(sources), job, recipe.windows, geometry)
    _fittings(sources, recipe, height, width, note)
    layout = lay_out(height, width, geometry, recipe.windows)
    anchor_index(recipe.sync.anchor, layout)
    return layout


def _maps(
    job: Job, pictures: list[Image.Image], fittings: list[fitting.Fitting], recipe: Recipe, geometry: Geometry
) -> list[Image.Image]:
    """Returns the control maps on the canvas, of the ready-made ones or of the guide."""
    maps = [fit.show(picture) for fit, picture in zip(fittings, pictures, strict=True)]
    boxes = [fit.box for fit in fittings]  # of what pose maps are drawn from
    if not job.control_maps:
        maps = pictures = [detect(guide) for guide in maps for detect in recipe.detectors]
        fittings, boxes = fittings * len(maps), [(0, 0, *map_.size) for map_ in maps]  # there is one guide
    return [
        poses.on_canvas(picture, box, fit, geometry.window_px[0], recipe.windows.closed) or fit.pad(map_, beyond)
        for picture, box, fit, map_, beyond in zip(pictures, boxes, fittings, maps, recipe.outside, strict=True)
    ]


def _remarks(maps: Sequence[Image.Image], recipe: Recipe) -> list[str]:
    """Returns a line for every control map that holds nothing, or cannot be right."""
    known = preprocess.names()
    return [
        f"{control}: {remark}"
        for control, control_map in zip(recipe.request.controls, maps, strict=False)  # drawn from text, it has none
        if control in known
        for remark in preprocess.remarks(control, control_map)
    ]


def make(
    montage: Montage,
    job: Job,
    recipe: Recipe,
    on_step: Callable[[Step], object] | None = None,
    note: Note = silent,
) -> None:
    """Makes one picture and writes it, with its control maps if wanted.

    Args:
        montage: the model.
        job: the picture.
        recipe: what it has in common with others.
        on_step: called after every denoising step.
        note: called with a line for whatever the user should know about this picture.

    Raises:
        ModelError: something is not to be had that every picture needs.
        SyncControlError: whatever is wrong with this guide or its settings.
    """
    geometry = montage.denoiser.geometry
    if not recipe.overwrite:
        outputs.check_free(job.outputs)
    sources = _sources(job, recipe)
    height, width = canvas_size(_first(sources), job, recipe.windows, geometry)
    lay_out(height, width, geometry, recipe.windows)  # what cannot be drawn needs no detector
    fittings = _fittings(sources, recipe, height, width, note)
    picture = picture_of(job, recipe, height, width)
    with _memory():
        maps = _maps(job, [image for _, image in sources], fittings, recipe, geometry)
        for remark in _remarks(maps, recipe):
            note(remark)
        result = montage(
            job.prompt,
            maps or None,
            height=height,
            width=width,
            negative_prompt=job.negative_prompt,
            seed=job.seed,
            sampling=recipe.sampling,
            windows=recipe.windows,
            sync=recipe.sync,
            ip_image=images.open_image(recipe.ip_image) if recipe.ip_image is not None else None,
            on_step=on_step,
        )
    for text in result.notes:
        note(text)
    machine = provenance.made_with(str(montage.denoiser.device), str(montage.denoiser.dtype).removeprefix("torch."))
    _write(result.image, maps, job, {**picture.settings(), **machine}, recipe.overwrite)


def _write(
    image: Image.Image, maps: Sequence[Image.Image], job: Job, settings: Mapping[str, object], overwrite: bool
) -> None:
    metadata.save_png(image, job.output, settings, overwrite)
    if job.map_outputs:
        for path, control_map in zip(job.map_outputs, maps, strict=True):
            metadata.save_png(control_map, path, settings, overwrite)
            poses.save(control_map, path.with_suffix(poses.SUFFIX), overwrite)


@contextmanager
def _memory() -> Iterator[None]:
    """Says in one line what helps when a device's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryLimitError(
            "the device is out of memory; try --sync-gradient x0, a larger --sync-shrink, --dtype float16, --device cpu"
        ) from error


def run(
    jobs: Iterable[Job],
    make_one: Callable[[Job], None],
    report: Callable[[Job, Exception], None],
) -> int:
    """Returns how many jobs failed; each failure is reported, whatever it is, and the rest go on.

    Raises:
        ModelError: what is missing, every picture needs.
    """
    failed = 0
    for job in jobs:
        try:
            make_one(job)
        except Exception as error:
            if isinstance(error, ModelError) and not isinstance(error, MemoryLimitError):
                raise
            report(job, error)
            failed += 1
    return failed
