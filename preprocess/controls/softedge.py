"""Soft edges: outlines on black, in shades of grey by their strength."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, Runtime, option
from synccontrol.preprocess.estimators.checkpoints import Source, network_in_folder

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

NETWORKS = ("hed", "pidi", "teed")
HINT = "the detector 'sobel' needs no download"
SAFE_LEVELS = 2  # steps from black to white
SOFTNESS = 1.5  # px; deviation of the blur before the gradient
SOBEL_SCALE = 1 / 8  # converts Sobel sums to slopes per pixel
FULL_STEP = 64.0  # of 255; height of a step that is an edge of full strength


@dataclass(frozen=True, kw_only=True)
class SoftEdgeOptions:
    """Conversion of edge strength to grey levels."""

    safe: bool = option(False, "three greys only, which hide no faint copy of the guide: more robust, less exact")


def slopes(image: Bytes) -> Floats:
    """Return the edge strength (H, W) of an RGB image (H, W, 3) in its steepest channel: 1 at a full step.

    Source: the slope of a blurred image (Marr and Hildreth, 1980; Sobel's filter); a step of height a, blurred by s,
    is a / (s sqrt(2 pi)) steep.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), SOFTNESS)
    right, down = (cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx, scale=SOBEL_SCALE) for dx in (1, 0))
    steep: Floats = cv2.magnitude(right, down).max(axis=2) * (SOFTNESS * math.sqrt(2 * math.pi) / FULL_STEP)
    return steep.clip(0, 1)


def edge_map(strength: Floats, safe: bool) -> Image.Image:
    """Return edge strength (H, W) in 0..1 as an RGB image, with strong edges white.

    Args:
        strength: the strength of edges.
        safe: reduce the strength to 0, 0.5 and 1 (ControlNet 1.1, `safe_step`).
    """
    if safe:
        levels = np.floor(strength * (SAFE_LEVELS + 1)).clip(0, SAFE_LEVELS)
        strength = np.asarray(levels / SAFE_LEVELS, np.float32)
    return Image.fromarray((strength * 255).clip(0, 255).astype(np.uint8)).convert("RGB")


def _sobel(options: SoftEdgeOptions, runtime: Runtime) -> Detector:
    return lambda guide: edge_map(slopes(np.asarray(guide)), options.safe)


def _network(name: str, folder: str | None = None) -> Callable[[SoftEdgeOptions, Runtime], Detector]:
    def build(options: SoftEdgeOptions, runtime: Runtime) -> Detector:
        from synccontrol.preprocess.estimators.line_networks import edges

        estimate = edges(name, Source(runtime=runtime, hint=HINT, folder=folder))
        return lambda guide: edge_map(estimate(np.asarray(guide)), options.safe)

    return build


def _from_folder(folder: str, options: SoftEdgeOptions, runtime: Runtime) -> Detector:
    return _network(network_in_folder(folder, NETWORKS), folder)(options, runtime)


CONTROL = ControlType(
    options=SoftEdgeOptions,
    detectors={**{name: _network(name) for name in NETWORKS}, "sobel": _sobel},
    default="hed",
    from_id=_from_folder,
    id_kinds="a folder with its weights",
    expected=Expected(
        blank="it holds no outlines; give a guide with stronger ones",
        inverted="outlines are white on black; invert the image",
    ),
)
