"""Are people on wide guides found, and counted once? python -m benchmarks.wide_pose --output benchmarks/wide_pose.json

Rendered scenes of 256x1536 px with 1 to 12 people of 58 to 154 px, whose joints are known. The detector is the bundled
pose network in two ways:

- with the limit of top-down detectors, which fit any picture into a fixed square. Of 640 px, as rtmlib's: a wide scene
  is seen 640x107, its people 24 to 64 px high. Of 256 px: it is seen 256x43, they 10 to 26 px.
- as it is: fully convolutional, it sees any width at full height.

Each looks at the whole scene, then at the whole and at square slices, its findings merged. Small people on guides
several windows high (512x1024, two rows of scenes) are counted for the network as it is.

A person is found if a skeleton's neck lies within a tenth of the height of its own. Every skeleton belongs to the
person whose neck is nearest, within half that person's height; a person's second one is a double count, and one that
belongs to nobody is a false person.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from synccontrol.preprocess.estimators.bundled import BundledPose
from synccontrol.preprocess.people.detection import Estimator, in_views
from synccontrol.preprocess.people.skeleton import NECK
from synccontrol.preprocess.wide.views import Sight
from training.detector_scores import pose_score
from training.render import render

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Counts = dict[str, float]
Scenes = list[tuple[Bytes, Floats]]  # pictures and their people

HEIGHT, WIDTH = 256, 1536  # px
SEED = 2**31 + 5  # training counts its seeds from 0
MOST_PEOPLE = 12
REACH = 0.5  # of a person's height: how far from the neck a skeleton still belongs to the person
TOP_DOWN = 640  # px, the square of rtmlib's person detector
GREY = 114  # what a letterbox is filled with


def letterboxed(network: BundledPose, side: int) -> Estimator:
    """Returns the estimator that sees every picture fitted into a square of `side` px, as top-down detectors do.

    Of a square larger than the network's own, the empty part is left out as far as the network keeps the scale.
    """
    least = network.network.config.height

    def estimate(picture: Bytes) -> Floats:
        scale = side / max(picture.shape[:2])
        height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
        square = np.full((max(height, least), max(width, least), 3), GREY, np.uint8)
        square[:height, :width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        people = network(square).copy()
        people[..., :2] = (people[..., :2] + 0.5) / scale - 0.5
        return people

    return estimate


def count(found: Floats, truth: Floats) -> Counts:
    """Returns how many of the people in `truth` (m, 18, 3) were found, and what else was."""
    score = pose_score(found, truth)
    heights = np.array([np.ptp(person[person[:, 2] > 0, 1]) for person in truth])
    apart = np.linalg.norm(truth[:, None, NECK, :2] - found[None, :, NECK, :2], axis=2) / heights[:, None]
    owners = [int(column.argmin()) for column in apart.T if column.min() <= REACH]
    return {
        "people": score.people,
        "found": score.found,
        "double": len(owners) - len(set(owners)),
        "false": len(found) - len(owners),
        "joints": score.joints,
        "joints_right": score.right,
    }


def wide_scenes(rng: np.random.Generator, number: int) -> Scenes:
    """Returns scenes one window high: pictures and their people."""
    scenes = []
    for _ in range(number):
        scene = render(rng, height=HEIGHT, width=WIDTH, people=int(rng.integers(1, MOST_PEOPLE + 1)))
        scenes.append((scene.image, scene.people))
    return scenes


def high_scenes(rng: np.random.Generator, number: int) -> Scenes:
    """Returns scenes two windows high: two rendered ones, one above the other, with up to 6 people each."""
    scenes = []
    for _ in range(number):
        rows = [render(rng, height=HEIGHT, width=4 * HEIGHT, people=int(rng.integers(1, 7))) for _ in range(2)]
        below = rows[1].people + np.array([0, HEIGHT, 0], np.float32)
        scenes.append((np.concatenate([row.image for row in rows]), np.concatenate([rows[0].people, below])))
    return scenes


def measure(estimate: Estimator, scenes: Scenes) -> Counts:
    """Returns the sums of `count` over scenes, the share found, and CPU seconds a scene."""
    start = time.process_time()
    counts = [count(estimate(picture), truth) for picture, truth in scenes]
    seconds = time.process_time() - start
    sums = {key: sum(one[key] for one in counts) for key in counts[0]}
    shares = {"recall": sums["found"] / sums["people"], "double_share": sums["double"] / sums["people"]}
    return {**sums, **shares, "cpu_seconds": round(seconds / len(scenes), 3), "scenes": len(scenes)}


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200, help="one window high (default: 200)")
    parser.add_argument("--high-scenes", type=int, default=8, help="two windows high (default: 8)")
    parser.add_argument("--few-scenes", type=int, default=10, help="of the wide ones, for the last rows (default: 10)")
    parser.add_argument("--output", type=Path, default=Path("out/wide_pose.json"), help="JSON file")
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    wide, high = wide_scenes(rng, args.scenes), high_scenes(rng, args.high_scenes)
    few = wide[: args.few_scenes]
    network = BundledPose("cpu")
    side = network.network.config.height
    squeezed, shrunk = letterboxed(network, TOP_DOWN), letterboxed(network, side)
    rows, slices = Sight(side=side, letterboxes=False), Sight(side=side, letterboxes=True)
    runs: dict[str, tuple[Estimator, Scenes]] = {
        f"{TOP_DOWN} px square, whole": (squeezed, wide),
        f"{TOP_DOWN} px square, sliced": (in_views(squeezed, Sight(side=TOP_DOWN, letterboxes=True)), wide),
        "as it is, two rows, whole": (network, high),
        "as it is, two rows, sliced": (in_views(network, rows), high),
        "as it is, whole": (network, few),
        f"{side} px square, whole": (shrunk, few),
        f"{side} px square, sliced": (in_views(shrunk, slices), few),
        "as it is, sliced": (in_views(network, slices), few),
    }
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    results: dict[str, Counts] = {}
    report = {"machine": machine, "torch": torch.__version__, "seed": SEED, "results": results}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    print(f"{'detector':28} scenes people  found recall double  false joints  CPU s")
    for name, (estimate, scenes) in runs.items():
        results[name] = row = measure(estimate, scenes)
        print(
            f"{name:28} {row['scenes']:6} {row['people']:6} {row['found']:6} {row['recall']:6.1%} {row['double']:6} "
            f"{row['false']:6} {row['joints_right'] / row['joints']:6.1%} {row['cpu_seconds']:6}",
            flush=True,
        )
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
