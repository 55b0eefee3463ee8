"""Where the overlapping slices of a long picture lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.preprocess.control import Detector


def slices(length: int, size: int, overlap: int, wrap: bool = False) -> list[int]:
    """Returns the starts of the fewest slices of `size` that cover `length`, spread evenly; one at 0 if it fits in one.

    Args:
        length: What is to be covered, px.
        size: Of a slice, px.
        overlap: How much neighbouring slices share at least, px, from 0 to `size - 1`.
        wrap: The slices go round a ring: the last overlaps the first, and a slice that runs over `length` goes on at 0.
    """
    if length <= size:
        return [0]
    step = size - overlap
    if wrap:
        count = math.ceil(length / step)
        return [round(length * i / count) for i in range(count)]
    count = 1 + math.ceil((length - size) / step)
    return [round((length - size) * i / (count - 1)) for i in range(count)]


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


FloatArray = npt.NDArray[np.float32]

BLEND = 0.25  # of the margin: on either side of the join the two detections pass into each other over so much


def closed(detect: Detector) -> Detector:
    """Returns a detector whose control map is a ring, as its guide is: the two edges of both continue each other.

    It shows `detect` the guide with as much of the other end on both sides as the guide is high, so that every pixel
    has its true neighbours. What stretches its values over all it sees is closed before it does, by `closed_estimate`.
    """

    def ring_map(guide: Image.Image) -> Image.Image:
        margin = min(guide.size)
        found = detect(Image.fromarray(wrapped(np.asarray(guide), margin)))
        return Image.fromarray(np.rint(unwrapped(np.asarray(found), margin)).astype(np.uint8))

    return ring_map


def closed_estimate(estimate: Callable[[Bytes], FloatArray]) -> Callable[[Bytes], FloatArray]:
    """Returns an estimator whose values (H, W) are a ring, as its picture (H, W, 3) is.

    Args:
        estimate: From a picture (H, W, 3) to values (h, w) of any size.
    """

    def estimate_ring(picture: Bytes) -> FloatArray:
        margin = min(picture.shape[:2])
        seen = wrapped(picture, margin)
        found = estimate(seen)
        return unwrapped(cv2.resize(found, seen.shape[1::-1], interpolation=cv2.INTER_LINEAR), margin)

    return estimate_ring


def wrapped(ring: Bytes, margin: int) -> Bytes:
    """Returns a ring (H, W, ...) with `margin` columns of its other end on both sides."""
    return np.pad(ring, ((0, 0), (margin, margin), *((0, 0),) * (ring.ndim - 2)), mode="wrap")


def unwrapped(found: Bytes | FloatArray, margin: int) -> FloatArray:
    """Returns the ring (H, W, ...) in what was found for a wrapped one, (H, W + 2 margin, ...).

    What lies around the join was found twice, once at either end. Where sight is limited both are the same; a detector
    that looks at everything at once may see them differently, so one passes into the other over half the margin.

    Args:
        found: Values of a wrapped ring's columns.
        margin: Columns that were added on either side, at most W.
    """
    width, blend = found.shape[1] - 2 * margin, round(BLEND * margin)
    ring = found[:, margin : margin + width].astype(np.float32)
    first, last = (found[:, at - blend : at + blend].astype(np.float32) for at in (margin, margin + width))
    share = ((np.arange(2 * blend, dtype=np.float32) + 0.5) / max(2 * blend, 1)).reshape(-1, *(1,) * (found.ndim - 2))
    join = last + share * (first - last)
    ring[:, width - blend :], ring[:, :blend] = join[:, :blend], join[:, blend:]
    return ring
