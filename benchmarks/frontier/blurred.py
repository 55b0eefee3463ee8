"""How alike are windows of true panoramas that have lost detail? python -m benchmarks.frontier.blurred

Of the rendered scenes that `python -m benchmarks.frontier` has written into the same `--out`, blurred more and more.
What has less detail is more alike, whatever it shows; each row says what the likeness costs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from benchmarks.frontier.draw import Studio, cell, reference
from benchmarks.frontier.kid import features
from benchmarks.frontier.material import CONTROLS
from benchmarks.frontier.methods import RENDERED
from benchmarks.frontier.scoring import SEED, score_cell
from synccontrol.cli.terminal import status
from synccontrol.evaluate.fidelity import kernel_distance

BLURS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)  # deviations of a Gaussian, px
SHOWN = {  # metric of an evaluation -> column
    "Intra-ST-LPIPS (vgg)": "ST-LPIPS (vgg)",
    "depth RMSE": "depth RMSE",
    "canny F1 (2 px)": "canny F1",
    "pose PCK@0.1": "pose PCK@0.1",
}


def blur(out: Path, control: str, name: str, deviation: float) -> None:
    """Writes the rendered montages of a control, blurred, as those of a method; what is there is kept."""
    for path in sorted(cell(out, control, RENDERED).glob("*.png")):
        target = cell(out, control, name) / path.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as picture:
                picture.filter(ImageFilter.GaussianBlur(deviation)).save(target)


def figures(studio: Studio, out: Path, deviation: float, real: torch.Tensor) -> list[float]:
    """Returns means over all montages: those of `SHOWN`, then KID."""
    name = f"blurred-{deviation:g}"
    found: dict[str, list[float]] = {metric: [] for metric in SHOWN}
    for control in CONTROLS:
        blur(out, control, name, deviation)
        scored = score_cell(studio, out, control, name, offline=True)
        for one in scored.scores.measurements if scored else ():
            found.get(one.metric, []).extend(one.values.values())
    own = torch.cat(list(features(out / "montages" / name, studio.window).values()))
    return [*(float(np.mean(values)) for values in found.values()), kernel_distance(own, real, SEED)]


def parse() -> argparse.Namespace:
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/frontier"), help="folder of the montages")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Prints a row for each blur."""
    torch.set_num_threads(1)
    studio = Studio("tiny", None, None, device="cpu", dtype="float32", offline=True)
    real = torch.cat(list(features(reference(args.out), studio.window).values()))
    print(f"| Blur, px | {' | '.join(SHOWN.values())} | KID |\n|---{'|---' * (len(SHOWN) + 1)}|")
    for deviation in BLURS:
        row = figures(studio, args.out, deviation, real)
        print(f"| {deviation:g} | {' | '.join(f'{value:.3f}' for value in row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(status(lambda: run(parse())))
