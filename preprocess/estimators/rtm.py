"""People by RTMPose, with the package rtmlib: a person detector, then the joints of each person.

The person detector fits an image into a square, in which the people of a wide image are tiny, so it also receives
slices. The joints are estimated in the original image at full resolution.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt

from synccontrol.preprocess import hub
from synccontrol.preprocess.control import Runtime
from synccontrol.preprocess.errors import DetectorError
from synccontrol.preprocess.estimators.checkpoints import OFFLINE_HINT
from synccontrol.preprocess.hub import suppress_output
from synccontrol.preprocess.people import detection
from synccontrol.preprocess.people.skeleton import JOINTS
from synccontrol.preprocess.wide.views import Sight

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MODE = "balanced"  # size of the models in rtmlib: YOLOX-m and RTMPose-m
MIN_SCORE = 0.3  # smallest score of a visible joint; rtmlib draws with about the same


class RtmPose:
    """Detect people in an image with RTMPose."""

    def __init__(self, runtime: Runtime) -> None:
        try:
            from rtmlib import YOLOX, Body, RTMPose
        except ImportError as error:
            raise DetectorError(
                f"the pose detector 'rtmlib' is not installed ({error}); pip install --no-deps rtmlib and "
                f"pip install onnxruntime, or {OFFLINE_HINT}"
            ) from error
        models = Body.MODE[MODE]
        files = {name: _checkpoint(models[name], runtime) for name in ("det", "pose")}
        with suppress_output():
            find = YOLOX(files["det"], model_input_size=models["det_input_size"], device=runtime.device)
            self.estimate = RTMPose(
                files["pose"], model_input_size=models["pose_input_size"], to_openpose=True, device=runtime.device
            )
        self.find = detection.boxes_in_views(find, Sight(side=max(models["det_input_size"]), letterboxes=True))

    def __call__(self, image: Bytes) -> Floats:
        """Return the people (n, 18, 3) in an RGB image (H, W, 3): x px, y px, confidence."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        boxes = self.find(bgr)
        if len(boxes) == 0:  # without boxes RTMPose takes the whole image for a person
            return np.zeros((0, len(JOINTS), 3), np.float32)
        places, scores = self.estimate(bgr, bboxes=boxes)
        confidence = np.where(scores >= MIN_SCORE, scores, 0)
        return detection.merge(np.concatenate([places, confidence[..., None]], axis=2).astype(np.float32))


def _checkpoint(url: str, runtime: Runtime) -> str:
    """Return the local path of the ONNX file of `url` in the cache of rtmlib, downloaded if necessary."""
    from rtmlib.tools.file import download_checkpoint

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rtmlib"
    folder = Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub" / "checkpoints"
    name = Path(urlparse(url).path).stem
    if hub.is_offline(runtime.offline) and not (folder / f"{name}.onnx").exists():
        raise DetectorError(f"'{name}' has not been downloaded and downloads are off; allow them, or {OFFLINE_HINT}")
    try:
        with suppress_output():
            return str(download_checkpoint(url, dst_dir=str(folder), progress=False))
    except OSError as error:
        raise DetectorError(
            f"'{name}' cannot be downloaded from {urlparse(url).netloc} ({error}); connect once, or {OFFLINE_HINT}"
        ) from error
