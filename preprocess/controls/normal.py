"""Surface normals as colours: red is left, green is up, blue is towards the viewer (as in ScanNet and ControlNet 1.1).

An estimator is a function from an RGB image (H, W, 3) uint8 to normals (h, w, 3): left, up, towards the viewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, NoOptions, Runtime
from synccontrol.preprocess.controls.depth import HUB_ID, HUB_IDS
from synccontrol.preprocess.errors import OptionError
from synccontrol.preprocess.estimators.checkpoints import CHECKPOINTS, Source
from synccontrol.preprocess.wide.wide_depth import long_depth

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Estimator = Callable[[Bytes], Floats]

HINT = "the detector 'tiny' needs no download"
TINY = float(np.finfo(np.float32).tiny)
FOCAL = 0.5 / np.tan(np.radians(60) / 2)  # focal length in image heights, for a vertical field of view of 60 degrees
REACH = 64  # slopes are measured over the image height / REACH
BLUR = 256  # nearness is blurred by the image height / BLUR, because noise would look like relief
FAR = 0.02  # of the largest nearness; much farther surfaces face the viewer


def normal_map(normals: Floats, size: tuple[int, int]) -> Image.Image:
    """Return normals (h, w, 3), of any length, as an RGB image of `size` (width, height)."""
    resized = cv2.resize(normals, size, interpolation=cv2.INTER_LINEAR)
    length = np.linalg.norm(resized, axis=2, keepdims=True).clip(TINY)
    return Image.fromarray(np.rint((resized / length + 1) * 127.5).astype(np.uint8))


def normals_from(nearness: Floats) -> Floats:
    """Return the normals (H, W, 3) of surfaces with nearness (H, W), which is 0 at infinity.

    Nearness is inverse distance times any constant. For a camera of focal length f, a plane with normal n at distance c
    has the nearness d(x, y) = (n_x x/f + n_y y/f + n_z) / c at x px right of and y px below the centre. So n is
    parallel to (f d_x, f d_y, d - y d_y - x d_x), where subscripts are slopes. As in a panorama, the camera of each
    column faces that column (x = 0), so normals do not depend on the horizontal position.
    """
    height = nearness.shape[0]
    nearness = cv2.GaussianBlur(nearness, (0, 0), height / BLUR) / max(float(nearness.max()), TINY)
    row_offset = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    right_slope, down_slope = (_slope(nearness, axis, max(1, round(height / REACH))) for axis in (1, 0))
    focal = np.float32(FOCAL * height)
    facing = (nearness - row_offset * down_slope).clip(0) + np.float32(FAR)  # surfaces that face away are invisible
    return np.stack([focal * right_slope, focal * down_slope, facing], axis=2)


def _slope(values: Floats, axis: int, reach: int) -> Floats:
    """Return the slope of values (H, W) along an axis, per pixel, on the flatter of the two sides.

    At the outline of an object the steep side leads to the background, and the flat side is the object itself.
    """
    reach = min(reach, values.shape[axis] - 1)
    if reach == 0:
        return np.zeros_like(values)
    values = np.moveaxis(values, axis, 0)
    steps = (values[reach:] - values[:-reach]) / reach
    edge = ((0, reach), (0, 0))
    after = np.pad(steps, edge, constant_values=np.inf)
    before = np.pad(steps, (edge[0][::-1], edge[1]), constant_values=np.inf)
    flatter: Floats = np.where(np.abs(after) <= np.abs(before), after, before)
    return np.moveaxis(np.where(np.isfinite(flatter), flatter, 0), 0, axis)


def _normal_detector(estimate: Estimator) -> Detector:
    return lambda guide: normal_map(estimate(np.asarray(guide)), guide.size)


def _bae(options: NoOptions, runtime: Runtime, folder: str | None = None) -> Detector:
    from synccontrol.preprocess.estimators.annotators import bae

    return _normal_detector(bae(Source(runtime=runtime, hint=HINT, folder=folder)))


def _tiny(options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.bundled import BundledDepth

    estimate = BundledDepth(runtime.device)
    return _normal_detector(lambda image: normals_from(estimate(image)))


def _depth_model(model: str, runtime: Runtime) -> Detector:
    """Return the detector of normals from a transformers depth model, whose farthest point is at infinity."""
    from synccontrol.preprocess.estimators.transformers_models import TransformersDepth

    depth = TransformersDepth(model, runtime, "auto")
    estimate = long_depth(depth, depth.side)

    def normals(image: Bytes) -> Floats:
        nearness = estimate(image)
        return normals_from(nearness - nearness.min())

    return _normal_detector(normals)


def _from_id(model: str, options: NoOptions, runtime: Runtime) -> Detector:
    if (Path(model) / CHECKPOINTS["bae"].file).is_file():
        return _bae(options, runtime, model)
    if not Path(model).is_dir() and not re.fullmatch(HUB_ID, model):
        raise OptionError(f"there is no folder '{model}' with a normal or depth model; name a folder, or owner/name")
    return _depth_model(model, runtime)


CONTROL = ControlType(
    options=NoOptions,
    detectors={
        "bae": _bae,
        "tiny": _tiny,
        "depth-anything": lambda options, runtime: _depth_model(HUB_IDS["depth-anything"], runtime),
    },
    default="bae",
    from_id=_from_id,
    outside=None,
    id_kinds="a folder with its weights, or a hub id or folder of a transformers depth model",
)
