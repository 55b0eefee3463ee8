"""How much memory does a picture take, and is the forecast right? python -m benchmarks.memory

Without weights, of a model with the shape of Stable Diffusion 1.5: the forecast for a GPU, in float16, with one
ControlNet and the settings of the preset `sd15`. With random weights, of smaller models on this machine's CPU: the
forecast against the peak resident memory of a process that draws. Linux only.
"""

import argparse
import dataclasses
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lpips
import torch
from PIL import Image

from benchmarks import sd_shapes
from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.batch.memory_estimate import MemoryEstimate
from synccontrol.canvas.flat import lay_out
from synccontrol.models import loader, registry
from synccontrol.sampling import objectives
from synccontrol.sampling.objectives import AbstractObjective, FeatureDistance
from synccontrol.spec.image_settings import PAPER
from synccontrol.spec.settings import AGAIN

WIDTHS = (2048, 8192, 32768)
HEIGHT = 512
GB = 1e9
PEAK = re.compile(r"VmHWM:\s+(\d+) kB")  # `getrusage` gives no less than the peak of the process that started this one
CONTROL = "depth"
PARTS = ("weights", "embeddings", "canvas", "sampling", "sync", "decoding", "peak")
SD15 = loader.defaults("sd15", PAPER, offline=True)  # what compares pictures, and takes the most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A picture to be drawn on the CPU, in float32."""

    write: Callable[[Path], None] | None = None  # writes the shape of a random model; None: the bundled one
    width: int  # px
    height: int  # px
    sampling: SamplingConfig
    windows: WindowConfig
    sync: SyncConfig


def _mid(folder: Path) -> None:
    sd_shapes.scaled(folder, (128, 256, 512, 512), (64, 128, 256, 256), 512)


def _small(folder: Path) -> None:
    sd_shapes.scaled(folder, (32, 64, 64, 64), (32, 64, 64, 64), 64, window=256)


def _random(write: Callable[[Path], None], width: int, height: int, batch: int = 4, **sync: Any) -> Case:
    return Case(
        write=write,
        width=width,
        height=height,
        sampling=SamplingConfig(steps=1, scheduler="ddim").complete(),
        windows=WindowConfig(batch=batch).complete(),
        sync=SyncConfig(steps=1, **sync).complete(),
    )


def _bundled(batch: int) -> Case:
    own = registry.PRESETS["tiny"].defaults
    return Case(
        width=1536,
        height=256,
        sampling=own.sampling.replace(steps=2, guidance_end=1.0),
        windows=WindowConfig(stride=16, batch=batch, weights=own.windows.weights).complete(),
        sync=own.sync.replace(weight=10.0, predict=AGAIN, adain=0.0, draft_strength=0.0),
    )


CASES = {
    "mid-size, no sync, batch 4": _random(_mid, 1024, HEIGHT, weight=0.0),
    "mid-size, x0 gradient": _random(_mid, 1024, HEIGHT, gradient="x0", objective="stlpips-vgg"),
    "mid-size, full gradient": _random(_mid, 1024, HEIGHT, gradient="full", objective="stlpips-vgg"),
    "small, full gradient": _random(_small, 384, 256, gradient="full", objective="stlpips"),
    **{f"bundled, batch {batch}": _bundled(batch) for batch in (1, 4, 64)},
}


def forecast(folder: Path, gradient: str, width: int, objective: AbstractObjective, recomputed: bool) -> MemoryEstimate:
    """Returns the forecast of one picture by a model in float16.

    Args:
        folder: of the model's configuration.
        gradient: of sync.
        width: of the canvas, px.
        objective: of sync.
        recomputed: what the autoencoder needs on the way back is computed again, not kept (gradient checkpointing).
    """
    with memory_estimate.fake_mode():
        pipe = loader.blank(str(folder), [CONTROL], [], torch.float16, offline=True)
        if recomputed:
            pipe.vae.enable_gradient_checkpointing()
        family = families.wrap(pipe)
        layout = lay_out(HEIGHT, width, family.geometry, SD15.windows)
        sync = SD15.sync.replace(gradient=gradient)
        return memory_estimate.estimate(family, layout, SD15.sampling, SD15.windows, sync, objective)


