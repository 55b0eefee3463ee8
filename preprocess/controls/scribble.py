"""Scribbles: few thick strokes, white on black."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, NoOptions, Runtime
from synccontrol.preprocess.controls.softedge import slopes
from synccontrol.preprocess.estimators.checkpoints import Source, network_in_folder

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

NETWORKS = ("hed", "pidi")
HINT = "the detector 'sobel' needs no download"
MIN_STRENGTH = 127.0  # of 255; weaker edges are left out
STROKE_SIGMA = 3.0  # px; half-width of a stroke around the ridge of an edge
STROKE_FLOOR = 4.0  # of 255; a stroke is white where its blur is stronger
DIRECTIONS = (((0, 0, 0), (1, 1, 1), (0, 0, 0)), ((0, 1, 0), (0, 1, 0), (0, 1, 0)), np.eye(3), np.eye(3)[::-1])
FINE, COARSE = 0.5, 5.0  # px; deviations of the two blurs whose difference is a stroke
DARKER = 16.0  # grey levels; contrast of a stroke to its surroundings
INK = 127  # grey levels; strokes of a drawing are darker


def strokes(strength: Floats) -> Bools:
    """Return the mask of strokes along the ridges of edges of strength (H, W), 0..1.

    Source: the HED scribbles of ControlNet, which are the thickened ridges of blurred edges.
    """
    smooth = cv2.GaussianBlur(strength * 255, (0, 0), STROKE_SIGMA)
    ridges = np.zeros(smooth.shape, bool)
    for direction in DIRECTIONS:
        ridges |= cv2.dilate(smooth, np.asarray(direction, np.uint8)) == smooth
    ridge_pixels = np.where(ridges & (smooth > MIN_STRENGTH), np.float32(255), np.float32(0))
    mask: Bools = cv2.GaussianBlur(ridge_pixels, (0, 0), STROKE_SIGMA) > STROKE_FLOOR
    return mask


def dark_lines(image: Bytes) -> Bools:
    """Return the mask of pixels of an RGB image (H, W, 3) that are darker than their surroundings in every channel.

    Source: the difference of Gaussians of XDoG (Winnemoeller, 2011), as `scribble_xdog` of sd-webui-controlnet.
    """
    pixels = image.astype(np.float32)
    difference = cv2.GaussianBlur(pixels, (0, 0), COARSE) - cv2.GaussianBlur(pixels, (0, 0), FINE)
    mask: Bools = difference.min(axis=2) > DARKER
    return mask


def scribble_map(mask: Bools) -> Image.Image:
    """Return a mask of strokes (H, W) as an RGB image, white on black."""
    return Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")


def _sobel(options: NoOptions, runtime: Runtime) -> Detector:
    return lambda guide: scribble_map(strokes(slopes(np.asarray(guide))))


def _xdog(options: NoOptions, runtime: Runtime) -> Detector:
    return lambda guide: scribble_map(dark_lines(np.asarray(guide)))


def _invert(options: NoOptions, runtime: Runtime) -> Detector:
    """Return the detector for guides that are drawings, dark on light."""
    return lambda guide: scribble_map(np.asarray(guide).min(axis=2) < INK)


def _network(name: str, folder: str | None = None) -> Callable[[NoOptions, Runtime], Detector]:
    def build(options: NoOptions, runtime: Runtime) -> Detector:
        from synccontrol.preprocess.estimators.line_networks import edges

        estimate = edges(name, Source(runtime=runtime, hint=HINT, folder=folder))
        return lambda guide: scribble_map(strokes(estimate(np.asarray(guide))))

    return build


def _from_folder(folder: str, options: NoOptions, runtime: Runtime) -> Detector:
    return _network(network_in_folder(folder, NETWORKS), folder)(options, runtime)


CONTROL = ControlType(
    options=NoOptions,
    detectors={**{name: _network(name) for name in NETWORKS}, "sobel": _sobel, "xdog": _xdog, "invert": _invert},
    default="hed",
    from_id=_from_folder,
    id_kinds="a folder with its weights",
    expected=Expected(
        blank="it holds no strokes; give a guide with stronger outlines",
        inverted="strokes are white on black; invert the drawing, or give it as guide to the detector 'invert'",
    ),
)
