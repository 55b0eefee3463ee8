"""Straight lines: a wireframe of the guide, white on black."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, Runtime, option
from synccontrol.preprocess.errors import OptionError
from synccontrol.preprocess.estimators.checkpoints import Source, named_by
from synccontrol.preprocess.wide.views import wrapped

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Estimator = Callable[[Bytes], Floats]  # RGB (H, W, 3) -> lines (n, 4): x0, y0, x1, y1 px

LSD_SOFTNESS = 0.75  # px
HINT = "the detector 'lsd' needs no download"


@dataclass(frozen=True, kw_only=True)
class MlsdOptions:
    """Which lines are drawn."""

    length: float = option(20.0, "shorter lines are left out, px")

    def __post_init__(self) -> None:
        if not self.length >= 0:
            raise OptionError(f"mlsd length {self.length:g} is not at least 0; 20 px suits most pictures")


def wireframe(lines: Floats, size: tuple[int, int], length: float, loop: bool = False) -> Image.Image:
    """Returns lines (n, 4), x0, y0, x1, y1 px, as an RGB picture of `size` (width, height), one pixel thin.

    Args:
        lines: What to draw.
        size: Of the picture.
        length: Shorter lines are left out, px.
        loop: The picture is a ring: what runs over one edge goes on at the other.
    """
    canvas = np.zeros((size[1], size[0]), np.uint8)
    long = lines[np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1]) >= length]
    for x0, y0, x1, y1 in np.rint(long).astype(int).tolist():
        for turn in (-size[0], 0, size[0]) if loop else (0,):
            cv2.line(canvas, (x0 + turn, y0), (x1 + turn, y1), 255)
    return Image.fromarray(canvas).convert("RGB")


def ring_lines(estimate: Estimator) -> Estimator:
    """Returns an estimator for rings, of which each line is found once, by its middle, wherever the ring was cut."""

    def estimate_ring(picture: Bytes) -> Floats:
        margin = min(picture.shape[:2])
        lines = estimate(wrapped(picture, margin)) - np.array([margin, 0, margin, 0], np.float32)
        middle = (lines[:, 0] + lines[:, 2]) / 2
        found: Floats = lines[(middle >= 0) & (middle < picture.shape[1])]
        return found

    return estimate_ring


def _drawn(estimate: Estimator, options: MlsdOptions, loop: bool) -> Detector:
    find = ring_lines(estimate) if loop else estimate
    return lambda guide: wireframe(find(np.asarray(guide)), guide.size, options.length, loop)


def _lsd(options: MlsdOptions, runtime: Runtime) -> Detector:
    """Returns the line segment detector of OpenCV (von Gioi et al., 2010).

    It smooths a picture by shrinking it to 0.8; blurred as much instead, it finds the same wherever a ring is cut.
    """
    detector = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD, 1.0)

    def estimate(picture: Bytes) -> Floats:
        grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), LSD_SOFTNESS)
        found = detector.detect(grey)[0]
        return np.zeros((0, 4), np.float32) if found is None else np.asarray(found, np.float32).reshape(-1, 4)

    return _drawn(estimate, options, runtime.loop)


def _mlsd(options: MlsdOptions, runtime: Runtime, folder: str | None = None) -> Detector:
    from synccontrol.preprocess.estimators.line_networks import straight_lines

    return _drawn(straight_lines(Source(runtime=runtime, hint=HINT, folder=folder)), options, runtime.loop)


def _from_folder(folder: str, options: MlsdOptions, runtime: Runtime) -> Detector:
    named_by(folder, ["mlsd"])
    return _mlsd(options, runtime, folder)


CONTROL = ControlType(
    options=MlsdOptions,
    detectors={"mlsd": _mlsd, "lsd": _lsd},
    default="mlsd",
    from_id=_from_folder,
    closes_rings=True,  # a mixture of two drawings of a line would be grey
    id_kinds="a folder with its weights",
    expected=Expected(
        blank="it holds no straight lines; give a guide that shows some",
        inverted="lines are white on black; invert the picture",
    ),
)
