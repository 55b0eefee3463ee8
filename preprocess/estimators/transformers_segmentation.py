"""Classes of ADE20K by a segmentation model of transformers: UperNet, SegFormer, Mask2Former, OneFormer, ..."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch.nn import functional

from preprocess.control import Runtime
from preprocess.errors import DetectorError
from preprocess.estimators.device import torch_device
from preprocess.estimators.palette import ADE20K
from preprocess.estimators.weights import fetch

Bytes = npt.NDArray[np.uint8]
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
        network, self.processor, self.task = fetch(lambda local: _load(model, local), model, runtime, hint)
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


def _load(model: str, local_files_only: bool) -> tuple[Any, Any, torch.Tensor | None]:
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
