"""The executors of the page, whose images record no folders of this machine, and JPEG previews."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from synccontrol.batch import executor
from synccontrol.batch.executor import AbstractExecutor, LocalExecutor, RayExecutor
from synccontrol.batch.model_request import AUTO
from synccontrol.spec.image_spec import SINGLE
from synccontrol.studio import form_values

PREVIEW_SIZE = (512, 4096)  # px, largest height and width of a preview
QUALITY = 85  # of JPEG


def jpeg(image: Image.Image) -> str:
    """Return a preview of an image as a data URL."""
    small = image.convert("RGB")
    small.thumbnail(PREVIEW_SIZE[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


MODELS = 2  # loaded models, so that changing between two controls loads nothing


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose files are named without their folders."""
    named = {
        **form_values.with_short_names(settings),
        **{name: Path(settings[name]).name for name in SINGLE if isinstance(settings.get(name), str)},
    }
    return {**named, "control_map": [Path(path).name for path in settings["control_map"]]}


def local() -> AbstractExecutor:
    """Return the executor of this process."""
    return LocalExecutor(MODELS, without_paths)


def remote(workers: int, address: str, device: str = AUTO) -> list[AbstractExecutor]:
    """Return executors of one worker of Ray each, all of one cluster. Raises `ConfigError` as `RayExecutor`."""
    ray = executor.connect_ray(workers, address)
    executors: list[AbstractExecutor] = [
        RayExecutor(1, device=device, models=MODELS, recorded=without_paths, encode=jpeg, ray=ray)
        for _ in range(workers)
    ]
    return executors
