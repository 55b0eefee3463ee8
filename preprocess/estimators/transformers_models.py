"""Depth and segmentation models of transformers, applied to wide images."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from synccontrol.preprocess.control import Runtime
from synccontrol.preprocess.errors import DetectorError
from synccontrol.preprocess.estimators.checkpoints import fetch, torch_device

# The colours of the 150 classes of ADE20K, in their order, as in the training of segmentation ControlNets. Source: the
# colour coding `color150` of the scene parsing benchmark (Zhou et al., 2017).
_HEX = """
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33
ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff
eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad
0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa
8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff
00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
"""

ADE20K: npt.NDArray[np.uint8] = np.frombuffer(bytes.fromhex(_HEX), np.uint8).reshape(-1, 3)  # (classes, RGB)


Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

DISTANCE_KINDS = ("glpn", "tipsv2_dpt", "zoedepth")  # predict metres
NEARNESS_KINDS = ("depth_pro",)  # predicts inverse depth, which only the post-processing of transformers inverts
METRIC_FLAG_KINDS = ("depth_anything", "prompt_depth_anything")  # metres or inverse depth, depending on their config
METRIC_DPT_BACKBONES = ("dinov2",)  # DPT predicts metres on DINOv2, and inverse depth on other backbones
UNSIZED_SIDE = 480  # px, for processors without a size: the height of the training images of GLPN
NEAREST_PERCENT = 1.0  # of the pixels are clipped to the nearest value, so that single pixels do not set the scale


class TransformersDepth:
    """Estimate the nearness of every pixel with a depth model of transformers.

    The image is scaled so that its shorter side has the height of the training images; its aspect ratio is preserved,
    unlike in the processors of the models. For models with a fixed square input the image is squashed to a square.

    Attributes:
        side: the height of the training images, px.
    """

    def __init__(self, model: str, runtime: Runtime, output: str) -> None:
        self.device = torch_device(runtime.device)
        network, values = fetch(lambda local: _load_depth(model, local), model, runtime)
        self.network = network.to(self.device).eval()
        self.values = values
        self.side = int((values.get("size") or {}).get("height", UNSIZED_SIDE))
        self.gives_distance = gives_distance(network.config, model) if output == "auto" else output == "distance"

    @torch.inference_mode()
    def __call__(self, image: Bytes) -> Floats:
        """Return nearness (h, w), in any scale, of an RGB image (H, W, 3)."""
        height, width = self._size(*image.shape[:2])
        shrinks = height * width < image.shape[0] * image.shape[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        pixels = resized.astype(np.float32)
        if self.values["do_rescale"]:
            pixels *= self.values["rescale_factor"]
        if self.values.get("do_normalize"):
            mean, deviation = (np.float32(self.values[name]) for name in ("image_mean", "image_std"))
            pixels = (pixels - mean) / deviation
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        predicted = self.network(pixel_values=batch).predicted_depth[0]
        values: Floats = predicted.float().cpu().numpy()
        return invert_distance(values) if self.gives_distance else values

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the network's input for an image."""
        size = self.values.get("size") or {}
        if _is_square_only(self.network.config):
            return size["height"], size["width"]
        scale = size["height"] / min(height, width) if "height" in size else 1.0
        step = self.values.get("ensure_multiple_of") or self.values.get("size_divisor") or 1
        step = math.lcm(int(step), self.network.config.to_dict().get("patch_size") or 1)
        fitted = [max(step, round(side * scale / step) * step) for side in (height, width)]
        return fitted[0], fitted[1]


