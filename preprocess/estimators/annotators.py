"""Estimators of controlnet_aux: normals (Bae et al., arXiv 2109.09881), depth (MiDaS, LeReS) and people (OpenPose)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from synccontrol.preprocess.control import Runtime
from synccontrol.preprocess.errors import DetectorError
from synccontrol.preprocess.estimators.checkpoints import OFFLINE_HINT, Source, fetch, torch_device
from synccontrol.preprocess.estimators.line_networks import batch
from synccontrol.preprocess.hub import suppress_output
from synccontrol.preprocess.people.skeleton import JOINTS

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SHORTER_SIDE = 512  # px, input of the normal network; it was trained at 480
STEP = 32  # px; both sides must be multiples
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its training images, RGB in 0..1


def bae(source: Source) -> Callable[[Bytes], Floats]:
    """Return the normal network as a function from an RGB image to normals (h, w, 3): left, up, towards the viewer.

    Raises:
        DetectorError: the weights, the package or the device are not available.
    """

    def build() -> Any:
        from controlnet_aux.normalbae.nets.NNET import NNET

        return NNET(SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7))

    network: Callable[[torch.Tensor], Any] = source.network("bae", build, key="model")
    device = torch_device(source.runtime.device)
    mean, deviation = (torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (MEAN, DEVIATION))

    @torch.inference_mode()
    def estimate(image: Bytes) -> Floats:
        scale = SHORTER_SIDE / min(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        finest = network((batch(resized, STEP, device) / 255 - mean) / deviation)[0][-1]
        normals: Floats = finest[0, :3, :height, :width].permute(1, 2, 0).cpu().numpy()
        return normals

    return estimate


REPOSITORY = "lllyasviel/Annotators"
MIDAS_FILE = "dpt_hybrid-midas-501f0c75.pt"
LERES_FILE = "res101.pth"
OPENPOSE_FILE = "body_pose_model.pth"


def midas(runtime: Runtime) -> Callable[[Bytes], Floats]:
    """Return MiDaS 3.0 (DPT-hybrid) as a function from an RGB image to nearness."""
    with controlnet_aux():
        from controlnet_aux.midas import MidasDetector
    weights = _weights(MIDAS_FILE, runtime)
    with suppress_output():
        detector = MidasDetector.from_pretrained(str(weights.parent), filename=weights.name)
    return _first_channel(detector.to(torch_device(runtime.device)))


def leres(runtime: Runtime) -> Callable[[Bytes], Floats]:
    """Return LeReS (ResNeXt-101) as a function from an RGB image to nearness.

    Only the depth network is loaded. The loader of the package also builds the merging network of "LeReS++", which
    parses the flags of the running program.
    """
    with controlnet_aux():
        from controlnet_aux.leres import LeresDetector
        from controlnet_aux.leres.leres.multi_depth_model_woauxi import RelDepthModel
        from controlnet_aux.leres.leres.net_tools import strip_prefix_if_present
    weights = _weights(LERES_FILE, runtime)
    with suppress_output():
        checkpoint = torch.load(weights, map_location="cpu")
        network = RelDepthModel(backbone="resnext101")
        network.load_state_dict(strip_prefix_if_present(checkpoint["depth_model"], "module."))
    detector = LeresDetector(network.eval(), pix2pixmodel=None)
    return _first_channel(detector.to(torch_device(runtime.device)))


def openpose(runtime: Runtime) -> Callable[[Bytes], Floats]:
    """Return the body network of OpenPose as a function from an RGB image to people (n, 18, 3).

    Its licence (CMU) permits only non-commercial use.
    """
    with controlnet_aux():
        from controlnet_aux.open_pose import OpenposeDetector
        from controlnet_aux.open_pose.body import Body
    weights = _weights(OPENPOSE_FILE, runtime)
    with suppress_output():
        body = Body(str(weights)).to(torch_device(runtime.device))
    detector = OpenposeDetector(body)

    def estimate(image: Bytes) -> Floats:
        with suppress_output():
            poses = detector.detect_poses(image)
        people = np.zeros((len(poses), len(JOINTS), 3), np.float32)
        for person, pose in zip(people, poses, strict=True):
            for joint, keypoint in zip(person, pose.body.keypoints, strict=True):
                if keypoint is not None:
                    joint[:] = keypoint.x * image.shape[1], keypoint.y * image.shape[0], 1
        return people

    return estimate


def _first_channel(detector: Callable[..., Bytes]) -> Callable[[Bytes], Floats]:
    """Return the estimator of a depth annotator, whose result is a grey RGB image with near = white."""

    def estimate(image: Bytes) -> Floats:
        with suppress_output():
            return detector(image, output_type="np")[..., 0].astype(np.float32)

    return estimate


def _weights(file: str, runtime: Runtime) -> Path:
    """Return the local path of a file of the annotators' repository, downloaded if necessary."""
    from huggingface_hub import hf_hub_download

    return Path(fetch(lambda local: hf_hub_download(REPOSITORY, file, local_files_only=local), REPOSITORY, runtime))


@contextmanager
def controlnet_aux(hint: str = OFFLINE_HINT) -> Iterator[None]:
    """Import parts of controlnet_aux without its warnings, and restore the environment variables that it sets.

    Args:
        hint: an alternative to the package, for the error message.

    Raises:
        DetectorError: the package cannot be imported.
    """
    environment = dict(os.environ)
    try:
        with suppress_output():
            yield
    except ImportError as error:
        raise DetectorError(
            f"controlnet_aux cannot be imported ({error}); pip install controlnet_aux==0.0.10, or {hint}"
        ) from error
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
