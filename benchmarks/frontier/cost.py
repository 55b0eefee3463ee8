"""What pictures cost by arithmetic: floating-point operations and memory, on networks that have shapes and no data.

    python -m benchmarks.frontier.cost --output benchmarks/frontier/cost.json

The literal published program (`tests/sampling/published.py`) and our presets are counted from the same parts, so that
ratios are those of methods. Operations of text encoders are left out, and so is the decoding of the finished picture,
which is the same for all; that of a rough picture is counted, and so is the encoding of what is drawn over. A
multiplication and an addition are two operations.
"""

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lpips
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flow_shapes, sd_shapes
from synccontrol import families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import lay_out
from synccontrol.families.base import AbstractFamily, Crops, WindowCondition
from synccontrol.families.checkpoints import default_dtype
from synccontrol.models import loader
from synccontrol.models.presets import PresetSettings
from synccontrol.pipeline.stages import plan_stages
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.objectives import AbstractObjective, FeatureDistance
from synccontrol.sampling.sync import Sync, SyncNetworks
from synccontrol.spec.image_settings import DEFAULT, PAPER, PRESETS
from synccontrol.spec.image_spec import ImageSpec
from synccontrol.spec.settings import Geometry, Size, SyncConfig

SHAPES: dict[str, Callable[[Path], None]] = {
    "sd15": sd_shapes.sd15,
    "sdxl": sd_shapes.sdxl,
    "z-image": flow_shapes.z_image,
}
WIDTHS = (2048, 8192, 32768)  # px; the height is one window
CONTROL = "depth"
UNSYNCED = f"{DEFAULT} without sync"
COMPARED = f"{DEFAULT}, and the objective in 3 steps"
SMALL = f"{COMPARED}, small decoder"
TERA, GB = 1e12, 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Operations of the parts of a picture."""

    look: int  # one window predicted with its ControlNet, guided where there is guidance
    bare: int  # the same without guidance
    anchor: int  # what the objective takes once a step
    window: int  # what it takes for each window but the anchor, beyond a look
    decode: int  # the picture of one window, decoded
    encode: int  # and encoded


def count(
    family: AbstractFamily, layout: AbstractLayout, settings: PresetSettings, objective: AbstractObjective | None = None
) -> Work:
    """Returns the operations of the parts, without an objective those where nothing is compared.

    Call it under `footprint.fake()`, with a family around a blank pipeline.
    """
    h, w = family.geometry.window_px
    z = torch.zeros(3, family.geometry.channels, *layout.window, dtype=family.canvas_dtype)
    blank = family.blank_prompt()
    views = [WindowCondition(window=window, prompt=blank, negative_prompt=blank) for window in range(len(z))]
    crops: list[Crops] = [lambda some: torch.zeros(len(some), 3, h, w)] * family.controls
    networks = SyncNetworks(decode=family.decode_preview, encode=family.encode, kind="epsilon")
    sync = Sync(settings.sync.replace(adain=0.0), objective, 0, networks, BatchedPredictor(1, str))
    with family.session():
        predict = family.condition(views, crops, settings.sampling, settings.sampling.steps, str)

        def now(some: Tensor, windows: Sequence[int]) -> Tensor:
            return predict(some, memory_estimate.LEVEL, windows)

        with torch.no_grad():
            now(z, range(len(z)))  # what is computed once a picture: embeddings of control maps
            look = _counted(lambda: now(z[:1], [0]))
            unguided = settings.sampling.replace(guidance_scale=1.0)
            alone = family.condition(views, crops, unguided, unguided.steps, str)
            alone(z, memory_estimate.LEVEL, range(len(z)))
            bare = _counted(lambda: alone(z[:1], memory_estimate.LEVEL, [0]))
            decode = _counted(lambda: family.decode(z[:1]))
            encode = _counted(lambda: family.encode(torch.zeros(1, 3, h, w, dtype=family.canvas_dtype)))
        alike = {"look": look, "bare": bare, "decode": decode, "encode": encode}
        if not settings.sync.perceptual:
            return Work(**alike, anchor=0, window=0)
        two = _counted(lambda: sync.nudge(z[:2], memory_estimate.LEVEL, now))
        three = _counted(lambda: sync.nudge(z, memory_estimate.LEVEL, now))
    return Work(**alike, anchor=2 * two - three - look, window=three - two - look)


def of_ours(work: Work, geometry: Geometry, size: Size, settings: PresetSettings) -> int:
    """Returns the operations of a picture of ours, in all its passes."""
    (height, width), (h, w), total, before = size, geometry.window_px, 0.0, 0
    sampling, windows, sync = settings.sampling, settings.windows, settings.sync
    picture = ImageSpec(prompt="", height=height, width=width, sampling=sampling, windows=windows, sync=sync)
    for one in plan_stages(picture, size, geometry, has_init_image=False):
        n = len(lay_out(*one.size, geometry, windows))
        total += before / (h * w) * work.decode + (n * work.encode if one.img2img else 0)
        left, count = one.sync.later(0 if one.restarts_sync else one.skipped), one.sampling.steps - one.skipped
        for step in range(count):
            look = work.look if one.sampling.guided(step, count) else work.bare
            total += (n + (n - 1) * left.extra_evaluations(step)) * look
            total += left.due(step) * (work.anchor + (n - 1) * work.window)
        before = math.prod(one.size)
    return round(total)


def of_literal(work: Work, layout: AbstractLayout, steps: int, synced: int) -> int:
    """Returns the operations of the literal program: in synced steps the anchor is looked at first, then every window,
    itself too, is compared, differentiated and predicted again.

    Args:
        work: of the full gradient.
        layout: the windows.
        steps: denoising steps.
        synced: how many of them are.
    """
    n = len(layout)
    return n * steps * work.look + synced * (work.look + work.anchor + n * (work.look + work.window))


def _counted(call: Callable[[], object]) -> int:
    with memory_estimate.Live(), FlopCounterMode(display=False) as counter:
        call()
    total: int = counter.get_total_flops()
    return total


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Yields the cost of every method by a model's shape, width by width."""
    objective = FeatureDistance(lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False))
    with tempfile.TemporaryDirectory() as folder, memory_estimate.fake_mode():
        SHAPES[name](Path(folder))
        family = families.wrap(loader.blank(folder, [CONTROL], [], loader.half_dtype(name), offline=True))
        presets = {preset: loader.defaults(name, preset, offline=True) for preset in PRESETS}
        paper, steps = presets[PAPER], presets[PAPER].sampling.steps
        work, first = _work(family, paper, objective), dict[int, int]()
        for width in WIDTHS:
            windows = _lay_out(family, width, paper)
            first[width] = of_literal(work, windows, steps, 5)
            for synced in (0, 5, 10, steps):
                method, operations = f"literal, {synced} of {steps} synced", of_literal(work, windows, steps, synced)
                yield _row(name, method, width, family, operations, first[width])
        height, default = family.geometry.window_px[0], presets[DEFAULT]
        compared = dataclasses.replace(default, sync=default.sync.replace(weight=10.0, steps=3))
        unsynced = dataclasses.replace(default, sync=SyncConfig(weight=0.0).complete())
        for method, own in (*presets.items(), (UNSYNCED, unsynced), (COMPARED, compared), (SMALL, compared)):
            if method == SMALL:
                with default_dtype(family.dtype):  # of TAESD's shape, which is diffusers' own
                    family.tiny_vae = AutoencoderTiny(latent_channels=family.geometry.channels)
            work = _work(family, own, objective)
            for width in WIDTHS:
                layout = _lay_out(family, width, own)
                sync: SyncConfig | None = own.sync if own.sync.perceptual else None
                found = memory_estimate.estimate(family, layout, own.sampling, own.windows, sync, objective)
                row = _row(
                    name, method, width, family, of_ours(work, family.geometry, (height, width), own), first[width]
                )
                yield {**row, "gb": found.peak / GB}


def _work(family: AbstractFamily, settings: PresetSettings, objective: AbstractObjective) -> Work:
    return count(family, _lay_out(family, WIDTHS[0], settings), settings, objective)


def _lay_out(family: AbstractFamily, width: int, settings: PresetSettings) -> AbstractLayout:
    return lay_out(family.geometry.window_px[0], width, family.geometry, settings.windows)


def _row(model: str, method: str, width: int, family: AbstractFamily, operations: int, first: int) -> dict[str, Any]:
    size = {"model": model, "width": width, "height": family.geometry.window_px[0]}
    return {**size, "method": method, "tflop": operations / TERA, "cheaper": first / operations}


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES), help="default: all")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    found = []
    print("| Model, size | Method | TFLOP | Cheaper than literal, 5 synced | Memory, GB |\n|---|---|---|---|---|")
    for name in options.models:
        for row in rows(name):
            found.append(row)
            memory = f"{row['gb']:.1f}" if "gb" in row else ""
            print(
                f"| {name}, {row['width']}x{row['height']} | {row['method']} | {row['tflop']:.0f} | "
                f"{row['cheaper']:.2f} | {memory} |",
                flush=True,
            )
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
