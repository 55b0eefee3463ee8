"""The montages of a folder, their recorded settings, and their native-size crops."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from synccontrol import preprocess
from synccontrol.errors import ConfigError, InputError, ModelError, translated
from synccontrol.evaluate.measurement import Progress, Settings
from synccontrol.io import images, metadata, resize
from synccontrol.models import loader
from synccontrol.preprocess.controls import pose
from synccontrol.spec.settings import EQUIRECTANGULAR, Geometry

DEFAULT_WINDOW = 256  # px
MAX_NAMES = 5  # names in one message
COPY_SUFFIX = r"-\d+$"  # of a map that was generated again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Montage:
    """One image to score."""

    name: str  # path relative to the folder
    path: Path
    settings: Mapping[str, Any]  # recorded settings, as `metadata.read_settings`; empty if there are none

    def read(self) -> Image.Image:
        """Return the image as RGB at full size. Raise `InputError` if it cannot be read."""
        return images.open_image(self.path, max_pixels=images.LARGEST)

    def is_ring(self, settings: Settings) -> bool:
        """Return whether the right edge continues at the left."""
        recorded = self.settings
        return settings.loop or bool(recorded.get("loop")) or recorded.get("projection") == EQUIRECTANGULAR


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """The windows of `grid` of an image, cropped on demand."""

    image: Image.Image  # RGB
    window: int  # px

    def __len__(self) -> int:
        return len(self._boxes)

    def take(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return crops `start` to `stop` (n, 3, window, window) in 0..1, row by row; all by default."""
        crops = [
            self.image.crop((left, top, left + self.window, top + self.window)) for top, left in self._boxes[start:stop]
        ]
        return torch.cat([images.to_tensor(crop) for crop in crops])

    @cached_property
    def _boxes(self) -> list[tuple[int, int]]:
        return grid(self.image.height, self.image.width, self.window)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """Montages of one size."""

    folder: Path
    montages: tuple[Montage, ...]
    height: int  # px
    width: int
    window: int  # px, side of a crop
    left_out: tuple[tuple[str, str], ...] = ()  # excluded images of the folder, and the reason

    @property
    def boxes(self) -> list[tuple[int, int]]:
        """Return the (top, left) pixel of every crop, as in the published evaluation (`get_views_crop`)."""
        return grid(self.height, self.width, self.window)

    def crops(self, montage: Montage) -> Crops:
        """Return the non-overlapping crops of a montage."""
        return Crops(image=montage.read(), window=self.window)

    @cached_property
    def optimised(self) -> frozenset[str]:
        """Return the names of the objectives that sync optimised in any of the montages."""
        return frozenset(
            str(montage.settings.get("objective"))
            for montage in self.montages
            if montage.settings.get("sync_weight", 0) and montage.settings.get("sync_steps", 0)
        )


def grid(height: int, width: int, window: int) -> list[tuple[int, int]]:
    """Return the (top, left) of adjacent windows from the top left of an image.

    Remainders at the right and bottom belong to no window (SyncDiffusion, eval_code/eval_intra_lpips.py).
    """
    return [
        (top, left) for top in range(0, height - window + 1, window) for left in range(0, width - window + 1, window)
    ]


def open_gallery(folder: Path, settings: Settings) -> Gallery:
    """Return the montages of a folder and its subfolders, sorted by name.

    Excluded, with the reason, are control maps next to their montage (`a.depth.png` next to `a.png`), unreadable
    images, and images of another size than most.

    Raises:
        InputError: the folder does not exist, holds no readable images, or images of several windows; or the images are
            too narrow for two windows and coherence is measured.
    """
    candidates, left_out = _split_maps([_montage(path, folder) for path in image_files(folder)])
    sizes: dict[str, tuple[int, int]] = {}
    for montage in candidates:
        try:
            sizes[montage.name] = montage.read().size
        except InputError as error:
            left_out.append((montage.name, str(error)))
    if not sizes:
        raise InputError(f"{folder} holds no image that can be read: {left_out[-1][1]}")
    ((width, height), _), *others = Counter(sizes.values()).most_common()
    for (w, h), count in others:
        names = _join_names([name for name, size in sizes.items() if size == (w, h)])
        reason = f"{w}x{h} px, most are {width}x{height}: score each size in a folder of its own"
        left_out.append((f"{count} of another size", f"{reason} ({names})"))
    montages = tuple(montage for montage in candidates if sizes.get(montage.name) == (width, height))
    window = settings.window or _native_window(montages)
    gallery = Gallery(
        folder=folder, montages=montages, height=height, width=width, window=window, left_out=tuple(left_out)
    )
    minimum = 2 if "coherence" in settings.groups else 1
    if len(gallery.boxes) < minimum:
        raise InputError(
            f"{montages[0].name} is {width}x{height}, which holds {len(gallery.boxes)} of the {minimum} windows of "
            f"{window} px that are needed; give wider montages or a smaller window"
        )
    return gallery


