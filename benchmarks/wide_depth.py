"""Measures depth on wide guides against exact depth: fitted tiles beside a squashed guide and unfitted tiles.

Run it from the root of the repository: `python -m benchmarks.wide_depth --output benchmarks/wide_depth.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.estimators.bundled import BundledDepth
from synccontrol.preprocess.wide.wide_depth import Columns, Estimator, blend_tiles, long_depth, tile_columns
from training.render import BIOMES, Scene, render

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

HEIGHT, WIDTH = 256, 1536  # px, of the scenes; the detectors' native side is the height
SEED = 2**31 + 7000  # training counts its seeds from 0
PEOPLE = 4  # a scene
METHODS = ("squashed whole", "tiles, min-max each", "tiles as they are", "fitted tiles")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a detector does to the truth, besides another scale and shift at every call."""

    noise: float = 0.0  # RMS, of the truth's range
    grain: float = 0.0  # px, the size of the noise; 0: every pixel has its own
    bias: float = 0.0  # RMS of a field of 3 x 3 knots over the picture, other at every call
    coarser: int = 1  # how many times fewer pixels a side it tells apart than it answers


FAULTS = {
    "noise 1 %": Fault(noise=0.01),
    "noise 2 %": Fault(noise=0.02),
    "soft noise 1 %": Fault(noise=0.01, grain=4.0),
    "noise 1 %, half the resolution": Fault(noise=0.01, coarser=2),
    "noise 1 %, slow bias 3 %": Fault(noise=0.01, bias=0.03),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One detector: means over the scenes."""

    detector: str
    rmse: dict[str, float]  # by method, of the truth's range, after one scale and one shift of the whole map
    gain: dict[str, float]  # of fitted tiles over the other methods
    step: float  # mean difference across tile borders over that across other columns, in the fitted map
    true_step: float  # the same in the truth


def fickle(answer: Callable[[Bytes], Floats], rng: np.random.Generator) -> Estimator:
    """Returns the estimator of another scale and shift at every call."""
    return lambda picture: np.asarray(np.exp(rng.uniform(-1, 1)) * answer(picture) + rng.uniform(-2, 2), np.float32)


def square(picture: npt.NDArray[Any], side: int = HEIGHT) -> npt.NDArray[Any]:
    """Returns the picture squashed to side x side px."""
    shrinks = side * side < picture.shape[0] * picture.shape[1]
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def synthetic(fault: Fault, rng: np.random.Generator) -> Estimator:
    """Returns a detector that reads the depth off a picture painted with it, squashed to its native square."""

    def answer(picture: Bytes) -> Floats:
        seen = square(square(picture[..., 0].astype(np.float32) / 255, HEIGHT // fault.coarser))
        noise = fault.noise * rng.standard_normal(seen.shape)
        if fault.grain:
            noise = cv2.GaussianBlur(noise, (0, 0), fault.grain)
            noise *= fault.noise / noise.std()
        bias = cv2.resize(rng.standard_normal((3, 3)), (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
        return np.asarray(seen + noise + fault.bias * bias, np.float32)

    return fickle(answer, rng)


def painted(depth: Floats) -> Bytes:
    """Returns the picture (H, W, 3) whose grey is the depth."""
    return np.repeat(np.rint(255 * depth).astype(np.uint8)[..., None], 3, axis=2)


def aligned(found: Floats, depth: Floats) -> Floats:
    """Returns what was found in the scale and shift that fit the truth best."""
    design = np.stack([found.ravel(), np.ones(found.size)], axis=1).astype(np.float64)
    best = np.linalg.lstsq(design, depth.ravel(), rcond=None)[0]
    return np.asarray((design @ best).reshape(depth.shape), np.float32)


def maps(picture: Bytes, columns: list[Columns], estimate: Estimator) -> dict[str, Floats]:
    """Returns the map (H, W) of every method, all from the same answers of the estimator."""
    seen = estimate(picture)
    tiles = [estimate(np.ascontiguousarray(picture[:, inside])) for inside in columns]
    answers = iter([seen, *tiles])
    whole = cv2.resize(seen, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    stretched = [(tile - tile.min()) / np.ptp(tile) for tile in tiles]
    unfitted = (blend_tiles(some, columns, picture.shape[1]) for some in (stretched, tiles))
    return dict(zip(METHODS, (whole, *unfitted, long_depth(lambda _: next(answers), HEIGHT)(picture)), strict=True))


def steps(found: Floats, columns: list[Columns]) -> tuple[float, float]:
    """Returns the mean horizontal difference across tile borders, and across the other columns."""
    across = np.abs(np.diff(found, axis=1)).mean(axis=0)
    ends = {int(at) for inside in columns for at in (inside[0] - 1, inside[-1])} & set(range(len(across)))
    return float(across[sorted(ends)].mean()), float(np.delete(across, sorted(ends)).mean())


def measure(name: str, scenes: list[Scene], see: Callable[[Scene], Bytes], detector: Callable[[int], Estimator]) -> Row:
    """Returns the row of one detector.

    Args:
        name: Of the detector.
        scenes: What is measured on.
        see: What the detector is shown of a scene.
        detector: The detector for the scene of an index.
    """
    columns = tile_columns(WIDTH, HEIGHT)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    found_steps, true_steps = [], []
    for index, scene in enumerate(scenes):
        for method, found in maps(see(scene), columns, detector(index)).items():
            fit = aligned(found, scene.depth)
            errors[method].append(float(np.sqrt(np.mean((fit - scene.depth) ** 2))))
        found_steps.append(steps(fit, columns))  # the last method is the fitted one
        true_steps.append(steps(scene.depth, columns))
    means = {method: float(np.mean(values)) for method, values in errors.items()}
    ours = METHODS[-1]
    step, true_step = (float(np.divide(*np.mean(pairs, axis=0))) for pairs in (found_steps, true_steps))
    gains = {method: mean / means[ours] for method, mean in means.items() if method != ours}
    return Row(detector=name, rmse=means, gain=gains, step=step, true_step=true_step)


def rows(scenes: list[Scene]) -> list[Row]:
    """Returns a row per synthetic detector, and two of the bundled network: shown squares only, and any aspect."""
    bundled = BundledDepth("cpu")
    squashed: Estimator = lambda picture: bundled(np.asarray(square(picture), np.uint8))  # noqa: E731
    found = []
    for name, fault in FAULTS.items():
        detector = lambda index, fault=fault: synthetic(fault, np.random.default_rng(index))  # noqa: E731
        found.append(measure(name, scenes, lambda scene: painted(scene.depth), detector))
    for name, network in {"bundled network, squares only": squashed, "bundled network, any aspect": bundled}.items():
        detector = lambda index, network=network: fickle(network, np.random.default_rng(index))  # noqa: E731
        found.append(measure(name, scenes, lambda scene: scene.image, detector))
    return found


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12, help=f"of {WIDTH}x{HEIGHT} px")
    parser.add_argument("--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    scenes = [
        render(
            np.random.default_rng(SEED + i), height=HEIGHT, width=WIDTH, people=PEOPLE, biome=BIOMES[i % len(BIOMES)]
        )
        for i in range(options.scenes)
    ]
    found = rows(scenes)
    print(f"| Detector | {' | '.join(METHODS)} | Step | True step |\n|---|{'---|' * (len(METHODS) + 2)}")
    for row in found:
        gained = [f"{row.rmse[m]:.4f}" + (f" ({row.gain[m]:.1f}x)" if m in row.gain else "") for m in METHODS]
        print(f"| {row.detector} | {' | '.join(gained)} | {row.step:.3f} | {row.true_step:.3f} |")
    if options.output is not None:
        record = {
            "settings": {"scenes": options.scenes, "height": HEIGHT, "width": WIDTH},
            "machine": {"processor": platform.machine(), "opencv": cv2.__version__},
            "rows": [asdict(row) for row in found],
        }
        options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
