"""The views of a picture that a detector of limited sight looks at: the whole, and overlapping square slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.wide.slices import slices

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]

OVERLAP = 0.5  # of a slice's side: what is at most so wide and high lies whole in some slice
LONG = 1.5  # a slice is worth looking at where the picture is more than so many times as long
BORDER = 0.02  # of a slice's side: what comes so close to its border may go on beyond it


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a detector makes of a picture before its network sees it."""

    side: int  # px of the square that it works at
    letterboxes: bool  # it fits the longer side into the square, so that a long picture shrinks; else the shorter one


class View(NamedTuple):
    """A rectangle of a picture, px."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, picture: Bytes) -> Bytes:
        """Returns what the view shows of a picture (H, W, 3)."""
        return np.ascontiguousarray(picture[self.top : self.top + self.height, self.left : self.left + self.width])

    def cuts(self, box: Floats, height: int, width: int) -> bool:
        """Returns whether what lies in `box` may go on beyond the view: it touches a border inside the picture.

        Args:
            box: (4,) left, top, right, bottom, px of the picture.
            height: Of the picture, px.
            width: Likewise.
        """
        margin = BORDER * min(self.height, self.width)
        right, bottom = self.left + self.width, self.top + self.height
        return bool(
            (self.left > 0 and box[0] < self.left + margin)
            or (self.top > 0 and box[1] < self.top + margin)
            or (right < width and box[2] > right - margin)
            or (bottom < height and box[3] > bottom - margin)
        )


def views(height: int, width: int, sight: Sight) -> list[View]:
    """Returns where to look for things of every size: the whole picture, then square slices that half overlap.

    A detector that letterboxes long pictures gets slices of the shorter side. On a picture that is several times as
    high and wide as what a detector works at, there are slices of that side too, of its double, and so on, for what
    is small.

    Args:
        height: Of the picture, px.
        width: Likewise.
        sight: The detector's.
    """
    shorter, longer = min(height, width), max(height, width)
    sides = [shorter] if sight.letterboxes and longer > LONG * shorter else []
    side = sight.side
    while LONG * side < shorter:
        sides.append(side)
        side *= 2
    found = [View(0, 0, height, width)]
    for side in sides:
        overlap = int(OVERLAP * side)
        lefts, tops = slices(width, side, overlap), slices(height, side, overlap)
        found += [View(top, left, side, side) for top in tops for left in lefts]
    return found
