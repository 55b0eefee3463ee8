"""The montages of a folder, what their own settings say, and their native-size crops."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synccontrol.config import Geometry
from synccontrol.errors import InputError, ModelError
from synccontrol.evaluate.measurement import Settings
from synccontrol.files import images, metadata
from synccontrol.models import hub

DEFAULT_WINDOW = 256  # px, where nothing says otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Montage:
    """One picture to be scored."""

    name: str  # path relative to the folder
    path: Path
    settings: Mapping[str, Any]  # that it was made with, as `metadata.read_settings`; empty where it does not say

    def read(self) -> Tensor:
        """Returns the picture (1, 3, H, W) in 0..1."""
        return images.to_tensor(images.open_image(self.path))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """Montages of one size."""

    folder: Path
    montages: tuple[Montage, ...]
    height: int  # px
    width: int
    window: int  # px, side of a crop

    @property
    def boxes(self) -> list[tuple[int, int]]:
        """Returns the (top, left) pixel of every crop, as the published evaluation lays them (`get_views_crop`)."""
        return grid(self.height, self.width, self.window)

    def crops(self, montage: Montage) -> Tensor:
        """Returns the non-overlapping crops (n, 3, window, window) of a montage in 0..1, row by row."""
        return cut(montage.read(), self.window)

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


def cut(picture: Tensor, window: int) -> Tensor:
    """Returns the windows of `grid` out of a picture (1, 3, H, W), as (n, 3, window, window)."""
    boxes = grid(picture.shape[-2], picture.shape[-1], window)
    return torch.cat([picture[..., top : top + window, left : left + window] for top, left in boxes])


def open_gallery(folder: Path, settings: Settings) -> Gallery:
    """Returns the montages of a folder and of the folders in it, in the order of their names.

    Control maps that lie beside the montage they belong to (`a.depth.png` beside `a.png`) are left out.

    Raises:
        InputError: there is no such folder, it holds no pictures, or pictures of several sizes or windows; or a
            picture is too narrow for two windows and coherence is wanted.
    """
    montages = tuple(_montage(path, folder) for path in _montage_files(folder))
    sizes = {montage.name: images.open_image(montage.path).size for montage in montages}
    first, (width, height) = next(iter(sizes.items()))
    for name, (w, h) in sizes.items():
        if (w, h) != (width, height):
            raise InputError(
                f"{first} is {width}x{height} and {name} {w}x{h}; figures of several sizes cannot be compared, so "
                "score one folder for each size"
            )
    window = settings.window or _native_window(montages)
    gallery = Gallery(folder=folder, montages=montages, height=height, width=width, window=window)
    least = 2 if "coherence" in settings.groups else 1
    if len(gallery.boxes) < least:
        raise InputError(
            f"{first} is {width}x{height}, which holds {len(gallery.boxes)} of the {least} windows of {window} px that "
            "are needed; give wider montages or a smaller window"
        )
    return gallery


def picture_files(folder: Path) -> list[Path]:
    """Returns the pictures in a folder and in the folders in it, sorted. Raises `InputError` where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a folder of pictures ({', '.join(images.SUFFIXES)})")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no pictures ({', '.join(images.SUFFIXES)})")
    return files


def _montage_files(folder: Path) -> list[Path]:
    files = picture_files(folder)
    bases = {path.with_suffix("") for path in files}
    return [path for path in files if path.with_suffix("").with_suffix("") not in bases or "." not in path.stem]


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
