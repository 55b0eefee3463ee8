"""What would a picture of 4096x1024 px take by every preset? python -m benchmarks.preset_forecasts

Forecasts for a GPU, in 16 bits, with one ControlNet and the preset's own settings: nothing is measured. The networks
have the published shapes and no weights; the bundled model has its own.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import flow_shapes, sd_shapes
from benchmarks.frontier import cost
from synccontrol import families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import lay_out
from synccontrol.families.base import AbstractFamily
from synccontrol.models import devices, loader, registry
from synccontrol.models.presets import PresetSettings
from synccontrol.spec.settings import record

HEIGHT, WIDTH = 1024, 4096  # px
CONTROL = "depth"
GB, TERA = 1e9, 1e12

SHAPES: dict[str, Callable[[Path], None]] = {
    "sd15": sd_shapes.sd15,
    "sd21": lambda folder: sd_shapes.sd21(folder, 512),
    "sd21-768": lambda folder: sd_shapes.sd21(folder, 768),
    "sdxl": sd_shapes.sdxl,
    "z-image": flow_shapes.z_image,
    "z-image-turbo": flow_shapes.z_image,
    "qwen-image": flow_shapes.qwen_image,
}


def settings(name: str) -> dict[str, Any]:
    """Returns the settings that a forecast is made with, by flag."""
    own = registry.PRESETS[name].defaults
    return record(own.sampling, own.windows, own.sync)


def forecast(name: str, folder: Path) -> dict[str, float]:
    """Returns the forecast of a preset: GB by part, the parameters of its denoiser, and PFLOP of a picture.

    Args:
        name: of the preset.
        folder: with its configuration.
    """
    own = registry.PRESETS[name].defaults
    dtype = torch.float32 if name == "tiny" else loader.half_dtype(name)
    with memory_estimate.fake_mode():
        pipe = loader.blank(str(folder), [CONTROL], [], dtype, offline=True)
        family = families.wrap(pipe)
        layout = lay_out(HEIGHT, WIDTH, family.geometry, own.windows)
        found = memory_estimate.estimate(
            family, layout, own.sampling, own.windows, None, None
        )  # statistics take no network
        work = _flop(family, layout, own)
    denoiser: nn.Module = pipe.components.get("unet") or pipe.components["transformer"]
    return {
        "windows": len(layout),
        "denoiser_parameters": sum(weight.numel() for weight in denoiser.parameters()),
        "weights_gb": found.weights / GB,
        "sampling_gb": found.sampling / GB,
        "sync_gb": found.sync / GB,
        "decoding_gb": found.decoding / GB,
        "peak_gb": found.peak / GB,
        **{f"peak_gb_offload_{how}": found.offloaded(how).peak / GB for how in devices.OFFLOADS[1:]},
        "tflop": work / TERA,
    }


def _flop(family: AbstractFamily, layout: AbstractLayout, own: PresetSettings) -> float:
    """Returns the floating-point operations of a picture in all its passes, those of the text encoders left out."""
    work = cost.count(family, layout, own)
    decoding = work.decode * HEIGHT * WIDTH / math.prod(family.geometry.window_px)
    return cost.of_ours(work, family.geometry, (HEIGHT, WIDTH), own) + decoding


def forecasts() -> Iterator[tuple[str, dict[str, float]]]:
    """Yields every preset with its forecast."""
    for name in registry.PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            if name in SHAPES:
                SHAPES[name](Path(folder))
            yield name, forecast(name, Path(folder) if name in SHAPES else registry.BUNDLED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for name, row in forecasts():
        found[name] = {key: round(value, 2) for key, value in row.items()}
        print(name, found[name], flush=True)
        found[name]["settings"] = settings(name)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
