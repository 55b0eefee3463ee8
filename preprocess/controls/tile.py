"""Tile maps: the guide without its detail, which the model generates again."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, NoOptions, Runtime

SOFTNESS = 4.0  # px; about as soft as the example of the published ControlNet, a 64 px image upscaled to 512


def blur(guide: Image.Image) -> Image.Image:
    """Blur an RGB guide by `SOFTNESS`, which leaves no sampling grid, unlike scaling down and up."""
    return Image.fromarray(cv2.GaussianBlur(np.asarray(guide), (0, 0), SOFTNESS))


def _blur(options: NoOptions, runtime: Runtime) -> Detector:
    return blur


def _identity(options: NoOptions, runtime: Runtime) -> Detector:
    """Return the detector that returns the guide unchanged."""
    return lambda guide: guide


CONTROL = ControlType(options=NoOptions, detectors={"blur": _blur, "guide": _identity}, default="blur", outside=None)
