"""The montages of a folder, what their own settings say, and their native-size crops."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import preprocess
from synccontrol.config import EQUIRECTANGULAR, Geometry
from synccontrol.errors import InputError, ModelError
from synccontrol.evaluate.measurement import Settings
from synccontrol.files import images, metadata
from synccontrol.models import hub

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
        return hub.geometry(model, offline=True)
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
