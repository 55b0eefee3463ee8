"""Brightness patterns, such as QR codes or illusions: the image adopts light and dark; mid-grey has no effect."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Runtime, option
from synccontrol.preprocess.errors import OptionError

NEUTRAL = 127.5


@dataclass(frozen=True, kw_only=True)
class QrOptions:
    """Strength of the pattern."""

    contrast: float = option(1.0, "0..1: 0 is grey 0.5 all over, 1 the guide's own light and dark")

    def __post_init__(self) -> None:
        if not 0 <= self.contrast <= 1:
            raise OptionError(f"qr contrast {self.contrast:g} is outside 0..1; 1 keeps the guide's light and dark")


def pattern(grey: Image.Image, contrast: float) -> Image.Image:
    """Return a grey image as RGB, with its contrast around mid-grey multiplied by `contrast`, 0..1."""
    levels = NEUTRAL + contrast * (np.asarray(grey, np.float32) - NEUTRAL)
    return Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")


def _grey(options: QrOptions, runtime: Runtime) -> Detector:
    return lambda guide: pattern(guide.convert("L"), options.contrast)


def _binary(options: QrOptions, runtime: Runtime) -> Detector:
    """Return the detector that converts the guide to black and white by the threshold of Otsu (1979)."""

    def detect(guide: Image.Image) -> Image.Image:
        grey = np.asarray(guide.convert("L"))
        return pattern(Image.fromarray(cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)[1]), options.contrast)

    return detect


CONTROL = ControlType(
    options=QrOptions, detectors={"grey": _grey, "binary": _binary}, default="grey", outside=(128, 128, 128)
)
