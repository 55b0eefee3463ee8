"""How long does it take to score montages? python -m benchmarks.scoring

Renders wide scenes that stand for the montages, with their depth maps as guides and other scenes as the reference, and
runs `python -m synccontrol.evaluate` on them in a process of its own: everything that it measures offline, by default.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from training.cache import HELD_OUT
from training.render import Scene, render
from training.samples import control_map

HEIGHT, WIDTH = 256, 1536  # px of a montage
STRIDE = 128  # px between windows
SEED = HELD_OUT + 70_000  # of the first scene


def scene(number: int) -> Scene:
    """Returns a rendered scene of the montages' size."""
    return render(np.random.default_rng(SEED + number), height=HEIGHT, width=WIDTH)


def write(folder: Path, montages: int, reference: int) -> None:
    """Writes montages/, guides/ and reference/."""
    for name in ("montages", "guides", "reference"):
        (folder / name).mkdir()
    for number in range(montages):
        drawn = scene(number)
        Image.fromarray(drawn.image).save(folder / "montages" / f"{number:03d}.png")
        Image.fromarray(control_map(drawn, "depth")).save(folder / "guides" / f"{number:03d}.png")
    for number in range(reference):
        Image.fromarray(scene(montages + number).image).save(folder / "reference" / f"{number:03d}.png")


def command() -> list[str]:
    """Returns the command that scores them, to be run in their folder."""
    flags = ["--reference", "reference", "--guides", "guides", "--control", "depth", "--ready-maps", "--offline"]
    places = ["--window", str(HEIGHT), "--stride", str(STRIDE), "--output", "report"]
    return [sys.executable, "-m", "synccontrol.evaluate", "montages", *flags, *places]


def main() -> None:
    """Prints the table, the seconds and the CPU seconds, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--montages", type=int, default=100, help="of 256x1536 px")
    parser.add_argument("--reference", type=int, default=20, help="pictures of 256x1536 px, six windows each")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.montages, arguments.reference)
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        start = time.perf_counter()
        subprocess.run(command(), cwd=folder, env=environment, check=True)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "montages": arguments.montages,
        "reference": arguments.reference,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(found))
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