def _split_maps(montages: Sequence[Montage]) -> tuple[list[Montage], list[tuple[str, str]]]:
    """Return the images that are no control maps of others, and notes on the excluded maps."""
    by_stem = {montage.path.with_suffix(""): montage for montage in montages}
    pictures: list[Montage] = []
    maps: list[Montage] = []
    for montage in montages:
        stem, _, kind = montage.path.stem.rpartition(".")
        base = by_stem.get(montage.path.with_name(stem)) if stem else None
        kind = re.sub(COPY_SUFFIX, "", kind)
        is_map = base is not None and kind in {*preprocess.names(), *base.settings.get("control", ())}
        (maps if is_map else pictures).append(montage)
    names = _join_names([montage.name for montage in maps])
    notes = [(f"{len(maps)} control maps", f"they lie next to the images that follow them ({names})")] if maps else []
    return pictures, notes


def _join_names(names: Sequence[str]) -> str:
    """Join names into text; of many, only the first ones."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, sorted. Raise `InputError` if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a folder of images ({', '.join(images.SUFFIXES)})")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no images ({', '.join(images.SUFFIXES)})")
    return files


def _montage(path: Path, folder: Path) -> Montage:
    return Montage(name=path.relative_to(folder).as_posix(), path=path, settings=_own_settings(path))


def _own_settings(path: Path) -> Mapping[str, Any]:
    try:
        return metadata.read_settings(path)
    except InputError:
        return {}


@cache
def geometry(model: str) -> Geometry | None:
    """Return the native sizes of a model that is on this machine, without network; None otherwise."""
    try:
        return loader.geometry(model, offline=True)
    except ModelError:
        return None


def _native_window(montages: Sequence[Montage]) -> int:
    name_by_window: dict[int, str] = {}
    for montage in montages:
        model = montage.settings.get("model")
        sizes = geometry(model) if model else None
        if model and not sizes:
            raise InputError(
                f"{montage.name} was made with {model}, whose window is not known here; say its pixels with --window"
            )
        name_by_window.setdefault(min(sizes.window_px) if sizes else DEFAULT_WINDOW, montage.name)
    if len(name_by_window) > 1:
        choices = ", ".join(f"{name} {window} px" for window, name in name_by_window.items())
        raise InputError(f"the montages were made with different windows ({choices}); say one with --window")
    return next(iter(name_by_window))


def control_montages(gallery: Gallery, settings: Settings) -> dict[str, list[Montage]]:
    """Return the control types to compare, each with the montages that followed it.

    Raises:
        ConfigError: a control type is unknown, or neither the settings nor the montages name one.
    """
    if settings.controls:
        by_control = {control: list(gallery.montages) for control in settings.controls}
    else:
        by_control = {}
        for montage in gallery.montages:
            for control in montage.settings.get("control", ()):
                by_control.setdefault(control, []).append(montage)
    unknown = sorted(set(by_control) - set(preprocess.names()))
    if unknown or not by_control:
        problem = f"there is no control {', '.join(unknown)}" if unknown else "the montages do not say their control"
        raise ConfigError(f"{problem}; name it with --control ({', '.join(preprocess.names())})")
    return by_control


def guide_files(gallery: Gallery, settings: Settings) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """Return each montage's guide, by control type and montage name, and the montages without a guide.

    A guide has the name of the montage, or of the guide in the montage's recorded settings. Ready maps may have the
    control type before their suffix (`valley.depth.png`).

    Raises:
        InputError: no montage has a guide.
        ConfigError: as `control_montages`.
    """
    assert settings.guides is not None
    folder = settings.guides
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in image_files(folder)}
    guides: dict[tuple[str, str], Path] = {}
    without_guide: dict[str, None] = {}
    for control, montages in control_montages(gallery, settings).items():
        for montage in montages:
            stems = [Path(montage.name).with_suffix("").as_posix(), Path(montage.settings.get("guide") or "").stem]
            keys = [key for stem in stems for key in ([f"{stem}.{control}"] if settings.ready_maps else []) + [stem]]
            key = next((key for key in keys if key in files), None)
            if key is None:
                without_guide[montage.name] = None
            else:
                guides[control, montage.name] = files[key]
    if not guides:
        name = next(iter(without_guide))
        raise InputError(
            f"there is no guide for {name} in {folder}, nor for another montage; put one there as "
            f"{Path(name).with_suffix('.png')}, or leave the guides out"
        )
    return guides, list(without_guide)


def detector_of(control: str, montages: Sequence[Montage], settings: Settings) -> str | None:
    """Return the detector of the maps: the settings' one, else that of the montages' maps, else None, the default."""
    if settings.detectors:
        return dict(zip(settings.controls, settings.detectors, strict=True))[control]
    detectors = set()
    for montage in montages:
        settings_of = montage.settings
        detectors |= {
            name
            for kind, name in zip(settings_of.get("control", ()), settings_of.get("detector", ()), strict=False)
            if kind == control
        }
    if len(detectors) > 1:
        raise ConfigError(
            f"the montages' {control} maps were made by several detectors ({', '.join(sorted(detectors))}); name one "
            "with --detector"
        )
    return next(iter(detectors), None)


Array = npt.NDArray[np.float32]  # a map (H, W) in 0..255, or people (n, 18, 3): x px, y px, confidence
MapReader = Callable[[Image.Image], Array]


def load_map_reader(control: str, detector: str | None, settings: Settings, loop: bool = False) -> MapReader:
    """Return a function from an image to its map or people. With `loop` the image is a ring.

    Raises:
        ConfigError: the control type or detector is unknown.
        ModelError: its weights are not available.
    """
    with translated():
        detect = translated()(
            preprocess.load(control, detector, device=settings.device, offline=settings.offline, loop=loop)
        )
    if control == "pose":
        return lambda image: _people(detect(image))
    return lambda image: np.asarray(detect(image).convert("L"), np.float32)


def _people(pose_map: Image.Image) -> Array:
    pose_data = pose.poses_of(pose_map)
    assert pose_data is not None  # detectors return a map with its poses
    return pose_data.people


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """The maps of a montage, of its guide, and of another montage's guide (None if there is no other)."""

    measured: Array
    target: Array
    unrelated: Array | None


