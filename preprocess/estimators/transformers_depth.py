"""Depth by any depth model of transformers: Depth Anything, DPT, ZoeDepth, DepthPro, GLPN, ..."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from preprocess.control import Runtime
from preprocess.errors import DetectorError
from preprocess.estimators.device import torch_device
from preprocess.estimators.weights import fetch

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

DISTANCE_KINDS = ("glpn", "tipsv2_dpt", "zoedepth")  # predict metres
NEARNESS_KINDS = ("depth_pro",)  # its raw prediction is inverse depth; only transformers' post-processing inverts it
METRIC_FLAG_KINDS = ("depth_anything", "prompt_depth_anything")  # metres or inverse depth, as their config says
METRIC_DPT_BACKBONES = ("dinov2",)  # the DPT heads on DINOv2 predict metres, all others inverse depth
UNSIZED_SIDE = 480  # px, for models whose processor names no size: the height of GLPN's training pictures
NEAREST_PERCENT = 1.0  # of the pixels may be nearer than what counts as nearest; single pixels must not set the scale


class TransformersDepth:
    """Estimates how near everything in a picture is, with a depth model of transformers.

    The picture's shorter side is fitted to the height the model was trained at and its aspect is kept: the models'
    own processors squash wide pictures. Models that take one square size only see the picture squashed to it.

    Attributes:
        side: The height that the model was trained at, px.
    """

    def __init__(self, model: str, runtime: Runtime, output: str) -> None:
        self.device = torch_device(runtime.device)
        network, values = fetch(lambda local: _load(model, local), model, runtime)
        self.network = network.to(self.device).eval()
        self.values = values
        self.side = int((values.get("size") or {}).get("height", UNSIZED_SIDE))
        self.gives_distance = gives_distance(network.config, model) if output == "auto" else output == "distance"

    @torch.inference_mode()
    def __call__(self, picture: Bytes) -> Floats:
        """Returns nearness (h, w), of no fixed scale, for an RGB picture (H, W, 3)."""
        height, width = self._size(*picture.shape[:2])
        shrinks = height * width < picture.shape[0] * picture.shape[1]
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        pixels = resized.astype(np.float32)
        if self.values["do_rescale"]:
            pixels *= self.values["rescale_factor"]
        if self.values.get("do_normalize"):
            mean, deviation = (np.float32(self.values[name]) for name in ("image_mean", "image_std"))
            pixels = (pixels - mean) / deviation
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        predicted = self.network(pixel_values=batch).predicted_depth[0]
        found: Floats = predicted.float().cpu().numpy()
        return inverted(found) if self.gives_distance else found

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width at which a picture is shown to the network."""
        size = self.values.get("size") or {}
        if _is_square_only(self.network.config):
            return size["height"], size["width"]
        scale = size["height"] / min(height, width) if "height" in size else 1.0
        step = self.values.get("ensure_multiple_of") or self.values.get("size_divisor") or 1
        step = math.lcm(int(step), self.network.config.to_dict().get("patch_size") or 1)
        fitted = [max(step, round(side * scale / step) * step) for side in (height, width)]
        return fitted[0], fitted[1]


def gives_distance(config: Any, model: str) -> bool:
    """Returns whether the numbers of a depth model are distances (larger is farther) and not nearness.

    Args:
        config: The model's transformers config.
        model: Its name, for messages.

    Raises:
        DetectorError: The meaning of this kind of model's numbers is not known.
    """
    kind = config.model_type
    if kind in METRIC_FLAG_KINDS:
        return bool(config.depth_estimation_type == "metric")
    if kind == "dpt":
        return config.backbone_config is not None and config.backbone_config.model_type in METRIC_DPT_BACKBONES
    if kind in DISTANCE_KINDS or kind in NEARNESS_KINDS:
        return kind in DISTANCE_KINDS
    raise DetectorError(
        f"'{model}' is a {kind} model, and whether its large numbers are near or far is not known; "
        "say output='nearness' or output='distance'"
    )


def inverted(distance: Floats) -> Floats:
    """Returns the nearness 1 / distance, of which the nearest percent of the pixels is one value."""
    nearest = max(float(np.percentile(distance, NEAREST_PERCENT)), float(np.finfo(np.float32).tiny))
    return np.asarray(1 / np.maximum(distance, nearest), np.float32)


def _is_square_only(config: Any) -> bool:
    """Returns whether the network takes nothing but the square it was trained on: DepthPro, DPT on its own ViT."""
    return config.model_type == "depth_pro" or (
        config.model_type == "dpt" and (config.is_hybrid or config.backbone_config is None)
    )


def _load(model: str, local_files_only: bool) -> tuple[Any, dict[str, Any]]:
    """Returns the network and the values of its image processor."""
    network = AutoModelForDepthEstimation.from_pretrained(model, local_files_only=local_files_only)
    processor = AutoImageProcessor.from_pretrained(model, local_files_only=local_files_only)
    return network, processor.to_dict()
