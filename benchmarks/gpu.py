"""How long does a picture take on a GPU, how much memory, and is the forecast right? python -m benchmarks.gpu

Models of the published shapes with random weights, in float16, with one ControlNet: what is drawn is noise, what is
measured is not. Per preset of settings, and for the literal published program (`tests/sampling/published.py`) beside
them: seconds (the faster of two pictures, after one of two steps) and peak memory as torch counts it. LPIPS has VGG's
shape. `--forecast` says of measured rows what was to be expected; it needs no GPU.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lpips
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import sd_shapes
from benchmarks.literal import forgetful, synthetic_map
from synccontrol import Montage, SyncConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.flat import lay_out
from synccontrol.models import loader
from synccontrol.models.presets import PresetSettings
from synccontrol.sampling.objectives import FeatureDistance
from synccontrol.spec.image_settings import DEFAULT, PAPER, PRESETS
from synccontrol.spec.settings import Geometry
from tests.sampling.published import Published, Settings, map_tensor

SHAPES = {"sd15": sd_shapes.sd15, "sdxl": sd_shapes.sdxl}
CONTROL, DEVICE = "depth", "cuda"
LITERAL, UNSYNCED = "literal", "unsynced"
GB = 1e9
SYNCED = 5  # of the steps of the literal program
PROMPT = "mountains behind a lake at sunset"


def network() -> FeatureDistance:
    """Returns LPIPS with random weights."""
    return FeatureDistance(lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False))


def pipeline(folder: Path) -> Any:
    """Returns a pipeline of random weights on the GPU."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        pipe = loader.blank(str(folder), [CONTROL], [], torch.float16, offline=True)
    for name in ("tokenizer", "tokenizer_2"):
        if name in pipe.components:
            setattr(pipe, name, sd_shapes.tokenizer())
    pipe.register_modules(controlnet=pipe.controlnet.nets[0])
    pipe.to(DEVICE)
    return pipe


def forecast(folder: Path, settings: PresetSettings, width: int, height: int) -> int:
    """Returns the bytes that a picture is said to take at its peak."""
    sync = settings.sync if settings.sync.perceptual else None
    objective = network() if sync is not None else None
    with memory_estimate.fake_mode():
        family = families.wrap(loader.blank(str(folder), [CONTROL], [], torch.float16, offline=True))
        layout = lay_out(height, width, family.geometry, settings.windows)
        return memory_estimate.estimate(family, layout, settings.sampling, settings.windows, sync, objective).peak


def literal(pipe: Any, geometry: Geometry, settings: PresetSettings, guide: Image.Image) -> Callable[[], object]:
    """Returns the literal program on the GPU, ready to draw."""
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    own = settings.sampling
    told = Settings(
        steps=own.steps,
        guidance_scale=own.guidance_scale,
        stride=settings.windows.stride,
        sync_weight=settings.sync.weight,
        sync_steps=SYNCED,
        clamp=False,
    )
    program = Published(pipe, PROMPT, "", told, forgetful(network()))
    cells = (side // geometry.cell for side in (guide.height, guide.width))
    noise = torch.randn(1, geometry.channels, *cells, generator=torch.Generator().manual_seed(0))
    crop = map_tensor(guide, torch.float16).to(DEVICE)
    return lambda: program.run(noise.half().to(DEVICE), crop)


def ours(montage: Montage, settings: PresetSettings, guide: Image.Image, steps: int) -> Callable[[], object]:
    """Returns a picture of ours, ready to draw in so many steps."""
    compare = network()

    def objective(images: Tensor, anchor: Tensor) -> Tensor:
        return compare.for_anchor(anchor)(images)

    sync = settings.sync.replace(objective=objective)
    sampling = settings.sampling.replace(steps=steps)
    return lambda: montage(PROMPT, guide, sampling=sampling, windows=settings.windows, sync=sync, seed=0)


def measure(draw: Callable[[], object], times: int) -> tuple[float, int, int]:
    """Returns seconds, the fastest of some times, and the peaks of what torch allocated and reserved, bytes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(times):
        torch.cuda.synchronize()
        start = time.perf_counter()
        draw()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def rows(name: str, width: int, methods: Sequence[str], times: int) -> Iterator[dict[str, Any]]:
    """Yields what is measured, method by method."""
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[name](Path(folder))
        pipe = pipeline(Path(folder))
        montage = Montage.from_pipe(pipe)
        geometry = montage.denoiser.geometry
        guide = synthetic_map(width, geometry.window_px[0])
        for method in methods:
            own = settings_of(name, method)
            if method == LITERAL:
                draw = literal(pipe, geometry, own, guide)
            else:
                ours(montage, own, guide, 2)()
                draw = ours(montage, own, guide, own.sampling.steps)
            seconds, allocated, reserved = measure(draw, 1 if method == LITERAL else times)
            yield {
                "card": torch.cuda.get_device_name(),
                "model": name,
                "width": width,
                "height": guide.height,
                "method": method,
                "seconds": seconds,
                "allocated": allocated / GB,
                "reserved": reserved / GB,
            }


def settings_of(model: str, method: str) -> PresetSettings:
    """Returns a method's settings."""
    own = loader.defaults(model, {LITERAL: PAPER, UNSYNCED: DEFAULT}.get(method, method), offline=True)
    return dataclasses.replace(own, sync=SyncConfig(weight=0.0).complete()) if method == UNSYNCED else own


def expected(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a measured row with what the forecast says of it, GB."""
    if row["method"] == LITERAL:
        return row
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[row["model"]](Path(folder))
        own = settings_of(row["model"], row["method"])
        return row | {"forecast": forecast(Path(folder), own, row["width"], row["height"]) / GB}


def main() -> None:
    """Prints a table, and writes it as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="sd15", help="default: sd15")
    parser.add_argument("--width", type=int, default=2048, help="px (default: 2048)")
    parser.add_argument("--methods", nargs="+", default=[LITERAL, UNSYNCED, *PRESETS], help="default: all")
    parser.add_argument("--times", type=int, default=2, help="the fastest counts (default: 2)")
    parser.add_argument("--forecast", action="store_true", help="of the rows of --output, which are written anew")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines, to which rows are added")
    options = parser.parse_args()
    found: Iterable[dict[str, Any]]
    if options.forecast:
        found = map(expected, [json.loads(line) for line in options.output.read_text().splitlines()])
    else:
        found = rows(options.model, options.width, options.methods, options.times)
    print("| Model, size | Method | Seconds | Allocated, GB | Reserved, GB | Forecast, GB |")
    lines = []
    for row in found:
        figures = [f"{row[key]:.2f}" if key in row else "" for key in ("seconds", "allocated", "reserved", "forecast")]
        size = f"{row['model']}, {row['width']}x{row['height']}"
        print(f"| {size} | {row['method']} | {' | '.join(figures)} |", flush=True)
        lines.append(json.dumps(row) + "\n")
        if not options.forecast:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(lines[-1])
    if options.forecast:
        options.output.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
