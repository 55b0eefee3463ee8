"""What is drawn: guides with exact control maps, prompts and seeds, all fixed; and the pictures that KID compares with.

Everything comes from the rendered world of `training/render.py`, from seeds that no training has seen.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.cache import HELD_OUT
from training.captions import BIOME_WORDS, TIME_WORDS
from training.render import BIOMES, TIMES, Scene, render
from training.samples import control_map

NONE = "none"  # the cell without a control
CONTROLS = ("depth", "canny", "pose", NONE)
VAGUE, SPECIFIC = "vague", "specific"
REFERENCES = 120  # windows that KID compares with
_STRIDE = 1001  # between the numbers of two controls: every cell has scenes, places and noise of its own
_GUIDES, _REFERENCES = HELD_OUT + 70_000, HELD_OUT + 80_000  # first seeds


@dataclass(frozen=True, kw_only=True)
class Item:
    """One montage to draw, the same for every method."""

    name: str  # of its files, without a suffix
    prompt: str
    seed: int
    scene: Scene  # rendered; as high and wide as the montage
    guide: Image.Image | None  # the exact control map, RGB


def item_name(index: int) -> str:
    """Returns the name of montage `index` of every cell, without a suffix."""
    return f"{index:02d}-{SPECIFIC if index % 2 else VAGUE}"


def item(index: int, control: str, height: int, width: int) -> Item:
    """Returns montage `index` of a control's cell: even ones have a vague prompt, odd ones name place and time.

    Args:
        index: from 0.
        control: one of `CONTROLS`.
        height: px.
        width: px.
    """
    place_in_bench = _STRIDE * CONTROLS.index(control) + index
    crowd = max(2, width // height) if control == "pose" else 0
    biome, time = BIOMES[(place_in_bench + index // 2) % len(BIOMES)], TIMES[place_in_bench % len(TIMES)]
    scene = render(
        np.random.default_rng(_GUIDES + place_in_bench),
        height=height,
        width=width,
        people=crowd,
        biome=biome,
        time=time,
    )
    place = f"{BIOME_WORDS[biome][0]} {TIME_WORDS[time][0]}" if index % 2 else "a landscape"
    return Item(
        name=item_name(index),
        prompt=f"{place} with people" if crowd else place,
        seed=place_in_bench,
        scene=scene,
        guide=None if control == NONE else Image.fromarray(control_map(scene, control)),
    )


def write_reference(folder: Path, side: int) -> None:
    """Writes `REFERENCES` rendered windows into a folder; what is there is kept.

    All places and times of day alike; every fourth has people, as one montage of four has that follows poses.

    Args:
        folder: where they go.
        side: px.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(REFERENCES):
        path = folder / f"{number:03d}.png"
        if path.exists():
            continue
        scene = render(
            np.random.default_rng(_REFERENCES + number),
            height=side,
            width=side,
            people=0 if number % 4 else 1 + number // 4 % 3,
            biome=BIOMES[(number // 4) % len(BIOMES)],
            time=TIMES[number % len(TIMES)],
        )
        Image.fromarray(scene.image).save(path)
