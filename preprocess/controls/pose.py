"""Pose: the OpenPose skeletons of the people in the guide, on black.

An estimator is a function from an RGB image (H, W, 3) uint8 to people (n, 18, 3): x px, y px, confidence. A pose map
carries the keypoints of its people: `poses_of` returns them, and `draw` draws a new map from them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, NoOptions, Runtime
from synccontrol.preprocess.people import skeleton
from synccontrol.preprocess.people.detection import Estimator, in_views, on_ring
from synccontrol.preprocess.people.openpose_json import Poses
from synccontrol.preprocess.wide.views import Sight

POSES = "poses"  # key of the keypoints in `Image.info`
OPENPOSE_SIGHT = Sight(side=256, letterboxes=True)  # the network works at 184 px


def draw(poses: Poses, loop: bool = False, window: int | None = None) -> Image.Image:
    """Draw the pose map of people, in the size of their image.

    Args:
        poses: the people.
        loop: the map is a 360-degree ring: a person across the seam is drawn at both ends.
        window: height of the ControlNet's windows, px; None: the shorter side of the map.
    """
    pose_map = Image.fromarray(skeleton.draw(*poses, loop, window))
    pose_map.info[POSES] = poses
    return pose_map


def poses_of(pose_map: Image.Image) -> Poses | None:
    """Return the people of a pose map from `draw`; None for any other image."""
    poses: Poses | None = pose_map.info.get(POSES)
    return poses


def _pose_detector(estimate: Estimator, runtime: Runtime) -> Detector:
    """Return the detector that draws the people of an estimator."""
    find = on_ring(estimate) if runtime.loop else estimate

    def pose_map(guide: Image.Image) -> Image.Image:
        return draw(Poses(find(np.asarray(guide)), guide.height, guide.width), runtime.loop)

    return pose_map


def _tiny(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.bundled import BundledPose

    estimate = BundledPose(runtime.device)
    sight = Sight(side=estimate.network.config.height, letterboxes=False)
    return _pose_detector(in_views(estimate, sight), runtime)


def _openpose(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.annotators import openpose

    return _pose_detector(in_views(openpose(runtime), OPENPOSE_SIGHT), runtime)


def _rtmlib(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.rtm import RtmPose

    return _pose_detector(RtmPose(runtime), runtime)


CONTROL = ControlType(
    options=NoOptions,
    detectors={"tiny": _tiny, "openpose": _openpose, "rtmlib": _rtmlib},
    default="tiny",
    closes_rings=True,
    expected=Expected(
        blank="it shows nobody; show people larger, try another detector, or draw them in a pose editor",
        inverted="skeletons are drawn on black; give the map a black ground",
    ),
)
