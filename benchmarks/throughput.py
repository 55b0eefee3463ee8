"""How much faster is one run of many pictures than many runs of one? python -m benchmarks.throughput

The same pictures of the bundled model, 256x512, are made by a shell loop of single calls, by one call for the folder,
and if wanted by Ray with one worker and with two; in turns, on one thread each. What counts is the ratio within one run
of this program. On a machine that does other things too, CPU seconds say more than seconds (Ray's are not all counted).
A loop of single calls takes as long for each; `--single` makes only so many of the pictures that way.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, STEP = 512, 256, 40  # px


def prepare(folder: Path, count: int) -> list[Path]:
    """Returns so many guides, cut from the valley of the README."""
    with Image.open(ROOT / "examples" / "guides" / "valley.png") as image:
        valley = image.convert("RGB")
    guides = []
    for number in range(count):
        left = number * STEP % (valley.width - WIDTH)
        guides.append(folder / "in" / f"{number}.png")
        guides[-1].parent.mkdir(exist_ok=True)
        valley.crop((left, 0, left + WIDTH, HEIGHT)).save(guides[-1])
    return guides


def timed(commands: Sequence[Sequence[str]]) -> dict[str, float]:
    """Returns the seconds, and the CPU seconds of all processes, that commands take one after the other."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run(command, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - begin, "cpu_seconds": cpu}


def measure(count: int, single: int, steps: int, rounds: int, ray: bool) -> dict[str, Any]:
    """Returns how long each way takes for a picture, a mean over rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guides = prepare(folder, count)
        what = ["--control", "depth", "--prompt", "a mountain valley", "--offline", "--device", "cpu", "--quiet"]
        call = [sys.executable, "-m", "synccontrol", *what, "--steps", str(steps), "--overwrite"]
        many = [*call, "--guide", str(guides[0].parent)]
        ways = {
            "single calls": [
                [*call, "--guide", str(guide), "--output", str(folder / "one" / guide.name)]
                for guide in guides[:single]
            ],
            "one run": [[*many, "--output", str(folder / "all")]],
        }
        for workers in (1, 2) if ray else ():
            flags = ["--engine", "ray", "--workers", str(workers), "--output", str(folder / f"ray{workers}")]
            ways[f"ray, {workers}"] = [[*many, *flags]]
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for number in range(rounds):
            for way in list(ways)[:: -1 if number % 2 else 1]:
                found[way].append(timed(ways[way]))
        for guide in guides:
            first, *others = folder.glob(f"[!i]*/{guide.name}")
            assert all(first.read_bytes() == other.read_bytes() for other in others), "other bytes"
    made = {way: single if way == "single calls" else count for way in ways}
    means = {
        way: {name: statistics.mean(one[name] for one in times) / made[way] for name in times[0]}
        for way, times in found.items()
    }
    return {"pictures": count, "steps": steps, "rounds": rounds, "seconds of a picture": means}


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8, help="in a run (default: 8)")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[12, 4], help="denoising steps (default: 12, the model's own, and 4)"
    )
    parser.add_argument("--single", type=int, help="of them by single calls (default: all)")
    parser.add_argument("--rounds", type=int, default=2, help="of all ways (default: 2)")
    parser.add_argument("--ray", action="store_true", help="Ray, too")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    rows = []
    print("| Steps | Way | s a picture | CPU s a picture | single calls take ... times as long | in CPU s |")
    print("|---|---|---|---|---|---|")
    for steps in options.steps:
        single = min(options.single or options.pictures, options.pictures)
        row = measure(options.pictures, single, steps, options.rounds, options.ray)
        rows.append(row)
        ways = row["seconds of a picture"]
        for way, times in ways.items():
            wall, cpu = (f"{times[name]:.2f}" for name in ("seconds", "cpu_seconds"))
            ratios = [ways["single calls"][name] / times[name] for name in ("seconds", "cpu_seconds")]
            print(f"| {steps} | {way} | {wall} | {cpu} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)
    if options.output is not None:
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}
        options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