def gives_distance(config: Any, model: str) -> bool:
    """Return whether the values of a depth model are distances (larger is farther) and not nearness.

    Args:
        config: the transformers config of the model.
        model: its name, for messages.

    Raises:
        DetectorError: the meaning of the values is not known for this type of model.
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


def invert_distance(distance: Floats) -> Floats:
    """Return the nearness 1 / distance, clipped at the nearest percent of the pixels."""
    nearest = max(float(np.percentile(distance, NEAREST_PERCENT)), float(np.finfo(np.float32).tiny))
    return np.asarray(1 / np.maximum(distance, nearest), np.float32)


def _is_square_only(config: Any) -> bool:
    """Return whether the network has a fixed square input: DepthPro, and DPT with its own ViT."""
    return config.model_type == "depth_pro" or (
        config.model_type == "dpt" and (config.is_hybrid or config.backbone_config is None)
    )


def _load_depth(model: str, local_files_only: bool) -> tuple[Any, dict[str, Any]]:
    """Return the network and the settings of its image processor."""
    network = AutoModelForDepthEstimation.from_pretrained(model, local_files_only=local_files_only)
    processor = AutoImageProcessor.from_pretrained(model, local_files_only=local_files_only)
    return network, processor.to_dict()


Classes = npt.NDArray[np.int64]

SHORTER_SIDE = 512  # px, for processors without a size
STEP = 32  # px; both sides are rounded to multiples
QUERY_KINDS = ("mask2former", "maskformer", "oneformer")  # predict masks and their classes
SQUARE_KINDS = ("beit", "data2vec-vision", "dpt")  # have a fixed square input
TASK = "the task is semantic"  # the task prompt of OneFormer
GROUP = 8  # classes that are upsampled at once


class TransformersSegmentation:
    """Classify every pixel of an image with a segmentation model of transformers, trained on ADE20K.

    The image is scaled so that its shorter side has the size of the training images; its aspect ratio is preserved,
    unlike in the processors of the models, which squash wide images to a square.
    """

    def __init__(self, model: str, runtime: Runtime, hint: str) -> None:
        self.device = torch_device(runtime.device)
        network, self.processor, self.task = fetch(lambda local: _load_segmentation(model, local), model, runtime, hint)
        self.network = network.to(self.device).eval()
        classes = self.network.config.num_labels
        if classes != len(ADE20K):
            raise DetectorError(
                f"'{model}' knows {classes} classes, not the {len(ADE20K)} of ADE20K that ControlNets were "
                f"trained with; use a model trained on ADE20K"
            )

    @torch.inference_mode()
    def __call__(self, image: Bytes) -> Classes:
        """Return the ADE20K class (H, W), 0..149, of every pixel of an RGB image (H, W, 3)."""
        height, width = self._size(*image.shape[:2])
        shrinks = height * width < image.shape[0] * image.shape[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        pixels = self.processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
        scores = self._scores(pixels.to(self.device))
        return most_likely(scores, image.shape[0], image.shape[1]).cpu().numpy()

    def _scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the scores (classes, h, w) of an image (1, 3, H, W)."""
        if self.network.config.model_type not in QUERY_KINDS:
            logits: torch.Tensor = self.network(pixel_values=pixels).logits[0]
            return logits
        task_inputs = {} if self.task is None else {"task_inputs": self.task.to(self.device)}
        output = self.network(pixel_values=pixels, **task_inputs)
        class_scores = output.class_queries_logits[0].softmax(dim=-1)[:, :-1]  # the last class is "no object"
        return torch.einsum("qc,qhw->chw", class_scores, output.masks_queries_logits[0].sigmoid())

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the network's input for an image."""
        size = dict(self.processor.size)
        native = size.get("shortest_edge") or size.get("height") or SHORTER_SIDE
        if self.network.config.model_type in SQUARE_KINDS:
            return native, native
        scale = native / min(height, width)
        fitted = [max(STEP, round(side * scale / STEP) * STEP) for side in (height, width)]
        return fitted[0], fitted[1]


def most_likely(scores: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the class (height, width) of the highest score; scores (classes, h, w) are upsampled in groups."""
    best = torch.full((height, width), -torch.inf, device=scores.device)
    classes = torch.zeros((height, width), dtype=torch.int64, device=scores.device)
    for first in range(0, len(scores), GROUP):
        group = scores[first : first + GROUP].float()
        top, index = functional.interpolate(group[None], (height, width), mode="bilinear")[0].max(dim=0)
        classes = torch.where(top > best, index + first, classes)
        best = torch.maximum(best, top)
    return classes


def _load_segmentation(model: str, local_files_only: bool) -> tuple[Any, Any, torch.Tensor | None]:
    """Return the network, its image processor, and the tokens of its task, which only OneFormer has."""
    source = {"pretrained_model_name_or_path": model, "local_files_only": local_files_only}
    kind = transformers.AutoConfig.from_pretrained(**source).model_type
    has_queries = kind in QUERY_KINDS
    auto = (
        transformers.AutoModelForUniversalSegmentation if has_queries else transformers.AutoModelForSemanticSegmentation
    )
    network = auto.from_pretrained(**source)
    if kind != "oneformer":
        return network, transformers.AutoImageProcessor.from_pretrained(**source), None
    processor = transformers.Mask2FormerImageProcessor.from_pretrained(
        **source
    )  # the processor of OneFormer needs more files from the hub
    length = network.config.task_seq_len
    tokens = transformers.AutoTokenizer.from_pretrained(**source)(
        TASK, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return network, processor, tokens["input_ids"] * tokens["attention_mask"]
