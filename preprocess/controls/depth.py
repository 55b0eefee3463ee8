"""Depth maps: near is white and far is black, for estimators of distance and of nearness.

An estimator is a function from an RGB image (H, W, 3) uint8 to nearness (h, w): larger is nearer, at any size.
Relative depth gets one scale over a wide guide (`preprocess/wide/wide_depth.py`), and is then normalised to 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, Runtime, option
from synccontrol.preprocess.errors import OptionError
from synccontrol.preprocess.wide.views import close_ring_estimate
from synccontrol.preprocess.wide.wide_depth import Estimator, long_depth

Floats = npt.NDArray[np.float32]

ANNOTATOR_SIDE = 512  # px; the shorter side of the depth networks' input in controlnet_aux
OUTPUTS = ("auto", "nearness", "distance")
HUB_ID = r"\w[\w.-]*/[\w.-]+"  # owner/name
HUB_IDS = {
    "depth-anything": "depth-anything/Depth-Anything-V2-Small-hf",
    "zoe": "Intel/zoedepth-nyu-kitti",
}


@dataclass(frozen=True, kw_only=True)
class DepthOptions:
    """The meaning of the values of a transformers depth model."""

    output: str = option(
        "auto", "nearness: larger is nearer; distance: larger is farther; auto: by the model type", OUTPUTS
    )

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise OptionError(f"depth output '{self.output}' is not known; use {', '.join(OUTPUTS)}")


def depth_map(nearness: Floats, size: tuple[int, int]) -> Image.Image:
    """Return nearness (h, w) in 0..1 as an RGB image of `size` (width, height), 1 = white."""
    shrinks = nearness.shape[1] > size[0]
    resized = cv2.resize(nearness, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return Image.fromarray(np.rint(resized.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")


def normalise(nearness: Floats) -> Floats:
    """Scale nearness to 0..1 over the whole image; a constant image becomes 0."""
    low, high = float(nearness.min()), float(nearness.max())
    stretched: Floats = (nearness - low) / max(high - low, float(np.finfo(np.float32).eps))
    return stretched


def _relative(estimate: Estimator, side: int, runtime: Runtime) -> Detector:
    """Return the detector of an estimator of relative depth, which was trained on images of `side` px."""
    nearness = long_depth(estimate, side, runtime.loop)
    return lambda guide: depth_map(normalise(nearness(np.asarray(guide))), guide.size)


def _tiny(options: DepthOptions, runtime: Runtime) -> Detector:
    """Return the bundled detector, which estimates a guide of any width as a whole.

    It is fully convolutional and its values are absolute, so tiles bring no gain (benchmarks/wide_depth.md).
    """
    from synccontrol.preprocess.estimators.bundled import BundledDepth

    bundled = BundledDepth(runtime.device)
    estimate = close_ring_estimate(bundled) if runtime.loop else bundled
    return lambda guide: depth_map(estimate(np.asarray(guide)), guide.size)  # it is trained on 0..1, with the sky at 0


def _from_id(model: str, options: DepthOptions, runtime: Runtime) -> Detector:
    if not Path(model).is_dir() and not re.fullmatch(HUB_ID, model):
        raise OptionError(f"there is no folder '{model}' with a depth model; name a folder, or a hub id as owner/name")
    return _transformers(model, options, runtime)


def _transformers(model: str, options: DepthOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.transformers_models import TransformersDepth

    estimate = TransformersDepth(model, runtime, options.output)
    return _relative(estimate, estimate.side, runtime)


def _hub(name: str) -> Callable[[DepthOptions, Runtime], Detector]:
    return lambda options, runtime: _transformers(HUB_IDS[name], options, runtime)


def _midas(options: DepthOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.annotators import midas

    return _relative(midas(runtime), ANNOTATOR_SIDE, runtime)


def _leres(options: DepthOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.annotators import leres

    return _relative(leres(runtime), ANNOTATOR_SIDE, runtime)


CONTROL = ControlType(
    options=DepthOptions,
    detectors={"tiny": _tiny, **{name: _hub(name) for name in HUB_IDS}, "midas": _midas, "leres": _leres},
    default="tiny",
    from_id=_from_id,
    closes_rings=True,
    outside=None,
    expected=Expected(
        blank="all is at one distance; give a guide with near and far",
        dark="near is to be white; stretch its values (16 bits hold 0 to 65535, not millimetres), or give a guide with "
        "something near",
    ),
)
