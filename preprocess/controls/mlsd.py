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
from synccontrol.preprocess.estimators.checkpoints import Source, network_in_folder
from synccontrol.preprocess.wide.views import wrap_ring

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Estimator = Callable[[Bytes], Floats]  # RGB (H, W, 3) -> lines (n, 4): x0, y0, x1, y1 px

LSD_SOFTNESS = 0.75  # px
HINT = "the detector 'lsd' needs no download"


@dataclass(frozen=True, kw_only=True)
class MlsdOptions:
    """Options of the line detector."""

    length: float = option(20.0, "shorter lines are left out, px")

    def __post_init__(self) -> None:
        if not self.length >= 0:
            raise OptionError(f"mlsd length {self.length:g} is not at least 0; 20 px suits most images")


def wireframe(lines: Floats, size: tuple[int, int], length: float, loop: bool = False) -> Image.Image:
    """Draw lines (n, 4), x0, y0, x1, y1 px, one pixel thin on an RGB image of `size` (width, height).

    Args:
        lines: the lines.
        size: width and height of the image.
        length: shorter lines are left out, px.
        loop: the image is a 360-degree ring: a line that crosses one edge continues at the other.
    """
    canvas = np.zeros((size[1], size[0]), np.uint8)
    long_lines = lines[np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1]) >= length]
    for x0, y0, x1, y1 in np.rint(long_lines).astype(int).tolist():
        for offset in (-size[0], 0, size[0]) if loop else (0,):
            cv2.line(canvas, (x0 + offset, y0), (x1 + offset, y1), 255)
    return Image.fromarray(canvas).convert("RGB")


def ring_lines(estimate: Estimator) -> Estimator:
    """Return an estimator for 360-degree rings, which finds each line once, by its midpoint."""

    def estimate_ring(image: Bytes) -> Floats:
        margin = min(image.shape[:2])
        lines = estimate(wrap_ring(image, margin)) - np.array([margin, 0, margin, 0], np.float32)
        midpoint = (lines[:, 0] + lines[:, 2]) / 2
        inside: Floats = lines[(midpoint >= 0) & (midpoint < image.shape[1])]
        return inside

    return estimate_ring


def _line_detector(estimate: Estimator, options: MlsdOptions, loop: bool) -> Detector:
    find = ring_lines(estimate) if loop else estimate
    return lambda guide: wireframe(find(np.asarray(guide)), guide.size, options.length, loop)


def _lsd(options: MlsdOptions, runtime: Runtime) -> Detector:
    """Return the line segment detector of OpenCV (von Gioi et al., 2010).

    OpenCV smooths the image by scaling it to 0.8. An equal blur instead gives the same lines wherever a ring is cut.
    """
    detector = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD, 1.0)

    def estimate(image: Bytes) -> Floats:
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), LSD_SOFTNESS)
        lines = detector.detect(grey)[0]
        return np.zeros((0, 4), np.float32) if lines is None else np.asarray(lines, np.float32).reshape(-1, 4)

    return _line_detector(estimate, options, runtime.loop)


def _mlsd(options: MlsdOptions, runtime: Runtime, folder: str | None = None) -> Detector:
    from synccontrol.preprocess.estimators.line_networks import straight_lines

    return _line_detector(straight_lines(Source(runtime=runtime, hint=HINT, folder=folder)), options, runtime.loop)


def _from_folder(folder: str, options: MlsdOptions, runtime: Runtime) -> Detector:
    network_in_folder(folder, ["mlsd"])
    return _mlsd(options, runtime, folder)


CONTROL = ControlType(
    options=MlsdOptions,
    detectors={"mlsd": _mlsd, "lsd": _lsd},
    default="mlsd",
    from_id=_from_folder,
    closes_rings=True,  # a blend of two renderings of a line would be grey
    id_kinds="a folder with its weights",
    expected=Expected(
        blank="it holds no straight lines; give a guide that shows some",
        inverted="lines are white on black; invert the image",
    ),
)
