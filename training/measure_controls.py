"""How well the exported model obeys depth and pose: `python -m training.measure_controls`.

The bundled detectors look at windows drawn under exact maps, at the same windows drawn with the control off, and at
the rendered pictures that the maps came from: the last is the best that these detectors could report.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from synccontrol.evaluate import control
from synccontrol.evaluate.control import PCK_SHARE, pck
from synccontrol.preprocess.estimators.bundled import BundledDepth, BundledPose
from training.cache import HELD_OUT
from training.render import BIOMES, TIMES, Scene, render
from training.samples import Picture, control_map, draw_windows, pipeline

_TEST = HELD_OUT + 60_000  # first seed of the scenes that are measured on


def depth_rmse(drawn: Picture, scene: Scene, detector: BundledDepth) -> float:
    """Return the root mean squared error (0..255) of a picture's detected depth against a scene's own."""
    height, width = scene.depth.shape
    found = cv2.resize(detector(drawn), (width, height), interpolation=cv2.INTER_LINEAR)
    return control.depth_rmse(255 * found, 255 * scene.depth)


def measure(model: Path, count: int) -> None:
    """Print the figures of both controls."""
    depth, pose = BundledDepth("cpu"), BundledPose("cpu")
    for kind, crowd in (("depth", None), ("pose", 2)):
        scenes = [
            render(
                np.random.default_rng(_TEST + i),
                people=crowd,
                time=TIMES[i % len(TIMES)],
                biome=BIOMES[i % len(BIOMES)],
            )
            for i in range(count)
        ]
        prompts, maps = [scene.caption for scene in scenes], [control_map(scene, kind) for scene in scenes]
        pipe = pipeline(model, kind)
        drawn = {
            "control on": draw_windows(pipe, prompts, maps),
            "control off": draw_windows(pipe, prompts, maps, strength=0.0),
            "rendered": [scene.image for scene in scenes],
        }
        for name, pictures in drawn.items():
            pairs = list(zip(pictures, scenes, strict=True))
            if kind == "depth":
                print(f"depth RMSE, {name}: {np.mean([depth_rmse(*pair, depth) for pair in pairs]):.1f}", flush=True)
            else:
                shares = [pck(pose(picture), scene.people) for picture, scene in pairs]
                print(f"pose PCK@{PCK_SHARE}, {name}: {np.nanmean(shares):.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("synccontrol/models/tiny"))
    parser.add_argument("--count", type=int, default=16, help="windows a control")
    arguments = parser.parse_args()
    measure(arguments.model, arguments.count)
