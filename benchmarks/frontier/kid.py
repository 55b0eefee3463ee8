"""By how much the KID of the methods differs, montage by montage: python -m benchmarks.frontier.kid

Of what `python -m benchmarks.frontier` has drawn into the same `--out`, the montages that both methods of a pair have.
An interval of each method alone is as wide as its guides are unlike; what is asked is whether two methods differ under
the same ones.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.frontier.draw import reference
from benchmarks.frontier.scoring import DRAWS, PAIRS, SEED
from synccontrol.cli.terminal import status
from synccontrol.evaluate.dataset import open_gallery
from synccontrol.evaluate.fidelity import kernel_difference, kernel_distance
from synccontrol.evaluate.measurement import Settings
from synccontrol.evaluate.networks import FeatureNetworks

BASELINE = "multidiffusion"


def features(folder: Path, window: int) -> Mapping[str, torch.Tensor]:
    """Returns the pooled features (n, d) of the windows of every picture in a folder and those in it, by its name."""
    settings = Settings(window=window, groups=("fidelity",), offline=True)
    gallery = open_gallery(folder, settings)
    eyes = FeatureNetworks(gallery, settings)
    return {montage.name: eyes.pooled(settings.features, montage) for montage in gallery.montages}


def compared(
    ours: Mapping[str, torch.Tensor], baseline: Mapping[str, torch.Tensor], real: torch.Tensor
) -> tuple[int, float, float, tuple[float, float]]:
    """Returns of how many montages, KID of both, and the interval of the difference.

    Args:
        ours: features (n, d) by montage.
        baseline: the same of what it is held against.
        real: features (m, d) of the reference.
    """
    common = sorted(ours.keys() & baseline.keys())
    sets = [[of[name] for name in common] for of in (ours, baseline)]
    own, other = (kernel_distance(torch.cat(one), real, SEED) for one in sets)
    return len(common), own, other, kernel_difference(sets[0], sets[1], real, DRAWS, SEED)


def parse() -> argparse.Namespace:
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/frontier"), help="folder of the montages")
    parser.add_argument("--window", type=int, default=256, help="side of a window, px (default: 256)")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Prints a row for each pair of methods that are drawn."""
    torch.set_num_threads(1)
    real = torch.cat(list(features(reference(args.out), args.window).values()))
    pairs = dict.fromkeys([*((BASELINE, name) for name in ("unsynced", "default", "fast", "best")), *PAIRS])
    drawn = {name for pair in pairs for name in pair if (args.out / "montages" / name).is_dir()}
    known = {name: features(args.out / "montages" / name, args.window) for name in sorted(drawn)}
    print("| | n | KID | of the other | difference |\n|---|---|---|---|---|")
    for baseline, name in pairs:
        if name in known and baseline in known:
            n, own, other, (low, high) = compared(known[name], known[baseline], real)
            figures = f"{own:.3f} | {other:.3f} | {own - other:+.3f} [{low:+.3f}, {high:+.3f}]"
            print(f"| {name} - {baseline} | {n} | {figures} |")


if __name__ == "__main__":
    sys.exit(status(lambda: run(parse())))
