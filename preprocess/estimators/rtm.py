"""People by RTMPose, with the package rtmlib: a person detector, then the joints of every person.

The person detector fits a picture into a square, in which the people of a long one are tiny, so it is shown slices as
well. The joints are looked for in the full picture, at its own resolution.
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
from synccontrol.preprocess.hub import muted
from synccontrol.preprocess.people import detection
from synccontrol.preprocess.people import detection as people
from synccontrol.preprocess.people.skeleton import JOINTS
from synccontrol.preprocess.wide.views import Sight

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MODE = "balanced"  # of rtmlib's sizes: YOLOX-m and RTMPose-m
SEEN = 0.3  # score from which a joint counts as found; rtmlib's own drawing uses about as much


class RtmPose:
    """Finds people in a picture with RTMPose."""

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
        with muted():
            find = YOLOX(files["det"], model_input_size=models["det_input_size"], device=runtime.device)
            self.estimate = RTMPose(
                files["pose"], model_input_size=models["pose_input_size"], to_openpose=True, device=runtime.device
            )
        self.find = detection.boxes_in_views(find, Sight(side=max(models["det_input_size"]), letterboxes=True))

    def __call__(self, picture: Bytes) -> Floats:
        """Returns the people (n, 18, 3) in an RGB picture (H, W, 3): x px, y px, confidence."""
        mirrored_channels = np.ascontiguousarray(picture[..., ::-1])
        found = self.find(mirrored_channels)
        if len(found) == 0:  # given no box, RTMPose takes the whole picture for a person
            return np.zeros((0, len(JOINTS), 3), np.float32)
        places, scores = self.estimate(mirrored_channels, bboxes=found)
        confidence = np.where(scores >= SEEN, scores, 0)
        return people.merge(np.concatenate([places, confidence[..., None]], axis=2).astype(np.float32))


def _checkpoint(url: str, runtime: Runtime) -> str:
    """Returns where the ONNX file of `url` lies on this machine, in rtmlib's cache, after a download if need be."""
    from rtmlib.tools.file import download_checkpoint

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rtmlib"
    folder = Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub" / "checkpoints"
    name = Path(urlparse(url).path).stem
    if hub.is_off(runtime.offline) and not (folder / f"{name}.onnx").exists():
        raise DetectorError(f"'{name}' has not been downloaded and downloads are off; allow them, or {OFFLINE_HINT}")
    try:
        with muted():
            return str(download_checkpoint(url, dst_dir=str(folder), progress=False))
    except OSError as error:
        raise DetectorError(
            f"'{name}' cannot be downloaded from {urlparse(url).netloc} ({error}); connect once, or {OFFLINE_HINT}"
        ) from error
