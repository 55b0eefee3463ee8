"""The montages of a folder, what their own settings say, and their native-size crops."""

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

DEFAULT_WINDOW = 256  # px, where nothing says otherwise
NAMED = 5  # pictures that are left out for the same reason and are named
NUMBER = r"-\d+$"  # of a map that was made again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Montage:
    """One picture to be scored."""

    name: str  # path relative to the folder
    path: Path
    settings: Mapping[str, Any]  # that it was made with, as `metadata.read_settings`; empty where it does not say

    def read(self) -> Image.Image:
        """Returns the picture as RGB, in all its pixels. Raises `InputError` if it cannot be read."""
        return images.open_image(self.path, kept=images.LARGEST)

    def is_ring(self, settings: Settings) -> bool:
        """Returns whether its right edge continues at its left."""
        own = self.settings
        return settings.loop or bool(own.get("loop")) or own.get("projection") == EQUIRECTANGULAR


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """The windows of `grid` out of a picture, made for those that are asked for."""

    picture: Image.Image  # RGB
    window: int  # px

    def __len__(self) -> int:
        return len(self._boxes)

    def take(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Returns some of them (n, 3, window, window) in 0..1, all by default, row by row."""
        cut = [
            self.picture.crop((left, top, left + self.window, top + self.window))
            for top, left in self._boxes[start:stop]
        ]
        return torch.cat([images.to_tensor(one) for one in cut])

    @cached_property
    def _boxes(self) -> list[tuple[int, int]]:
        return grid(self.picture.height, self.picture.width, self.window)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """Montages of one size."""

    folder: Path
    montages: tuple[Montage, ...]
    height: int  # px
    width: int
    window: int  # px, side of a crop
    left_out: tuple[tuple[str, str], ...] = ()  # pictures of the folder that are not among them, and why

    @property
    def boxes(self) -> list[tuple[int, int]]:
        """Returns the (top, left) pixel of every crop, as the published evaluation lays them (`get_views_crop`)."""
        return grid(self.height, self.width, self.window)

    def crops(self, montage: Montage) -> Crops:
        """Returns the non-overlapping crops of a montage."""
        return Crops(picture=montage.read(), window=self.window)

    @cached_property
    def optimised(self) -> frozenset[str]:
        """Returns the names of the objectives that sync optimised in some of the montages."""
        return frozenset(
            str(montage.settings.get("objective"))
            for montage in self.montages
            if montage.settings.get("sync_weight", 0) and montage.settings.get("sync_steps", 0)
        )


def grid(height: int, width: int, window: int) -> list[tuple[int, int]]:
    """Returns the (top, left) of the windows that lie side by side from the top left of a picture; what is left over
    at the right and at the bottom belongs to none (SyncDiffusion, eval_code/eval_intra_lpips.py)."""
    return [
        (top, left) for top in range(0, height - window + 1, window) for left in range(0, width - window + 1, window)
    ]


def open_gallery(folder: Path, settings: Settings) -> Gallery:
    """Returns the montages of a folder and of the folders in it, in the order of their names.

    Left out, with the reason, are control maps that lie beside the montage they belong to (`a.depth.png` beside
    `a.png`), pictures that cannot be read, and those of another size than most.

    Raises:
        InputError: there is no such folder, it holds no pictures that can be read, or pictures of several windows; or
            they are too narrow for two windows and coherence is wanted.
    """
    found, left_out = _without_maps([_montage(path, folder) for path in picture_files(folder)])
    sizes: dict[str, tuple[int, int]] = {}
    for montage in found:
        try:
            sizes[montage.name] = montage.read().size
        except InputError as error:
            left_out.append((montage.name, str(error)))
    if not sizes:
        raise InputError(f"{folder} holds no picture that can be read: {left_out[-1][1]}")
    ((width, height), _), *others = Counter(sizes.values()).most_common()
    for (w, h), count in others:
        names = _told([name for name, size in sizes.items() if size == (w, h)])
        why = f"{w}x{h} px, most are {width}x{height}: score each size in a folder of its own"
        left_out.append((f"{count} of another size", f"{why} ({names})"))
    montages = tuple(montage for montage in found if sizes.get(montage.name) == (width, height))
    window = settings.window or _native_window(montages)
    gallery = Gallery(
        folder=folder, montages=montages, height=height, width=width, window=window, left_out=tuple(left_out)
    )
    least = 2 if "coherence" in settings.groups else 1
    if len(gallery.boxes) < least:
        raise InputError(
            f"{montages[0].name} is {width}x{height}, which holds {len(gallery.boxes)} of the {least} windows of "
            f"{window} px that are needed; give wider montages or a smaller window"
        )
    return gallery


def _without_maps(montages: Sequence[Montage]) -> tuple[list[Montage], list[tuple[str, str]]]:
    """Returns the pictures that are no control maps of others, and what to say of those that are."""
    by_stem = {montage.path.with_suffix(""): montage for montage in montages}
    kept: list[Montage] = []
    maps: list[Montage] = []
    for montage in montages:
        stem, _, kind = montage.path.stem.rpartition(".")
        base = by_stem.get(montage.path.with_name(stem)) if stem else None
        kind = re.sub(NUMBER, "", kind)
        is_map = base is not None and kind in {*preprocess.names(), *base.settings.get("control", ())}
        (maps if is_map else kept).append(montage)
    names = _told([montage.name for montage in maps])
    told = [(f"{len(maps)} control maps", f"they lie beside the pictures that follow them ({names})")] if maps else []
    return kept, told


def _told(names: Sequence[str]) -> str:
    """Returns names in words, of many only the first."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def picture_files(folder: Path) -> list[Path]:
    """Returns the pictures in a folder and in the folders in it, sorted. Raises `InputError` where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a folder of pictures ({', '.join(images.SUFFIXES)})")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no pictures ({', '.join(images.SUFFIXES)})")
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
    """Returns the native sizes of a model that this machine knows, without the network; none where it does not."""
    try:
        return loader.geometry(model, offline=True)
    except ModelError:
        return None


def _native_window(montages: Sequence[Montage]) -> int:
    found: dict[int, str] = {}
    for montage in montages:
        model = montage.settings.get("model")
        known = geometry(model) if model else None
        if model and not known:
            raise InputError(
                f"{montage.name} was made with {model}, whose window is not known here; say its pixels with --window"
            )
        found.setdefault(min(known.window_px) if known else DEFAULT_WINDOW, montage.name)
    if len(found) > 1:
        told = ", ".join(f"{name} {window} px" for window, name in found.items())
        raise InputError(f"the montages were made with different windows ({told}); say one with --window")
    return next(iter(found))


def wanted_controls(gallery: Gallery, settings: Settings) -> dict[str, list[Montage]]:
    """Returns the control types to compare, each with the montages that followed it.

    Raises:
        ConfigError: a control type is not known, or neither the settings nor the montages name one.
    """
    if settings.controls:
        found = {control: list(gallery.montages) for control in settings.controls}
    else:
        found = {}
        for montage in gallery.montages:
            for control in montage.settings.get("control", ()):
                found.setdefault(control, []).append(montage)
    unknown = sorted(set(found) - set(preprocess.names()))
    if unknown or not found:
        what = f"there is no control {', '.join(unknown)}" if unknown else "the montages do not say their control"
        raise ConfigError(f"{what}; name it with --control ({', '.join(preprocess.names())})")
    return found


def guide_files(gallery: Gallery, settings: Settings) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """Returns the guide of each montage by control type and name of the montage, and the montages without one.

    It has the name of the montage, or of the guide that the montage's own settings name; ready maps may have the
    control type before their suffix (`valley.depth.png`).

    Raises:
        InputError: no montage has a guide.
        ConfigError: as `wanted_controls`.
    """
    assert settings.guides is not None
    folder = settings.guides
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in picture_files(folder)}
    found: dict[tuple[str, str], Path] = {}
    missing: dict[str, None] = {}
    for control, montages in wanted_controls(gallery, settings).items():
        for montage in montages:
            stems = [Path(montage.name).with_suffix("").as_posix(), Path(montage.settings.get("guide") or "").stem]
            keys = [key for stem in stems for key in ([f"{stem}.{control}"] if settings.ready_maps else []) + [stem]]
            key = next((key for key in keys if key in files), None)
            if key is None:
                missing[montage.name] = None
            else:
                found[control, montage.name] = files[key]
    if not found:
        name = next(iter(missing))
        raise InputError(
            f"there is no guide for {name} in {folder}, nor for another montage; put one there as "
            f"{Path(name).with_suffix('.png')}, or leave the guides out"
        )
    return found, list(missing)


def detector_of(control: str, montages: Sequence[Montage], settings: Settings) -> str | None:
    """Returns what reads the maps: as the settings say, else what made the montages' maps, else none, the default."""
    if settings.detectors:
        return dict(zip(settings.controls, settings.detectors, strict=True))[control]
    found = set()
    for montage in montages:
        own = montage.settings
        found |= {
            name for kind, name in zip(own.get("control", ()), own.get("detector", ()), strict=False) if kind == control
        }
    if len(found) > 1:
        raise ConfigError(
            f"the montages' {control} maps were made by several detectors ({', '.join(sorted(found))}); name one "
            "with --detector"
        )
    return next(iter(found), None)


Array = npt.NDArray[np.float32]  # a map (H, W) in 0..255, or people (n, 18, 3): x px, y px, confidence
Reader = Callable[[Image.Image], Array]


def reader(control: str, detector: str | None, settings: Settings, loop: bool = False) -> Reader:
    """Returns the function from a picture, or with `loop` from a ring, to its map or people.

    Raises:
        ConfigError: no such control type or detector.
        ModelError: its weights cannot be had.
    """
    with translated():
        detect = translated()(
            preprocess.load(control, detector, device=settings.device, offline=settings.offline, loop=loop)
        )
    if control == "pose":
        return lambda picture: _people(detect(picture))
    return lambda picture: np.asarray(detect(picture).convert("L"), np.float32)


def _people(pose_map: Image.Image) -> Array:
    found = pose.poses_of(pose_map)
    assert found is not None  # detectors draw what they find
    return found.people


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """What was read off a montage, off its guide, and off the guide of another montage (none if there is no other)."""

    found: Array
    wanted: Array
    other: Array | None


def _readers(control: str, montages: Sequence[Montage], settings: Settings) -> dict[bool, Reader]:
    """Returns what reads pictures, and what reads rings, where there are any of either."""
    detector = detector_of(control, montages, settings)
    kinds = {montage.is_ring(settings) for montage in montages}
    return {loop: reader(control, detector, settings, loop) for loop in kinds}


def read_pairs(
    control: str,
    montages: Sequence[Montage],
    files: Mapping[str, Path],  # guides by montage
    gallery: Gallery,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, Pair], list[tuple[str, str]]]:
    """Returns what there is to compare, by montage, and what cannot be read, with why.

    Of a guide that was padded, only the part that it shows. Rings, and their guides, are read as rings.

    Raises:
        ConfigError, ModelError: as `reader`.
    """
    readers = _readers(control, montages, settings)
    wanted: dict[tuple[Path, bool], tuple[resize.Fitting, Array]] = {}
    keys: dict[str, tuple[Path, bool]] = {}
    broken = []
    for montage in montages:
        key = files[montage.name], montage.is_ring(settings)
        try:
            if key not in wanted:
                progress(f"{control}: guide {key[0].name}")
                wanted[key] = _guide(montage, key[0], readers[key[1]], gallery, settings)
            keys[montage.name] = key
        except InputError as error:
            broken.append((f"control of {montage.name}", str(error)))
    distinct, pairs = list(wanted), {}
    for number, montage in enumerate([one for one in montages if one.name in keys], 1):
        progress(f"{control}: {montage.name} ({number} of {len(keys)})")
        own = keys[montage.name]
        following = distinct[(distinct.index(own) + 1) % len(distinct)]
        fit, map_ = wanted[own]
        other_fit, other_map = wanted[following]
        pairs[montage.name] = Pair(
            found=readers[own[1]](montage.read().crop(fit.inside)),
            wanted=map_,
            other=other_map if following != own and other_fit.inside == fit.inside else None,
        )
    return pairs, broken


def _guide(
    montage: Montage, path: Path, read: Reader, gallery: Gallery, settings: Settings
) -> tuple[resize.Fitting, Array]:
    """Returns how a montage's guide lies on it, and its map. Raises `InputError` if it cannot be read, or not lie."""
    guide = images.open_image(path)
    how = str(montage.settings.get("fit", resize.EXACT))
    fit = resize.plan(guide, gallery.height, gallery.width, f"guide {path.name}", how, loop=montage.is_ring(settings))
    shown = fit.show(guide)
    return fit, np.asarray(shown.convert("L"), np.float32) if settings.ready_maps else read(shown)
