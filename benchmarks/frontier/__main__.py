"""Draws all montages of the bench, scores them and writes the results: python -m benchmarks.frontier --out DIR

Run it from the root of the repository. What is drawn already is kept, so that a run that was cut short goes on; it
goes seed by seed, so that its cells are balanced at any time. --dry-run says how long it will take, and stops.
"""

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.frontier import draw, results, scoring
from benchmarks.frontier.material import CONTROLS
from benchmarks.frontier.methods import RENDERED
from synccontrol.cli.terminal import Parser, status
from synccontrol.errors import ConfigError
from synccontrol.evaluate import report
from synccontrol.spec.image_settings import DEFAULT

RUN = "run.json"  # what all montages of a folder have in common
PER_CELL, ALL_STEPS = 6, 4
SCORING = 0.75  # seconds a window, about, on two cores


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for montages, scores and results")
    parser.add_argument("--model", default="tiny", help="preset, diffusers folder or hub id (default: tiny)")
    parser.add_argument("--per-cell", type=int, default=PER_CELL, help="montages a method and control (default: 6)")
    parser.add_argument(
        "--all-steps", type=int, default=ALL_STEPS, help="of these, where all steps are synced (default: 4)"
    )
    parser.add_argument("--width", type=int, help="px, whole windows (default: four windows)")
    parser.add_argument("--steps", type=int, help="denoising steps of every method (default: its own)")
    parser.add_argument("--control-scale", type=float, help="of every method (default: the model's)")
    parser.add_argument("--controls", nargs="+", choices=CONTROLS, default=CONTROLS, help="default: all")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the model")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument("--dry-run", action="store_true", help="say what would be drawn and how long it will take")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Draws, scores, and writes the results page."""
    studio = draw.Studio(
        args.model,
        args.width,
        args.steps,
        control_scale=args.control_scale,
        device=args.device,
        dtype=args.dtype,
        offline=args.offline,
    )
    names = args.methods or list(studio.methods)
    _check(args, studio, names)
    jobs = draw.plan(args.out, args.controls, names, args.per_cell, args.all_steps)
    if jobs or args.dry_run:
        print(_forecast(studio, args, jobs), flush=True)
    if args.dry_run:
        return
    _remember(args, studio)
    studio.write_material(args.out, args.controls, args.per_cell)
    for job in tqdm(jobs, desc="drawing", unit="montage"):
        studio.run(job)
    offline, scored = args.offline, [*names, RENDERED]
    cells = {}
    for control in args.controls:
        bar = tqdm(scored, desc=f"scoring {control}", unit="method")
        found = [scoring.score_cell(studio, args.out, control, name, offline) for name in bar]
        cells[control] = [one for one in found if one]
    bar = tqdm(scored, desc="scoring fidelity", unit="method")
    whole = [one for name in bar if (one := scoring.score_fidelity(studio, args.out, name, offline))]
    print(results.write(studio, args.out, cells, whole, _about(args, studio)))


def _check(args: argparse.Namespace, studio: draw.Studio, names: Sequence[str]) -> None:
    """Raises `ConfigError` for what cannot be drawn, or not into this folder."""
    unknown = [name for name in names if name not in studio.methods]
    if unknown:
        raise ConfigError(f"there is no method {unknown[0]!r}; known: {', '.join(studio.methods)}")
    if studio.width % studio.window or studio.width < 2 * studio.window:
        raise ConfigError(
            f"width {studio.width} is not at least two windows side by side; use a multiple of {studio.window}"
        )
    if args.per_cell < 1:
        raise ConfigError(f"per-cell is {args.per_cell}; it must be at least 1")
    if (args.out / RUN).exists():
        before = report.read_json(args.out / RUN)
        if before != _common(args, studio):
            raise ConfigError(f"{args.out} holds montages drawn otherwise ({before}); choose another --out")


def _common(args: argparse.Namespace, studio: draw.Studio) -> dict[str, Any]:
    return {"model": args.model, "width": studio.width, "dtype": args.dtype, **studio.changes}


def _remember(args: argparse.Namespace, studio: draw.Studio) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    report.write_json(_common(args, studio), args.out / RUN)


def _forecast(studio: draw.Studio, args: argparse.Namespace, jobs: Sequence[draw.Job]) -> str:
    """Returns how much is to be drawn and how long it will take, from short pictures drawn now."""
    counts = Counter(job.method for job in jobs)
    each = studio.trial(args.controls[0], list(counts))
    lines = [
        f"{studio.width}x{studio.height}, {args.device}, "
        f"{torch.get_num_threads()} threads; {len(jobs)} montages to draw; seconds each, from a trial "
        f"({args.controls[0]}):"
    ]
    lines += [f"  {name:15} {counts[name]:4} x {each[name]:6.1f} s" for name in counts]
    drawing = sum(count * each[name] for name, count in counts.items()) / 60
    windows = (len(jobs) + len(args.controls) * args.per_cell) * studio.width / studio.window
    scored = windows * SCORING / 60
    lines.append(f"about {drawing:.0f} minutes of drawing, and {scored:.0f} of scoring")
    return "\n".join(lines)


def _about(args: argparse.Namespace, studio: draw.Studio) -> dict[str, str]:
    sampling = studio.methods[DEFAULT].settings.sampling
    return {
        "Model": args.model,
        "Size": f"{studio.width}x{studio.height} px, windows of {studio.window} px",
        "Sampling": f"guidance {sampling.guidance_scale:g}, control scale {sampling.control_scale}",
        "Objective of sync": str(studio.methods[DEFAULT].settings.sync.objective),
        "Machine": f"{platform.machine()}, {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "Command": f"`python -m benchmarks.frontier --model {args.model} --width {studio.width} "
        f"--per-cell {args.per_cell} --all-steps {args.all_steps} --out DIR`",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 bad usage or input."""
    return status(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
