"""Depth: near = white, far = black, whatever the estimator's numbers mean.

An estimator is a function from an RGB picture (H, W, 3) uint8 to nearness (h, w): larger is nearer, at any size.
Numbers of no fixed scale get one scale over a long guide (`preprocess/wide/wide_depth.py`), and 0..1 once.
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
from synccontrol.preprocess.wide.views import closed_estimate
from synccontrol.preprocess.wide.wide_depth import Estimator, long_depth

Floats = npt.NDArray[np.float32]

ANNOTATOR_SIDE = 512  # px; the shorter side at which controlnet_aux shows pictures to its depth networks
OUTPUTS = ("auto", "nearness", "distance")
HUB_ID = r"\w[\w.-]*/[\w.-]+"  # owner/name
HUB_IDS = {
    "depth-anything": "depth-anything/Depth-Anything-V2-Small-hf",
    "zoe": "Intel/zoedepth-nyu-kitti",
}


@dataclass(frozen=True, kw_only=True)
class DepthOptions:
    """How the numbers of a transformers depth model are to be read."""

    output: str = option("auto", "nearness: larger is nearer; distance: larger is farther; auto: as is known", OUTPUTS)

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise OptionError(f"depth output '{self.output}' is not known; use {', '.join(OUTPUTS)}")


def depth_map(nearness: Floats, size: tuple[int, int]) -> Image.Image:
    """Returns nearness (h, w) in 0..1 as an RGB picture of `size` (width, height), 1 = white."""
    shrinks = nearness.shape[1] > size[0]
    resized = cv2.resize(nearness, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return Image.fromarray(np.rint(resized.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")


def normalised(nearness: Floats) -> Floats:
    """Returns nearness stretched to 0..1, once over the whole picture; a flat one becomes 0."""
    low, high = float(nearness.min()), float(nearness.max())
    stretched: Floats = (nearness - low) / max(high - low, float(np.finfo(np.float32).eps))
    return stretched


def _relative(estimate: Estimator, side: int, runtime: Runtime) -> Detector:
    """Returns the detector around an estimator whose numbers have no fixed scale, trained on pictures of `side` px."""
    nearness = long_depth(estimate, side, runtime.loop)
    return lambda guide: depth_map(normalised(nearness(np.asarray(guide))), guide.size)


def _tiny(options: DepthOptions, runtime: Runtime) -> Detector:
    """Returns the bundled detector, which sees a guide of any length at once.

    It is fully convolutional and its numbers are absolute, so tiles show it nothing new (benchmarks/wide_depth.md).
    """
    from synccontrol.preprocess.estimators.bundled import BundledDepth

    bundled = BundledDepth(runtime.device)
    estimate = closed_estimate(bundled) if runtime.loop else bundled
    return lambda guide: depth_map(estimate(np.asarray(guide)), guide.size)  # it was taught 0..1, sky 0


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