def _load_map_readers(control: str, montages: Sequence[Montage], settings: Settings) -> dict[bool, MapReader]:
    """Return the map readers of plain images and of rings, as needed."""
    detector = detector_of(control, montages, settings)
    kinds = {montage.is_ring(settings) for montage in montages}
    return {loop: load_map_reader(control, detector, settings, loop) for loop in kinds}


def read_pairs(
    control: str,
    montages: Sequence[Montage],
    files: Mapping[str, Path],  # guides by montage
    gallery: Gallery,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, Pair], list[tuple[str, str]]]:
    """Return the maps to compare by montage, and the unreadable ones with the reason.

    Of a padded guide, only the visible part counts. Rings and their guides are read as rings.

    Raises:
        ConfigError, ModelError: as `load_map_reader`.
    """
    readers = _load_map_readers(control, montages, settings)
    targets: dict[tuple[Path, bool], tuple[resize.Fitting, Array]] = {}
    keys: dict[str, tuple[Path, bool]] = {}
    unreadable = []
    for montage in montages:
        key = files[montage.name], montage.is_ring(settings)
        try:
            if key not in targets:
                progress(f"{control}: guide {key[0].name}")
                targets[key] = _guide(montage, key[0], readers[key[1]], gallery, settings)
            keys[montage.name] = key
        except InputError as error:
            unreadable.append((f"control of {montage.name}", str(error)))
    distinct, pairs = list(targets), {}
    for number, montage in enumerate([montage_ for montage_ in montages if montage_.name in keys], 1):
        progress(f"{control}: {montage.name} ({number} of {len(keys)})")
        own_key = keys[montage.name]
        next_key = distinct[(distinct.index(own_key) + 1) % len(distinct)]
        fit, map_ = targets[own_key]
        other_fit, other_map = targets[next_key]
        pairs[montage.name] = Pair(
            measured=readers[own_key[1]](montage.read().crop(fit.inside)),
            target=map_,
            unrelated=other_map if next_key != own_key and other_fit.inside == fit.inside else None,
        )
    return pairs, unreadable


def _guide(
    montage: Montage, path: Path, read: MapReader, gallery: Gallery, settings: Settings
) -> tuple[resize.Fitting, Array]:
    """Return the placement of a montage's guide and its map. Raise `InputError` if it cannot be read or placed."""
    guide = images.open_image(path)
    fit_mode = str(montage.settings.get("fit", resize.EXACT))
    fit = resize.plan(
        guide, gallery.height, gallery.width, f"guide {path.name}", fit_mode, loop=montage.is_ring(settings)
    )
    visible = fit.apply(guide)
    return fit, np.asarray(visible.convert("L"), np.float32) if settings.ready_maps else read(visible)
