"""Overlapping views of wide images, and detectors for 360-degree rings."""

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
    """Return the starts of the smallest number of evenly spaced slices that cover `length`.

    Args:
        length: the length to cover, px.
        size: size of a slice, px.
        overlap: the smallest overlap of neighbouring slices, px, from 0 to `size - 1`.
        wrap: the slices cover a ring: the last overlaps the first, and a slice that exceeds `length` continues at 0.
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

OVERLAP = 0.5  # of the side of a slice; any smaller object lies entirely in some slice
LONG = 1.5  # aspect ratio from which an image is divided into slices
BORDER = 0.02  # of the side of a slice; a box closer to the border may be cut


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How a detector resizes an image for its network."""

    side: int  # side of the network's square input, px
    letterboxes: bool  # fits the longer side into the square, which shrinks wide images; otherwise the shorter side


class View(NamedTuple):
    """A rectangle of an image, px."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: Bytes) -> Bytes:
        """Crop the view from an image (H, W, 3)."""
        return np.ascontiguousarray(image[self.top : self.top + self.height, self.left : self.left + self.width])

    def cuts(self, box: Floats, height: int, width: int) -> bool:
        """Return whether the view may cut an object: its box touches a border of the view inside the image.

        Args:
            box: (4,) left, top, right, bottom, px of the image.
            height: height of the image, px.
            width: width of the image, px.
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
    """Return the views that show objects of every size: the whole image, then square slices that overlap by half.

    A detector that letterboxes wide images gets slices of the shorter side. For small objects in a large image there
    are also slices of the side of the network's input, of twice that side, and so on.

    Args:
        height: height of the image, px.
        width: width of the image, px.
        sight: how the detector resizes images.
    """
    shorter, longer = min(height, width), max(height, width)
    sides = [shorter] if sight.letterboxes and longer > LONG * shorter else []
    side = sight.side
    while LONG * side < shorter:
        sides.append(side)
        side *= 2
    all_views = [View(0, 0, height, width)]
    for side in sides:
        overlap = int(OVERLAP * side)
        lefts, tops = slices(width, side, overlap), slices(height, side, overlap)
        all_views += [View(top, left, side, side) for top in tops for left in lefts]
    return all_views


FloatArray = npt.NDArray[np.float32]

BLEND = 0.25  # of the margin; half-width of the transition between the two detections at the seam


def close_ring(detect: Detector) -> Detector:
    """Return a detector for 360-degree rings, whose control map closes like its guide.

    The guide is padded on both sides with its other end, by its height, so that every pixel has its true neighbours.
    Detectors that normalise their values over the whole image use `close_ring_estimate` instead.
    """

    def ring_map(guide: Image.Image) -> Image.Image:
        margin = min(guide.size)
        padded_map = detect(Image.fromarray(wrap_ring(np.asarray(guide), margin)))
        return Image.fromarray(np.rint(unwrap_ring(np.asarray(padded_map), margin)).astype(np.uint8))

    return ring_map


def close_ring_estimate(estimate: Callable[[Bytes], FloatArray]) -> Callable[[Bytes], FloatArray]:
    """Return an estimator for 360-degree rings, whose values (H, W) close like its image (H, W, 3).

    Args:
        estimate: returns values (h, w) of any size for an image (H, W, 3).
    """

    def estimate_ring(image: Bytes) -> FloatArray:
        margin = min(image.shape[:2])
        padded = wrap_ring(image, margin)
        values = estimate(padded)
        return unwrap_ring(cv2.resize(values, padded.shape[1::-1], interpolation=cv2.INTER_LINEAR), margin)

    return estimate_ring


def wrap_ring(ring: Bytes, margin: int) -> Bytes:
    """Pad a ring (H, W, ...) with `margin` columns of its other end on both sides."""
    return np.pad(ring, ((0, 0), (margin, margin), *((0, 0),) * (ring.ndim - 2)), mode="wrap")


def unwrap_ring(values: Bytes | FloatArray, margin: int) -> FloatArray:
    """Return the ring (H, W, ...) from the values of a wrapped ring, (H, W + 2 margin, ...).

    The columns around the seam appear twice, once at either end. A detector with a small receptive field gives equal
    values for both. Other detectors may not, so the two are blended over half the margin.

    Args:
        values: values of the columns of a wrapped ring.
        margin: columns that were added on either side, at most W.
    """
    width, blend = values.shape[1] - 2 * margin, round(BLEND * margin)
    ring = values[:, margin : margin + width].astype(np.float32)
    first, last = (values[:, edge - blend : edge + blend].astype(np.float32) for edge in (margin, margin + width))
    weights = ((np.arange(2 * blend, dtype=np.float32) + 0.5) / max(2 * blend, 1)).reshape(
        -1, *(1,) * (values.ndim - 2)
    )
    seam = last + weights * (first - last)
    ring[:, width - blend :], ring[:, :blend] = seam[:, :blend], seam[:, blend:]
    return ring
