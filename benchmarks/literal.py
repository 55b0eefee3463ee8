"""Times the published algorithm, written literally, against `Montage`, lever by lever, in one run on one machine.

Run it from the root of the repository: `python -m benchmarks.literal --output benchmarks/literal.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.sampling import objectives
from tests.sampling.published import Objective, Published, Settings, map_tensor

PROMPT = "mountains behind a lake at sunset"
BATCHES = (1, 4, 8)
WAVELENGTHS = (150.0, 37.0)  # of the synthetic depth map, px


@dataclass(frozen=True, kw_only=True)
class Row:
    """One timed program."""

    program: str
    seconds: float  # wall clock, the fastest of the repeats
    cpu_seconds: float  # of all threads, likewise; what else runs on the machine hardly touches it
    speedup: float  # against the literal program, in CPU seconds
    difference: float  # largest difference of the final latents from the literal program's, in deviations


def synthetic_map(width: int, height: int) -> Image.Image:
    """Returns a depth map of two ridges, RGB."""
    y, x = np.mgrid[0:height, 0:width]
    far, near = (np.sin(x / length) for length in WAVELENGTHS)
    depth = np.where(y > height * (0.6 + 0.1 * near), 200, np.where(y > height * (0.4 + 0.1 * far), 110, 10))
    return Image.fromarray(depth.astype(np.uint8)).convert("RGB")


class Remembered(nn.Module):
    """A ControlNet's embedding of its map, computed once per crop."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.known: dict[bytes, Tensor] = {}

    def forward(self, crops: Tensor) -> Tensor:
        """Returns the embedding of crops (n, 3, H, W) in 0..1."""
        key = crops.numpy().tobytes()
        if key not in self.known:
            with torch.no_grad():
                self.known[key] = self.embedding(crops)
        return self.known[key]


@contextmanager
def remembered_embedding(pipe: Any) -> Iterator[None]:
    """Lets the pipeline's ControlNet remember the embeddings of its maps for a while."""
    original = pipe.controlnet.controlnet_cond_embedding
    pipe.controlnet.controlnet_cond_embedding = Remembered(original)
    try:
        yield
    finally:
        pipe.controlnet.controlnet_cond_embedding = original


def forgetful(loaded: objectives.AbstractObjective) -> Objective:
    """Returns the objective as published: the anchor goes through the perceptual network with every window."""
    return lambda images, anchor: loaded.for_anchor(anchor)(images)


def remembering(loaded: objectives.AbstractObjective) -> Objective:
    """Returns the objective that computes an anchor's features once."""
    last: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []

    def objective(images: Tensor, anchor: Tensor) -> Tensor:
        if not last or last[0][0] is not anchor:
            last[:] = [(anchor, loaded.for_anchor(anchor))]
        return last[0][1](images)

    return objective


