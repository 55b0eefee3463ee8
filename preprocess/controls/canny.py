"""Canny edges: white lines on black, by OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, Runtime, option
from synccontrol.preprocess.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class CannyOptions:
    """Thresholds of edge strength, which is the sum of the two Sobel gradients of a channel, 0..2040."""

    low: float = option(100.0, "an edge continues where it is at least this strong, 0..2040")
    high: float = option(200.0, "an edge starts where it is at least this strong, 0..2040")

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise OptionError(
                f"canny thresholds low {self.low:g}, high {self.high:g}: low must be at least 0 and at most high; "
                "100 and 200 suit most images"
            )


def edges(guide: Image.Image, options: CannyOptions) -> Image.Image:
    """Return the edges of an RGB guide, white on black (Canny, 1986)."""
    edge_pixels = cv2.Canny(np.asarray(guide), options.low, options.high)
    return Image.fromarray(edge_pixels).convert("RGB")


def _opencv(options: CannyOptions, runtime: Runtime) -> Detector:
    """Return the edge detector, which has no network and ignores `runtime`."""
    return lambda guide: edges(guide, options)


CONTROL = ControlType(
    options=CannyOptions,
    detectors={"opencv": _opencv},
    default="opencv",
    expected=Expected(
        blank="it holds no edges; give a guide with stronger ones",
        inverted="edges are white on black; invert the image",
    ),
)
