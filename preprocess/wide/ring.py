"""Rings: guides whose left and right edges continue each other, and detectors that see them so."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocess.control import Detector

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

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


def closed_estimate(estimate: Callable[[Bytes], Floats]) -> Callable[[Bytes], Floats]:
    """Returns an estimator whose values (H, W) are a ring, as its picture (H, W, 3) is.

    Args:
        estimate: From a picture (H, W, 3) to values (h, w) of any size.
    """

    def estimate_ring(picture: Bytes) -> Floats:
        margin = min(picture.shape[:2])
        seen = wrapped(picture, margin)
        found = estimate(seen)
        return unwrapped(cv2.resize(found, seen.shape[1::-1], interpolation=cv2.INTER_LINEAR), margin)

    return estimate_ring


def wrapped(ring: Bytes, margin: int) -> Bytes:
    """Returns a ring (H, W, ...) with `margin` columns of its other end on both sides."""
    return np.pad(ring, ((0, 0), (margin, margin), *((0, 0),) * (ring.ndim - 2)), mode="wrap")


def unwrapped(found: Bytes | Floats, margin: int) -> Floats:
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
