"""CPU seconds of every method beside the literal published program, in one run: python -m benchmarks.frontier.timing

One picture of the bundled model, 1024x256, under a depth map and under none. Rounds are interleaved, and the fastest
counts, so that a busy moment hits all alike; what is compared are ratios. The program that all are compared with is
`tests/sampling/published.py`: the paper's algorithm, window by window, nothing batched, cached or reused.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.frontier.draw import Studio
from benchmarks.frontier.material import NONE
from benchmarks.literal import forgetful
from synccontrol import Montage
from synccontrol.sampling import objectives
from synccontrol.spec.settings import SyncConfig
from tests.sampling.published import Published, Settings, map_tensor

CONTROLS = (NONE, "depth")
METHODS = ("multidiffusion", "published-5", "unsynced", "default", "fast", "best")
LITERAL = "literal, 5 of 50 synced"


def literal(studio: Studio, control: str, synced: int) -> Callable[[], object]:
    """Returns the literal program, ready to draw: model, map and objective are loaded."""
    paper = studio.methods[f"published-{synced}"].settings
    pipe = Montage.from_pretrained("tiny", [] if control == NONE else [control], offline=True).denoiser.pipe
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    made, sync = studio.item(control, 0), SyncConfig().complete()
    settings = Settings(
        steps=paper.sampling.steps,
        guidance_scale=paper.sampling.guidance_scale,
        control_scale=float(paper.sampling.control_scale),  # type: ignore[arg-type]
        stride=paper.windows.stride,
        sync_weight=sync.weight,
        sync_steps=synced,
        clamp=False,
    )
    program = Published(pipe, made.prompt, "", settings, forgetful(objectives.load(paper.sync.objective)))
    cells = (studio.height // studio.geometry.cell, studio.width // studio.geometry.cell)
    noise = torch.randn((1, studio.geometry.channels, *cells), generator=torch.Generator().manual_seed(made.seed))
    crop = map_tensor(made.guide, noise.dtype) if made.guide is not None else None
    return lambda: program.run(noise, crop)


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts (default: 2)")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    studio = Studio("tiny", 1024, None, device="cpu", dtype="float32", offline=True)
    found: dict[str, dict[str, float]] = {}
    for control in CONTROLS:
        made = studio.item(control, 0)
        programs: dict[str, Callable[[], object]] = {
            LITERAL: literal(studio, control, 5),
            **{name: partial(studio.draw, made, control, studio.methods[name]) for name in METHODS},
        }
        seconds = dict.fromkeys(programs, float("inf"))
        for _ in range(options.rounds):
            for name, program in programs.items():
                start = time.process_time()
                program()
                seconds[name] = min(seconds[name], time.process_time() - start)
                print(f"{control:6} {name:24} {seconds[name]:7.2f} CPU s", flush=True)
        found[control] = seconds
    print("| Method | " + " | ".join(f"{control}, CPU s | literal / it" for control in CONTROLS) + " |")
    for name in found[NONE]:
        cells = [f"{found[c][name]:.2f} | {found[c][LITERAL] / found[c][name]:.1f}" for c in CONTROLS]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.output:
        machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": 1, "rounds": options.rounds}
        options.output.write_text(json.dumps({"machine": machine, "cpu_seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
