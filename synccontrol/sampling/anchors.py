"""Which windows the others follow: an anchor for every region, and what leads the style of all."""

import dataclasses
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.canvas.base import AbstractLayout
from synccontrol.errors import ConfigError
from synccontrol.spec.settings import MIDDLE

if TYPE_CHECKING:
    from PIL import Image

ALIKE = 1e-3  # of a window: two lie as much in a region


def anchor_index(anchor: "int | str | Image.Image", layout: AbstractLayout) -> int | None:
    """Returns the index of the anchor window, or None for an anchor picture.

    Raises:
        ConfigError: there is no window of that index.
    """
    n = len(layout)
    if anchor == MIDDLE:
        return layout.middle
    if not isinstance(anchor, int):
        return None
    if not -n <= anchor < n:
        raise ConfigError(f"anchor is {anchor}, but there are {n} windows; use 0 to {n - 1}, middle, or a picture")
    return anchor % n


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchors:
    """Whom the windows follow. A plain picture is one region, whose anchor leads."""

    shares: Float[Tensor, "n r h w"]  # how much of each cell of each window belongs to each region; 1 in all
    windows: tuple[int, ...]  # the anchor of each region; none where a picture is followed and there are no regions
    leading: int | None  # the window whose style all regions take a part of; None: a picture's

    @property
    def still(self) -> frozenset[int]:
        """Returns the windows that follow none."""
        return frozenset() if self.leading is None else frozenset([self.leading])

    def region_of(self, window: int) -> int:
        """Returns the region that most of a window lies in."""
        return int(self.shares[window].mean(dim=(1, 2)).argmax()) if self.shares.shape[1] > 1 else 0


def of_canvas(
    chosen: "int | str | Image.Image", layout: AbstractLayout, shares: Float[Tensor, "n r h w"] | None
) -> Anchors:
    """Return the anchors of a canvas.

    Args:
        chosen: the anchor of the settings.
        layout: the windows.
        shares: how much of each cell of each window belongs to each region; None: there are no regions.

    Raises:
        ConfigError: there is no window of that index.
    """
    if shares is not None:
        return of_regions(chosen, layout, shares)
    return plain(anchor_index(chosen, layout), len(layout), layout.window)


def plain(anchor: int | None, n: int, window: tuple[int, int]) -> Anchors:
    """Returns whom n windows, of a height and width in cells, follow where there are no regions; None: a picture."""
    shares = torch.ones(n, 1, *window, dtype=torch.float64)
    return Anchors(shares=shares, windows=() if anchor is None else (anchor,), leading=anchor)


def of_regions(chosen: "int | str | Image.Image", layout: AbstractLayout, shares: Float[Tensor, "n r h w"]) -> Anchors:
    """Returns whom the windows of regions follow.

    The anchor of a region is the window that lies most in it; of several, the one in their middle. The region of the
    chosen anchor leads, and its anchor is that window: but for the window in the middle of the canvas, which nobody has
    chosen, it is a window that lies in its region as much as any.

    Raises:
        ConfigError: there is no window of that index.
    """
    index = anchor_index(chosen, layout)
    inside = shares.mean(dim=(2, 3))
    windows = []
    for share in inside.unbind(1):
        (most,) = (share >= share.max() - ALIKE).nonzero(as_tuple=True)
        best = most.tolist()
        windows.append(layout.middle if layout.middle in best else best[len(best) // 2])
    if index is None:
        return Anchors(shares=shares, windows=tuple(windows), leading=None)
    region = int(inside[index].argmax())
    if chosen != MIDDLE:
        windows[region] = index
    return Anchors(shares=shares, windows=tuple(windows), leading=windows[region])
