"""Pose: the OpenPose skeletons of the people in the guide, on black.

An estimator is a function from an RGB picture (H, W, 3) uint8 to people (n, 18, 3): x px, y px, confidence. A pose map
knows its people: `poses_of` returns them, `draw` makes a map of them again.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, Expected, NoOptions, Runtime
from synccontrol.preprocess.people import skeleton
from synccontrol.preprocess.people.detection import Estimator, in_views, on_ring
from synccontrol.preprocess.people.openpose_json import Poses
from synccontrol.preprocess.wide.views import Sight

POSES = "poses"  # where a pose map keeps its people, in `Image.info`
OPENPOSE_SIGHT = Sight(side=256, letterboxes=True)  # seen 184 px high, also where the guide is higher than wide


def draw(poses: Poses, loop: bool = False, window: int | None = None) -> Image.Image:
    """Returns the pose map of people, of the size of their picture.

    Args:
        poses: The people.
        loop: The map is a ring: who stands across its ends is drawn at both.
        window: Height in pixels of the windows that will see the map; None: the picture's shorter side.
    """
    pose_map = Image.fromarray(skeleton.draw(*poses, loop, window))
    pose_map.info[POSES] = poses
    return pose_map


def poses_of(pose_map: Image.Image) -> Poses | None:
    """Returns the people of a picture that `draw` made; None for any other picture."""
    poses: Poses | None = pose_map.info.get(POSES)
    return poses


def _drawn(estimate: Estimator, runtime: Runtime) -> Detector:
    """Returns the detector that draws the people an estimator finds."""
    find = on_ring(estimate) if runtime.loop else estimate

    def pose_map(guide: Image.Image) -> Image.Image:
        return draw(Poses(find(np.asarray(guide)), guide.height, guide.width), runtime.loop)

    return pose_map


def _tiny(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.bundled import BundledPose

    estimate = BundledPose(runtime.device)
    sight = Sight(side=estimate.network.config.height, letterboxes=False)
    return _drawn(in_views(estimate, sight), runtime)


def _openpose(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.annotators import openpose

    return _drawn(in_views(openpose(runtime), OPENPOSE_SIGHT), runtime)


def _rtmlib(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.rtm import RtmPose

    return _drawn(RtmPose(runtime), runtime)


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
