"""Surface normals by the network of Bae et al. (arXiv 2109.09881), which ControlNet's normal maps are made with."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from preprocess.estimators.checkpoints import Source
from preprocess.estimators.device import torch_device
from preprocess.estimators.line_networks import batch

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SHORTER_SIDE = 512  # px at which the network looks at a picture; it was trained at 480
STEP = 32  # px: both sides must be multiples of it
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures it was trained on, R G B in 0..1


def bae(source: Source) -> Callable[[Bytes], Floats]:
    """Returns the network as a function from an RGB picture to normals (h, w, 3): left, up, towards the viewer.

    Raises:
        DetectorError: The weights, the package or the device cannot be had.
    """

    def build() -> Any:
        from controlnet_aux.normalbae.nets.NNET import NNET

        return NNET(SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7))

    network: Callable[[torch.Tensor], Any] = source.network("bae", build, key="model")
    device = torch_device(source.runtime.device)
    mean, deviation = (torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (MEAN, DEVIATION))

    @torch.inference_mode()
    def estimate(picture: Bytes) -> Floats:
        scale = SHORTER_SIDE / min(picture.shape[:2])
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        finest = network((batch(resized, STEP, device) / 255 - mean) / deviation)[0][-1]
        normals: Floats = finest[0, :3, :height, :width].permute(1, 2, 0).cpu().numpy()
        return normals

    return estimate
