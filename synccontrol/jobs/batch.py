"""Many guides: which pictures are to be made, and making them one after the other."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from synccontrol.canvas import sphere
from synccontrol.canvas.layout import AbstractLayout
from synccontrol.canvas.windows import lay_out
from synccontrol.config import EQUIRECTANGULAR, FITS, Geometry, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, InputError, ModelError, OutputError, SyncControlError
from synccontrol.files import fitting, images, metadata, poses
from synccontrol.montage import Montage
from synccontrol.result import Step
from synccontrol.sampling.sync import anchor_index

LARGEST_ENLARGEMENT = 8  # a guide enlarged further has nothing left to follow
ROW_KEYS = {"image": str, "prompt": str, "negative_prompt": str, "seed": int}

Detector = Callable[[Image.Image], Image.Image]
Note = Callable[[str], object]


def silent(text: str) -> None:
    """Notes nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to make."""

    guide: Path | None
    prompt: str
    negative_prompt: str
    seed: int
    output: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all pictures of a run have in common."""

    control_maps: tuple[Path, ...]  # ready-made; empty: the detectors make them from the guide
    detectors: Sequence[tuple[str, Detector]]  # control type and detector
    width: int | None  # px
    height: int | None  # px
    fit: str  # how a guide or control map of another aspect comes onto the canvas, one of `FITS`
    outside: Sequence[fitting.Colour | None]  # what each map shows beyond its guide; None: its border goes on
    sampling: SamplingConfig
    windows: WindowConfig
    sync: SyncConfig
    settings: Mapping[str, Any]  # what else is written into the picture
    save_control_maps: bool

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; known: {', '.join(FITS)}")


def plan(guide: Path | None, prompt: str, negative_prompt: str, seed: int, output: Path) -> list[Job]:
    """Returns one job per guide: of a picture, a folder (searched through), or a JSONL manifest.

    Args:
        guide: the picture, folder or manifest; None for one picture without guide.
        prompt: for all guides whose manifest row names none.
        negative_prompt: likewise.
        seed: likewise; every picture has its own generator, so it does not matter what else is in the folder.
        output: a folder; or, for a single picture, also a file name that ends in .png.

    Raises:
        InputError: there is no such guide, the folder holds no pictures, or a manifest row is wrong.
        ConfigError: a single file is named as the output of many pictures, or another format than PNG.
    """
    common: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
    if guide is None or (guide.is_file() and guide.suffix != ".jsonl") or not guide.exists():
        return [Job(guide=guide, output=_single_output(guide, output), **common)]
    if output.suffix:
        raise ConfigError(f"{guide} may give many pictures, so --output must be a folder, not {output}")
    if guide.is_dir():
        files = sorted(path for path in guide.rglob("*") if path.suffix.lower() in images.SUFFIXES)
        if not files:
            raise InputError(f"{guide} holds no pictures ({', '.join(images.SUFFIXES)})")
        return [Job(guide=file, output=target, **common) for file, target in _targets(files, guide, output)]
    rows = list(_rows(guide))
    files = [guide.parent / row["image"] for row in rows]
    targets = _targets(files, guide.parent, output)
    return [
        Job(guide=file, output=target, **{**common, **{key: row[key] for key in common if key in row}})
        for row, (file, target) in zip(rows, targets, strict=True)
    ]


def _single_output(guide: Path | None, output: Path) -> Path:
    if output.suffix and not output.is_dir():
        if output.suffix.lower() != ".png":
            raise ConfigError(f"pictures are written as PNG; name the output {output.with_suffix('.png')}")
        return output
    return output / f"{guide.stem if guide else 'montage'}.png"


def _targets(files: Sequence[Path], root: Path, output: Path) -> list[tuple[Path, Path]]:
    """Returns each file with its output: the same tree; a.jpg gives a.png, or a.jpg.png beside another a.png."""
    targets: dict[Path, Path] = {}
    for file in sorted(files, key=lambda file: file.suffix.lower() != ".png"):
        inside = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        target = output / inside.with_suffix(".png")
        if target in targets.values():
            target = output / inside.parent / f"{inside.name}.png"
        if target in targets.values():
            raise InputError(f"{file} is listed twice, so that its pictures would overwrite each other; list it once")
        targets[file] = target
    return [(file, targets[file]) for file in files]


def _rows(manifest: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest} cannot be read as text ({error}); write one JSON object per line") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{manifest} is empty; write one JSON object per line")
    for number, line in numbered:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{manifest} line {number} is not JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get("image"), str):
            raise InputError(f'{manifest} line {number} needs "image", the path of a guide')
        for key, value in row.items():
            if key not in ROW_KEYS or not isinstance(value, ROW_KEYS[key]) or isinstance(value, bool):
                known = ", ".join(f"{name} ({kind.__name__})" for name, kind in ROW_KEYS.items())
                raise InputError(f"{manifest} line {number}: {key!r} is not one of {known}")
        yield row


