"""The windows that other windows follow: an anchor for every region, and the leading window for style."""

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

SHARE_TOLERANCE = 1e-3  # windows whose shares of a region differ by less are equal


def anchor_index(anchor: "int | str | Image.Image", layout: AbstractLayout) -> int | None:
    """Return the index of the anchor window, or None for an anchor image.

    Raises:
        ConfigError: there is no window of that index.
    """
    n = len(layout)
    if anchor == MIDDLE:
        return layout.middle
    if not isinstance(anchor, int):
        return None
    if not -n <= anchor < n:
        raise ConfigError(f"anchor is {anchor}, but there are {n} windows; use 0 to {n - 1}, middle, or an image")
    return anchor % n


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchors:
    """The windows that the others follow. Without regions the canvas is one region, whose anchor leads."""

    shares: Float[Tensor, "n r h w"]  # region shares of each window's cells; they sum to 1
    windows: tuple[int, ...]  # the anchor of each region; empty for an anchor image without regions
    leading: int | None  # the window whose style leads; None: an anchor image leads

    @property
    def still(self) -> frozenset[int]:
        """Return the windows that follow no other."""
        return frozenset() if self.leading is None else frozenset([self.leading])

    def region_of(self, window: int) -> int:
        """Return the region with the largest share of a window."""
        return int(self.shares[window].mean(dim=(1, 2)).argmax()) if self.shares.shape[1] > 1 else 0


def canvas_anchors(
    anchor: "int | str | Image.Image", layout: AbstractLayout, shares: Float[Tensor, "n r h w"] | None
) -> Anchors:
    """Return the anchors of a canvas.

    Args:
        anchor: the anchor of the settings.
        layout: the windows.
        shares: region shares of each window's cells; None: there are no regions.

    Raises:
        ConfigError: there is no window of that index.
    """
    if shares is not None:
        return region_anchors(anchor, layout, shares)
    return single_region_anchors(anchor_index(anchor, layout), len(layout), layout.window)


def single_region_anchors(anchor: int | None, n: int, window: tuple[int, int]) -> Anchors:
    """Return the anchors of n windows without regions.

    The window size is in cells; anchor None means an anchor image.
    """
    shares = torch.ones(n, 1, *window, dtype=torch.float64)
    return Anchors(shares=shares, windows=() if anchor is None else (anchor,), leading=anchor)


def region_anchors(
    anchor: "int | str | Image.Image", layout: AbstractLayout, shares: Float[Tensor, "n r h w"]
) -> Anchors:
    """Return the anchors of windows with regions.

    The anchor of a region is the window with the largest share of it; of several, the one in their middle. The region
    of the `anchor` setting leads, and an explicitly set window becomes that region's anchor. The default (the middle
    window) only selects the leading region.

    Raises:
        ConfigError: there is no window of that index.
    """
    index = anchor_index(anchor, layout)
    mean_shares = shares.mean(dim=(2, 3))
    windows = []
    for share in mean_shares.unbind(1):
        (indices,) = (share >= share.max() - SHARE_TOLERANCE).nonzero(as_tuple=True)
        candidates = indices.tolist()
        windows.append(layout.middle if layout.middle in candidates else candidates[len(candidates) // 2])
    if index is None:
        return Anchors(shares=shares, windows=tuple(windows), leading=None)
    region = int(mean_shares[index].argmax())
    if anchor != MIDDLE:
        windows[region] = index
    return Anchors(shares=shares, windows=tuple(windows), leading=windows[region])
