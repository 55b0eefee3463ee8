"""Segmentation maps: the 150 classes of ADE20K in their colours."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, NoOptions, Runtime
from synccontrol.preprocess.controls.depth import HUB_ID
from synccontrol.preprocess.errors import OptionError
from synccontrol.preprocess.wide.views import wrap_ring

HUB_IDS = {
    "upernet": "openmmlab/upernet-convnext-small",
    "oneformer": "shi-labs/oneformer_ade20k_swin_large",
    "segformer": "nvidia/segformer-b0-finetuned-ade-512-512",
}
HINT = "name a folder with a segmentation model"


def _transformers(model: str, options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.transformers_models import ADE20K, TransformersSegmentation

    estimate = TransformersSegmentation(model, runtime, HINT)

    def segmentation_map(guide: Image.Image) -> Image.Image:
        margin = min(guide.size) if runtime.loop else 0
        classes = estimate(wrap_ring(np.asarray(guide), margin))[:, margin : margin + guide.width]
        return Image.fromarray(ADE20K[classes])

    return segmentation_map


def _from_id(model: str, options: NoOptions, runtime: Runtime) -> Detector:
    if not Path(model).is_dir() and not re.fullmatch(HUB_ID, model):
        raise OptionError(f"there is no folder '{model}' with a segmentation model; name a folder, or owner/name")
    return _transformers(model, options, runtime)


def _hub(name: str) -> Callable[[NoOptions, Runtime], Detector]:
    return lambda options, runtime: _transformers(HUB_IDS[name], options, runtime)


CONTROL = ControlType(
    options=NoOptions,
    detectors={name: _hub(name) for name in HUB_IDS},
    default="upernet",
    from_id=_from_id,
    closes_rings=True,  # a blend of the colours of two classes would be a third class
    outside=None,
)
