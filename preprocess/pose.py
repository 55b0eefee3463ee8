"""Pose: the OpenPose skeletons of the people in the guide, on black.

An estimator is a function from an RGB picture (H, W, 3) uint8 to people (n, 18, 3): x px, y px, confidence.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocess import skeleton
from preprocess.control import ControlType, Detector, NoOptions, Runtime

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Estimator = Callable[[Bytes], Floats]


def _drawn(estimate: Estimator) -> Detector:
    """Returns the detector that draws the people an estimator finds."""

    def pose_map(guide: Image.Image) -> Image.Image:
        return Image.fromarray(skeleton.draw(estimate(np.asarray(guide)), guide.height, guide.width))

    return pose_map


def _tiny(options: NoOptions, runtime: Runtime) -> Detector:
    from preprocess.estimators.bundled import BundledPose

    return _drawn(BundledPose(runtime.device))


def _openpose(options: NoOptions, runtime: Runtime) -> Detector:
    from preprocess.estimators.annotators import openpose

    return _drawn(openpose(runtime))


def _rtmlib(options: NoOptions, runtime: Runtime) -> Detector:
    from preprocess.estimators.rtm import RtmPose

    return _drawn(RtmPose(runtime))


CONTROL = ControlType(
    options=NoOptions,
    detectors={"tiny": _tiny, "openpose": _openpose, "rtmlib": _rtmlib},
    default="tiny",
)