def check_writable(job: Job, overwrite: bool) -> None:
    """Raises `OutputError` when a job's output cannot be written, or exists and may not be overwritten."""
    if job.output.exists() and not overwrite:
        raise OutputError(f"{job.output} exists; name another --output, or allow --overwrite")
    parent = job.output.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{job.output} cannot be written: {parent} is no folder one can write to; choose another")


def _sources(job: Job, recipe: Recipe) -> dict[str, Image.Image]:
    """Returns the pictures that a job follows, by what to call them: the ready-made control maps, or else the guide."""
    if recipe.control_maps:
        return {f"control map {path}": _open_map(path) for path in recipe.control_maps}
    return {"guide": images.open_image(job.guide)} if job.guide is not None else {}


def _open_map(path: Path) -> Image.Image:
    return poses.open_map(path) if path.suffix.lower() == poses.SUFFIX else images.open_image(path)


def canvas_size(guide: Image.Image | None, recipe: Recipe, geometry: Geometry) -> tuple[int, int]:
    """Returns height and width, px: as asked; else the guide's aspect, its shorter side the model's native one.

    Raises:
        ConfigError: there is neither guide nor size.
        InputError: the guide is so small that nothing is left to follow once it is enlarged.
    """
    height, width = recipe.height, recipe.width
    native_h, native_w = geometry.window_px
    if guide is None and width is None and height is None:
        raise ConfigError("without a guide the picture needs --width in pixels, and --height if not the native one")
    if recipe.windows.projection == EQUIRECTANGULAR:
        height, width = sphere.size(height, width, geometry)
    if guide is None:
        return native_h if height is None else height, native_w if width is None else width
    aspect = guide.width / guide.height
    if height is None and width is None:
        height = native_h if aspect >= native_w / native_h else round(native_w / aspect)
    if width is None:
        assert height is not None
        width = round(height * aspect)
        if recipe.windows.loop:  # whole cells, or the ring would not close
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


def _fittings(
    sources: Mapping[str, Image.Image], recipe: Recipe, height: int, width: int, note: Note
) -> list[fitting.Fitting]:
    """Returns how each picture comes onto a canvas of height x width px; changes of aspect are noted."""
    found = [
        fitting.plan(image, height, width, what, recipe.fit, recipe.windows.closed) for what, image in sources.items()
    ]
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
    height, width = canvas_size(next(iter(sources.values()), None), recipe, geometry)
    _fittings(sources, recipe, height, width, note)
    layout = lay_out(height, width, geometry, recipe.windows)
    anchor_index(recipe.sync.anchor, layout)
    return layout


def _maps(
    pictures: list[Image.Image], fittings: list[fitting.Fitting], recipe: Recipe, geometry: Geometry
) -> list[Image.Image]:
    """Returns the control maps on the canvas, of the ready-made ones or of the guide."""
    maps = [fit.show(picture) for fit, picture in zip(fittings, pictures, strict=True)]
    boxes = [fit.box for fit in fittings]  # of what pose maps are drawn from
    if not recipe.control_maps:
        maps = pictures = [detect(guide) for guide in maps for _, detect in recipe.detectors]
        fittings, boxes = fittings * len(maps), [(0, 0, *map_.size) for map_ in maps]  # there is one guide
    return [
        poses.on_canvas(picture, box, fit, geometry.window_px[0], recipe.windows.closed) or fit.pad(map_, beyond)
        for picture, box, fit, map_, beyond in zip(pictures, boxes, fittings, maps, recipe.outside, strict=True)
    ]


def make(
    montage: Montage,
    job: Job,
    recipe: Recipe,
    on_step: Callable[[Step], object] | None = None,
    note: Note = silent,
) -> None:
    """Makes one picture and writes it, with its control maps if wanted; `note` as for `check`.

    Raises:
        SyncControlError: whatever is wrong with this guide or its settings.
    """
    geometry = montage.denoiser.geometry
    sources = _sources(job, recipe)
    height, width = canvas_size(next(iter(sources.values()), None), recipe, geometry)
    lay_out(height, width, geometry, recipe.windows)  # what cannot be drawn needs no detector
    fittings = _fittings(sources, recipe, height, width, note)
    maps = _maps(list(sources.values()), fittings, recipe, geometry)
    try:
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
            on_step=on_step,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "the device is out of memory; try a smaller --window-batch, --sync-gradient x0, or --dtype float16"
        ) from error
    settings = {**result.config, **recipe.settings, "guide": str(job.guide) if job.guide else None}
    metadata.save_png(result.image, job.output, settings)
    if recipe.save_control_maps:
        names = [name for name, _ in recipe.detectors] or recipe.settings["control"]  # ready-made: no detectors
        for name, control_map in zip(names, maps, strict=True):
            metadata.save_png(control_map, job.output.with_suffix(f".{name}.png"), settings)
            poses.save(control_map, job.output.with_suffix(f".{name}.json"))


def run(
    jobs: Iterable[Job],
    make_one: Callable[[Job], None],
    report: Callable[[Job, SyncControlError], None],
) -> int:
    """Returns how many jobs failed; each failure is reported, and the rest go on."""
    failed = 0
    for job in jobs:
        try:
            make_one(job)
        except SyncControlError as error:
            report(job, error)
            failed += 1
    return failed
