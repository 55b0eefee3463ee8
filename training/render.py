"""The world of the bundled model: wide scenes with exact depth, exact joints and a caption."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.biomes import PAINTERS
from training.canvas import Canvas
from training.captions import caption, people_word
from training.figures import paint_people
from training.palette import TIMES, light
from training.sky import CLOUDS, paint_sky

__all__ = ["BIOMES", "TIMES", "Scene", "render"]

BIOMES = tuple(PAINTERS)
_PEOPLE_SHARE = 0.4  # of scenes, where the number of people is left open
_CHOICES = {"time": TIMES, "biome": BIOMES, "clouds": CLOUDS}
_ODDS = {"clouds": (0.3, 0.45, 0.25)}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One rendered picture and what is known about it."""

    image: NDArray[np.uint8]  # (H, W, 3), RGB
    depth: NDArray[np.float32]  # (H, W), near = 1, sky = 0
    people: NDArray[np.float32]  # (n, 18, 3): x px, y px, visible 0 or 1; OpenPose COCO-18 order
    attributes: dict[str, str]  # time, biome, clouds, people
    caption: str


def render(
    rng: np.random.Generator,
    *,
    height: int = 256,
    width: int = 256,
    tileable: bool = False,
    people: int | None = None,
    **attributes: str,
) -> Scene:
    """Return a random scene of any size; attributes that are given (time, biome, clouds) are kept, the rest drawn.

    Args:
        rng: the only source of randomness.
        height: px; things are sized in proportion to it.
        width: px; more width is more scene.
        tileable: the right edge continues at the left edge.
        people: how many; None draws it.

    Raises:
        ValueError: an attribute or a value that this world does not have.
    """
    for name, value in attributes.items():
        if name not in _CHOICES or value not in _CHOICES[name]:
            raise ValueError(f"this world has no {name}={value!r}; it has {_CHOICES}")
    drawn = {name: str(rng.choice(values, p=_ODDS.get(name))) for name, values in _CHOICES.items()}
    chosen = drawn | attributes
    if people is None:
        most = max(1, min(6, width // 80))
        people = int(rng.integers(1, most + 1)) if rng.random() < _PEOPLE_SHARE else 0
    canvas = Canvas.blank(height, width, tileable=tileable)
    glow = light(rng, chosen["time"])
    horizon = height * rng.uniform(0.46, 0.66)
    paint_sky(canvas, rng, glow, chosen["time"], chosen["clouds"], horizon)
    ground = PAINTERS[chosen["biome"]](canvas, rng, glow, chosen["time"], horizon)
    joints = paint_people(canvas, rng, glow, people, ground=ground.row, near=ground.depth)
    chosen["people"] = people_word(len(joints))
    return Scene(
        image=np.clip(np.round(canvas.image), 0, 255).astype(np.uint8),
        depth=np.clip(canvas.depth, 0, 1).astype(np.float32),
        people=joints.astype(np.float32),
        attributes=chosen,
        caption=caption(rng, chosen),
    )