class Bench:
    """The programs to be timed, on one picture."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.montage = Montage.from_pretrained(
            options.model, controls=[options.control], dtype=getattr(torch, options.dtype), offline=True
        )
        self.pipe = self.montage.denoiser.pipe
        self.loaded = objectives.load(options.objective)
        self.objective_name = options.objective
        geometry = self.montage.denoiser.geometry
        self.height, self.width = geometry.window_px[0], options.width
        self.control_map = synthetic_map(self.width, self.height)
        generator = torch.Generator().manual_seed(0)
        cells = (self.height // geometry.cell, self.width // geometry.cell)
        self.noise = torch.randn((1, geometry.channels, *cells), generator=generator).to(self.pipe.unet.dtype)
        self.settings = Settings(
            steps=options.steps,
            stride=options.stride,
            sync_weight=options.sync_weight,
            sync_steps=options.sync_steps,
            clamp=False,  # as `Montage`; see tests/sampling/test_published.py
        )
        for part in (self.pipe.unet, self.pipe.controlnet, self.pipe.vae, self.pipe.text_encoder):
            part.requires_grad_(False)

    def literal(self, objective: Objective, *, reuse_anchor: bool = False) -> Tensor:
        """Returns the final latents of the literal program."""
        program = Published(self.pipe, PROMPT, "", replace(self.settings, reuse_anchor=reuse_anchor), objective)
        return program.run(self.noise, map_tensor(self.control_map, self.noise.dtype))

    def literal_remembering_maps(self, objective: Objective, *, reuse_anchor: bool = False) -> Tensor:
        """Returns the final latents of the literal program with a cache of control embeddings."""
        with remembered_embedding(self.pipe):
            return self.literal(objective, reuse_anchor=reuse_anchor)

    def ours(self, batch: int) -> Tensor:
        """Returns the final latents of `Montage` in its exact mode."""
        s = self.settings
        result = self.montage(
            PROMPT,
            self.control_map,
            height=self.height,
            width=self.width,
            latents=self.noise,
            sampling=SamplingConfig(steps=s.steps, guidance_scale=s.guidance_scale, scheduler="ddim").complete(),
            windows=WindowConfig(stride=s.stride, batch=batch).complete(),
            sync=SyncConfig(
                weight=s.sync_weight,
                steps=s.sync_steps,
                decay=s.sync_decay,
                gradient="full",
                objective=self.objective_name,
                shrink=1,
            ).complete(),
        )
        return result.latents

    def programs(self) -> dict[str, Callable[[], Tensor]]:
        """Returns the programs by name, the literal one first."""
        plain = forgetful(self.loaded)
        levers: dict[str, Callable[[], Tensor]] = {
            "literal": lambda: self.literal(plain),
            "literal + control embedding once": lambda: self.literal_remembering_maps(plain),
            "literal + anchor predicted once": lambda: self.literal(plain, reuse_anchor=True),
            "literal + anchor features once": lambda: self.literal(remembering(self.loaded)),
            "literal + these three": lambda: self.literal_remembering_maps(remembering(self.loaded), reuse_anchor=True),
        }
        return levers | {f"Montage, window batch {batch}": lambda batch=batch: self.ours(batch) for batch in BATCHES}


def measure(programs: dict[str, Callable[[], Tensor]], repeats: int) -> list[Row]:
    """Returns one row per program; rounds are interleaved, so that a busy moment hits all alike."""
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}
    latents: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, program in programs.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            latents[name] = program()
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
            cpu_seconds[name] = min(cpu_seconds.get(name, float("inf")), time.process_time() - cpu_start)
    first = next(iter(programs))
    reference = latents[first]
    return [
        Row(
            program=name,
            seconds=seconds[name],
            cpu_seconds=cpu_seconds[name],
            speedup=cpu_seconds[first] / cpu_seconds[name],
            difference=float((latents[name] - reference).abs().max() / reference.std()),
        )
        for name in programs
    ]


def parse() -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="tiny", help="preset or diffusers folder")
    parser.add_argument("--control", default="depth", help="control type of the model's ControlNet")
    parser.add_argument("--width", type=int, default=1024, help="of the canvas, px; it is one window high")
    parser.add_argument("--steps", type=int, default=15, help="denoising steps")
    parser.add_argument("--stride", type=int, default=16, help="cells")
    parser.add_argument("--sync-steps", type=int, default=5, help="synchronised steps")
    parser.add_argument("--sync-weight", type=float, default=20.0, help="the paper's w")
    parser.add_argument("--objective", default="stlpips", help="perceptual distance")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--repeats", type=int, default=2, help="rounds; the fastest counts")
    parser.add_argument("--output", type=Path, default=None, help="JSON file")
    return parser.parse_args()


def main() -> None:
    """Prints a table, and writes it as JSON."""
    options = parse()
    torch.set_num_threads(options.threads)
    rows = measure(Bench(options).programs(), options.repeats)
    print(f"| {'Program':34} | Seconds | CPU seconds | Speed-up | Latents differ by |\n|---|---|---|---|---|")
    for row in rows:
        times = f"{row.seconds:.1f} | {row.cpu_seconds:.1f} | {row.speedup:.2f}"
        print(f"| {row.program:34} | {times} | {row.difference:.1e} |")
    if options.output is not None:
        record = {
            "settings": {key: value for key, value in vars(options).items() if key != "output"},
            "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": options.threads},
            "rows": [asdict(row) for row in rows],
        }
        options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
