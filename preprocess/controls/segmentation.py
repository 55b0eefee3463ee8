"""Segmentation: what everything is, each of ADE20K's 150 classes in its colour."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from synccontrol.preprocess.control import ControlType, Detector, NoOptions, Runtime
from synccontrol.preprocess.controls.depth import HUB_ID
from synccontrol.preprocess.errors import OptionError
from synccontrol.preprocess.wide.views import wrapped

HUB_IDS = {
    "upernet": "openmmlab/upernet-convnext-small",
    "oneformer": "shi-labs/oneformer_ade20k_swin_large",
    "segformer": "nvidia/segformer-b0-finetuned-ade-512-512",
}
HINT = "name a folder with a segmentation model"


def _transformers(model: str, options: NoOptions, runtime: Runtime) -> Detector:
    from synccontrol.preprocess.estimators.transformers_models import ADE20K, TransformersSegmentation

    estimate = TransformersSegmentation(model, runtime, HINT)

    def coloured(guide: Image.Image) -> Image.Image:
        margin = min(guide.size) if runtime.loop else 0
        classes = estimate(wrapped(np.asarray(guide), margin))[:, margin : margin + guide.width]
        return Image.fromarray(ADE20K[classes])

    return coloured


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
    closes_rings=True,  # where its two ends are seen differently, a mixture of two colours would be a third class
    outside=None,
)
