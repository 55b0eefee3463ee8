"""Is this code slower than an older one? python -m benchmarks.speed OLD NEW, two checkouts of the repository

Both draw the same pictures, in turns, each in a process of its own and on one thread. What counts is CPU seconds, which
other programs on the machine hardly touch, and the ratio of the two runs of a pair.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig, preprocess

WAVELENGTH = 37.0  # of the ridge in the synthetic control map, px


def default() -> Image.Image:
    """Returns the picture that the bundled model draws of the guide in the README, with its own settings."""
    guide = Image.open("examples/guides/valley.png").convert("RGB").resize((1536, 256))
    control_map = preprocess.load("depth", offline=True)(guide)
    montage = Montage.from_pretrained("tiny", ["depth"], offline=True)
    return montage("a mountain valley at sunset", control_map, height=256, width=1536).image


def exact() -> Image.Image:
    """Returns a picture by the published algorithm, with the settings of `literal.json`."""
    y, x = np.mgrid[0:256, 0:768]
    control_map = Image.fromarray(np.where(y > 154 + 26 * np.sin(x / WAVELENGTH), 200, 10).astype(np.uint8))
    montage = Montage.from_pretrained("tiny", ["depth"], offline=True)
    return montage(
        "mountains behind a lake at sunset",
        control_map.convert("RGB"),
        sampling=SamplingConfig(steps=10, scheduler="ddim").complete(),
        windows=WindowConfig(stride=16).complete(),
        sync=SyncConfig(steps=4, gradient="full", objective="stlpips").complete(),
    ).image


PICTURES: dict[str, Callable[[], Image.Image]] = {"default": default, "exact": exact}


def draw(name: str, output: Path) -> None:
    """Draws a picture in this process."""
    import synccontrol

    assert Path(str(synccontrol.__file__)).is_relative_to(Path.cwd()), synccontrol.__file__
    torch.set_num_threads(1)
    PICTURES[name]().save(output)


def seconds(checkout: Path, name: str, output: Path) -> float:
    """Returns the CPU seconds of a process that draws a picture with the code of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--draw", name, str(output.resolve())]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    stop = resource.getrusage(resource.RUSAGE_CHILDREN)
    return stop.ru_utime + stop.ru_stime - start.ru_utime - start.ru_stime


def compare(old: Path, new: Path, name: str, pairs: int, folder: Path) -> dict[str, Any]:
    """Returns the CPU seconds of both checkouts, the ratios new / old with their spread, and how pictures differ.

    Which of the two goes first changes from pair to pair.
    """
    checkouts = {"old": old, "new": new}
    times: dict[str, list[float]] = {"old": [], "new": []}
    for pair in range(pairs):
        for which in ("old", "new") if pair % 2 == 0 else ("new", "old"):
            times[which].append(seconds(checkouts[which], name, folder / f"{name}-{which}.png"))
    ratios = [after / before for before, after in zip(times["old"], times["new"], strict=True)]
    first, second = (np.asarray(Image.open(folder / f"{name}-{which}.png"), dtype=np.int16) for which in checkouts)
    return {
        "picture": name,
        **times,
        "ratios": ratios,
        "ratio": statistics.mean(ratios),
        "deviation": statistics.stdev(ratios),
        "largest_difference": int(np.abs(first - second).max()),
    }


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, nargs="?", help="checkout")
    parser.add_argument("new", type=Path, nargs="?", help="checkout")
    parser.add_argument("--pairs", type=int, default=6, help="of runs, 2 at least (default: 6)")
    parser.add_argument("--pictures", nargs="*", default=list(PICTURES), help="what to draw (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("out/speed"), help="for the pictures")
    parser.add_argument("--draw", nargs=2, metavar=("PICTURE", "FILE"), help="draw a picture in this process")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.draw is not None:
        draw(options.draw[0], Path(options.draw[1]))
        return
    if options.new is None:
        parser.error("name two checkouts, the old and the new one")
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| Picture | CPU seconds, old | new | Ratio new / old | Largest difference of the pictures, of 255 |")
    for name in options.pictures:
        row = compare(options.old, options.new, name, options.pairs, options.folder)
        rows.append(row)
        before, after = (statistics.mean(row[which]) for which in ("old", "new"))
        print(
            f"| {name} | {before:.1f} | {after:.1f} | {row['ratio']:.3f} ± {row['deviation']:.3f} "
            f"| {row['largest_difference']} |",
            flush=True,
        )
    if options.output is not None:
        machine = {"processor": platform.machine(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
        options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
