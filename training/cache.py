"""Rendered scenes on disk: rendered once, cropped many times."""

from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.canvas import Floats
from training.render import render

HEIGHT, WIDTH = 256, 384  # px of a cached scene: half as wide again as a window, so that crops differ
CHUNK = 250  # scenes a file
HELD_OUT = 10**9  # first seed of the scenes that nothing is trained on
CANNY_THRESHOLDS = (100, 200)  # of the gradient, 0..255


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Cached scenes; `canny` holds 8 columns a byte."""

    images: NDArray[np.uint8]  # (n, H, W, 3)
    depths: NDArray[np.uint8]  # (n, H, W)
    canny: NDArray[np.uint8]  # (n, H, W / 8)
    people: list[Floats]  # (k, 18, 3) each
    attributes: list[dict[str, str]]


def edges(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the Canny edges (H, W) of an RGB picture, 0 or 255."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.Canny(grey, *CANNY_THRESHOLDS), np.uint8)


def _write(job: tuple[Path, int]) -> None:
    path, seed = job
    scenes = [render(np.random.default_rng(seed + number), height=HEIGHT, width=WIDTH) for number in range(CHUNK)]
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        images=np.stack([scene.image for scene in scenes]),
        depths=np.stack([np.round(scene.depth * 255).astype(np.uint8) for scene in scenes]),
        canny=np.stack([np.packbits(edges(scene.image) > 0, axis=1) for scene in scenes]),
        joints=np.concatenate([scene.people for scene in scenes]),
        counts=np.array([len(scene.people) for scene in scenes]),
        attributes=np.array([[f"{k}={v}" for k, v in scene.attributes.items()] for scene in scenes]),
    )
    partial.rename(path)


def build(folder: Path, scenes: int, first_seed: int, workers: int) -> None:
    """Render scenes of the seeds from `first_seed` on into `folder`; chunks that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / f"{index:05d}.npz", first_seed + index * CHUNK) for index in range(-(-scenes // CHUNK))]
    missing = [job for job in jobs if not job[0].exists()]
    with Pool(workers) as pool:
        for _ in pool.imap_unordered(_write, missing):
            pass


def read(path: Path) -> Chunk:
    """Return one file of cached scenes."""
    with np.load(path) as data:
        ends = np.cumsum(data["counts"])[:-1]
        return Chunk(
            images=data["images"],
            depths=data["depths"],
            canny=data["canny"],
            people=np.split(data["joints"], ends),
            attributes=[dict(pair.split("=") for pair in row) for row in data["attributes"].tolist()],
        )
