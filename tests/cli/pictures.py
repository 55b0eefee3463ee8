"""Guides for the tests of the command line, and what comes out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Run = Callable[..., tuple[int, str, str]]  # flags -> (exit status, stdout, stderr)
Pixels = np.ndarray
ALWAYS = ("--device", "cpu", "--quiet")  # flags of every run


def draw(path: Path, width: int = 160, height: int = 64, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 255, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(path)
    return path


def pixels(path: str | Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)
