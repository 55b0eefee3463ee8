"""Line art: the guide as a line drawing, white on black."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from synccontrol.preprocess.control import ControlType, Detector, Expected, NoOptions, Runtime
from synccontrol.preprocess.controls.softedge import edge_map
from synccontrol.preprocess.estimators.checkpoints import Source, network_in_folder

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

NETWORKS = ("realistic", "coarse", "anime")
HINT = "the detector 'standard' needs no download"
STANDARD_SIGMA = 6.0  # px; lines are darker than a blur of this size
FAINT, DARK = 8.0, 16.0  # grey levels: largest contrast that is no line; smallest contrast of a typical line
TYPICAL = 127 / 255  # strength of a typical line in the map


def standard(image: Bytes) -> Floats:
    """Return the line strength (H, W), 0..1, of an RGB image (H, W, 3): the contrast to lighter surroundings.

    Source: `lineart_standard` of sd-webui-controlnet. All channels of a pixel must be darker.
    """
    pixels = image.astype(np.float32)
    darker = (cv2.GaussianBlur(pixels, (0, 0), STANDARD_SIGMA) - pixels).min(axis=2).clip(0)
    lines = darker[darker > FAINT]
    typical = max(DARK, float(np.median(lines)) if lines.size else DARK)
    strength: Floats = (darker / typical * TYPICAL).clip(0, 1)
    return strength


def _standard(options: NoOptions, runtime: Runtime) -> Detector:
    return lambda guide: edge_map(standard(np.asarray(guide)), safe=False)


def _invert(options: NoOptions, runtime: Runtime) -> Detector:
    """Return the detector for guides that are drawings, dark on light."""
    return lambda guide: ImageOps.invert(guide.convert("L")).convert("RGB")


def _network(name: str, folder: str | None = None) -> Callable[[NoOptions, Runtime], Detector]:
    def build(options: NoOptions, runtime: Runtime) -> Detector:
        from synccontrol.preprocess.estimators.line_networks import edges

        estimate = edges(name, Source(runtime=runtime, hint=HINT, folder=folder))
        return lambda guide: edge_map(estimate(np.asarray(guide)), safe=False)

    return build


def _from_folder(folder: str, options: NoOptions, runtime: Runtime) -> Detector:
    return _network(network_in_folder(folder, NETWORKS), folder)(options, runtime)


CONTROL = ControlType(
    options=NoOptions,
    detectors={**{name: _network(name) for name in NETWORKS}, "standard": _standard, "invert": _invert},
    default="realistic",
    from_id=_from_folder,
    id_kinds="a folder with its weights",
    expected=Expected(
        blank="it holds no lines; give a guide with stronger ones",
        inverted="lines are white on black; invert the drawing, or give it as guide to the detector 'invert'",
    ),
)
