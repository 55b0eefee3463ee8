"""The 150 colours of ADE20K's classes, in the classes' order, as segmentation ControlNets were shown them.

Source: the colour coding that comes with the scene parsing benchmark of ADE20K (Zhou et al., 2017), `color150`.
"""

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
        network, values = fetch(lambda local: _load_depth(model, local), model, runtime)
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


def _load_depth(model: str, local_files_only: bool) -> tuple[Any, dict[str, Any]]:
    """Returns the network and the values of its image processor."""
    network = AutoModelForDepthEstimation.from_pretrained(model, local_files_only=local_files_only)
    processor = AutoImageProcessor.from_pretrained(model, local_files_only=local_files_only)
    return network, processor.to_dict()


Classes = npt.NDArray[np.int64]

SHORTER_SIDE = 512  # px at which models look at a picture whose processors name no size
STEP = 32  # px: both sides are fitted to multiples of it
QUERY_KINDS = ("mask2former", "maskformer", "oneformer")  # predict masks and what is in each
SQUARE_KINDS = ("beit", "data2vec-vision", "dpt")  # take nothing but the square they were trained on
TASK = "the task is semantic"  # what a OneFormer is told
GROUP = 8  # classes enlarged at a time


class TransformersSegmentation:
    """Says what every pixel of a picture shows, with a segmentation model of transformers trained on ADE20K.

    The picture's shorter side is fitted to the size the model was trained at and its aspect is kept: the models' own
    processors squash wide pictures to a square.
    """

    def __init__(self, model: str, runtime: Runtime, hint: str) -> None:
        self.device = torch_device(runtime.device)
        network, self.processor, self.task = fetch(lambda local: _load_segmentation(model, local), model, runtime, hint)
        self.network = network.to(self.device).eval()
        classes = self.network.config.num_labels
        if classes != len(ADE20K):
            raise DetectorError(
                f"'{model}' knows {classes} classes, not the {len(ADE20K)} of ADE20K whose colours ControlNets were "
                f"shown; use a model trained on ADE20K"
            )

    @torch.inference_mode()
    def __call__(self, picture: Bytes) -> Classes:
        """Returns the class (H, W) of every pixel of an RGB picture (H, W, 3): 0..149, ADE20K's in their order."""
        height, width = self._size(*picture.shape[:2])
        shrinks = height * width < picture.shape[0] * picture.shape[1]
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        pixels = self.processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
        scores = self._scores(pixels.to(self.device))
        return most_likely(scores, picture.shape[0], picture.shape[1]).cpu().numpy()

    def _scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the scores (classes, h, w) of a picture (1, 3, H, W)."""
        if self.network.config.model_type not in QUERY_KINDS:
            logits: torch.Tensor = self.network(pixel_values=pixels).logits[0]
            return logits
        told = {} if self.task is None else {"task_inputs": self.task.to(self.device)}
        output = self.network(pixel_values=pixels, **told)
        meaning = output.class_queries_logits[0].softmax(dim=-1)[:, :-1]  # the last class is "nothing"
        return torch.einsum("qc,qhw->chw", meaning, output.masks_queries_logits[0].sigmoid())

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width at which a picture is shown to the network."""
        size = dict(self.processor.size)
        native = size.get("shortest_edge") or size.get("height") or SHORTER_SIDE
        if self.network.config.model_type in SQUARE_KINDS:
            return native, native
        scale = native / min(height, width)
        fitted = [max(STEP, round(side * scale / STEP) * STEP) for side in (height, width)]
        return fitted[0], fitted[1]


def most_likely(scores: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Returns the class (height, width) of the highest score; scores (classes, h, w) are enlarged few at a time."""
    best = torch.full((height, width), -torch.inf, device=scores.device)
    found = torch.zeros((height, width), dtype=torch.int64, device=scores.device)
    for first in range(0, len(scores), GROUP):
        group = scores[first : first + GROUP].float()
        top, index = functional.interpolate(group[None], (height, width), mode="bilinear")[0].max(dim=0)
        found = torch.where(top > best, index + first, found)
        best = torch.maximum(best, top)
    return found


def _load_segmentation(model: str, local_files_only: bool) -> tuple[Any, Any, torch.Tensor | None]:
    """Returns the network, its image processor, and the tokens of its task, which only a OneFormer has."""
    places = {"pretrained_model_name_or_path": model, "local_files_only": local_files_only}
    kind = transformers.AutoConfig.from_pretrained(**places).model_type
    queries = kind in QUERY_KINDS
    auto = transformers.AutoModelForUniversalSegmentation if queries else transformers.AutoModelForSemanticSegmentation
    network = auto.from_pretrained(**places)
    if kind != "oneformer":
        return network, transformers.AutoImageProcessor.from_pretrained(**places), None
    processor = transformers.Mask2FormerImageProcessor.from_pretrained(
        **places
    )  # OneFormer's own asks the hub for more
    length = network.config.task_seq_len
    told = transformers.AutoTokenizer.from_pretrained(**places)(
        TASK, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return network, processor, told["input_ids"] * told["attention_mask"]
