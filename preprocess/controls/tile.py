"""Tile: the guide's own colours and shapes without its detail, which the model is to draw anew."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, NoOptions, Runtime

SOFTNESS = 4.0  # px: about as soft as the published ControlNet's example, a 64 px picture enlarged to 512


def blurred(guide: Image.Image) -> Image.Image:
    """Returns an RGB guide blurred by `SOFTNESS`; unlike a shrunk and enlarged one, it has no grid of samples."""
    return Image.fromarray(cv2.GaussianBlur(np.asarray(guide), (0, 0), SOFTNESS))


def _blur(options: NoOptions, runtime: Runtime) -> Detector:
    return blurred


def _guide(options: NoOptions, runtime: Runtime) -> Detector:
    """Returns the detector that gives the guide as it is."""
    return lambda guide: guide


CONTROL = ControlType(options=NoOptions, detectors={"blur": _blur, "guide": _guide}, default="blur", outside=None)