def forecasts(before: Path | None) -> Iterator[dict[str, Any]]:
    """Yields rows of the forecast of Stable Diffusion 1.5, by gradient and width, bytes; those of a checkout first."""
    objective = FeatureDistance(lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sd_shapes.sd15(folder)
        for gradient in ("full", "x0"):
            if before is not None:
                yield from _before(before, folder, gradient)
            for program, recomputed in (("now", False), ("now, decoder recomputed", True)):
                for width in WIDTHS:
                    found = forecast(folder, gradient, width, objective, recomputed)
                    parts = {part: getattr(found, part) for part in PARTS}
                    yield {"program": program, "gradient": gradient, "width": width, **parts}


def _before(checkout: Path, folder: Path, gradient: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a checkout of commit b7f881d: as it forecast them, and as they are counted today."""
    script = Path(__file__).with_name("memory_before.py")
    command = [sys.executable, "-W", "ignore", str(script), str(folder), gradient, str(HEIGHT), *map(str, WIDTHS)]
    done = subprocess.run(
        command, cwd=checkout, env={"PYTHONPATH": str(checkout)}, check=True, capture_output=True, text=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for program in ("forecast", "counted"):
        for row in rows:
            yield {"program": f"before, {program}", "gradient": gradient, "width": row["width"], **row[program]}


def draw(case: Case, folder: Path) -> dict[str, int]:
    """Returns bytes: the forecast of a case, what this process held before it drew, and its peak once it had.

    The peak is that of the whole process, so call this once in a process of its own.
    """
    if case.write is not None:
        case.write(folder)
    model = str(folder) if case.write is not None else "tiny"
    sync = case.sync if case.sync.active else None
    objective = objectives.load(case.sync.objective, offline=True) if sync is not None else None
    with memory_estimate.fake_mode():
        family = families.wrap(loader.blank(model, [CONTROL], [], torch.float32, offline=True))
        layout = lay_out(case.height, case.width, family.geometry, case.windows)
        found = memory_estimate.estimate(family, layout, case.sampling, case.windows, sync, objective)
    held = memory_estimate.resident()
    torch.manual_seed(0)  # of the random weights
    if case.write is None:
        pipe = loader.load(model, [CONTROL], offline=True)
    else:
        pipe = loader.blank(model, [CONTROL], [], torch.float32, offline=True)
        pipe.tokenizer = sd_shapes.tokenizer()
    Montage.from_pipe(pipe)(
        "hills",
        Image.linear_gradient("L").convert("RGB").resize((case.width, case.height)),
        sampling=case.sampling,
        windows=case.windows,
        sync=case.sync,
    )
    peak = int(PEAK.findall(Path("/proc/self/status").read_text(encoding="ascii"))[0]) * 1024
    return {**{part: getattr(found, part) for part in PARTS}, "grown": found.grown, "held": held, "measured": peak}


def measured(name: str) -> dict[str, Any]:
    """Returns what `draw` says of a case, in a new process; `error` is the forecast's, relative to the measured peak.

    `seconds` are CPU seconds.
    """
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "benchmarks.memory", "--draw", name]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE, text=True)
    stop = resource.getrusage(resource.RUSAGE_CHILDREN)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    row["error"] = (row["held"] + row["grown"]) / row["measured"] - 1
    row["seconds"] = stop.ru_utime + stop.ru_stime - start.ru_utime - start.ru_stime
    return {"case": name, **row}


def _gigabytes(row: dict[str, Any], keys: tuple[str, ...]) -> str:
    return " | ".join(f"{row[key] / GB:.2f}" if key in row else "" for key in keys)


def main() -> None:
    """Prints both tables, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of commit b7f881d, to be forecast as well")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="what to draw (default: all)")
    parser.add_argument("--draw", choices=list(CASES), help="draw this case in this process, and print bytes as JSON")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.draw is not None:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(draw(CASES[options.draw], Path(folder))))
        return
    parts = (*PARTS[:3], "crops", *PARTS[3:])
    rows, drawn = [], []
    print(f"| Program | Gradient | Width | {' | '.join(parts)} |")
    for row in forecasts(options.before):
        rows.append(row)
        print(f"| {row['program']} | {row['gradient']} | {row['width']} | {_gigabytes(row, parts)} |", flush=True)
    print("\n| Case | Forecast | Held before | Measured | Error | CPU seconds |")
    for name in options.cases:
        row = measured(name)
        drawn.append(row)
        sizes = _gigabytes(row, ("grown", "held", "measured"))
        print(f"| {name} | {sizes} | {row['error']:+.1%} | {row['seconds']:.0f} |", flush=True)
    if options.output is not None:
        machine = {"processor": platform.machine(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
        record = {"machine": machine, "forecasts": rows, "drawn": drawn}
        options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
