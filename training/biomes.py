"""One painter a biome: from the farthest layer to the ground that people stand on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.canvas import Canvas, Floats
from training.palette import Light
from training.terrain import Ridge, paint_dune, paint_hill, paint_mesas, paint_ridge, paint_water
from training.things import (
    Footing,
    paint_boats,
    paint_buildings,
    paint_cacti,
    paint_conifers,
    paint_round_trees,
)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The plane that people stand on."""

    row: float  # px, its far edge
    depth: float  # 0..1, there


Painter = Callable[[Canvas, np.random.Generator, Light, str, float], Ground]

_ROCK = (120, 116, 124)
_SNOW = (246, 248, 252)
_GRASS = (108, 158, 76)
_NEEDLES = (38, 84, 66)
_SAND = (226, 178, 112)


def _on(outline: Floats, sink: float = 2.0) -> Footing:
    """Return a footing on an outline that was painted over the full width, `sink` px into it."""

    def footing(x: float) -> float:
        inside = int(np.clip(x, 0, len(outline) - 1))
        return float(outline[inside]) + sink

    return footing


def _ranges(
    canvas: Canvas, rng: np.random.Generator, light: Light, horizon: float, *, count: int, rise: float, snowy: bool
) -> None:
    """Paint `count` ranges, the farther ones higher and paler."""
    for index in range(count):
        near = (index + 1) / (count + 1)
        paint_ridge(
            canvas,
            rng,
            light,
            Ridge(
                base=horizon - canvas.scale * rise * (0.85 - 0.8 * near),
                rise=rise * rng.uniform(0.6, 1.0) * (1.15 - 0.5 * near),
                length=rng.uniform(36, 62),
                rock=_ROCK,
                snow=_SNOW if snowy and near < 0.6 else None,
                distance=0.62 - 0.5 * near,
                depth=0.1 + 0.26 * near,
            ),
        )


def _alpine(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    _ranges(canvas, rng, light, horizon, count=int(rng.integers(2, 4)), rise=rng.uniform(34, 62), snowy=True)
    scale, drop = canvas.scale, canvas.height - horizon
    hill = paint_hill(canvas, rng, light.on(_NEEDLES, 0.18), base=horizon + 0.16 * drop, rise=8, length=110, depth=0.44)
    paint_conifers(canvas, rng, light.on(_NEEDLES, 0.18), _on(hill), tall=24, spacing=17, depth=0.46)
    row = horizon + rng.uniform(0.4, 0.6) * drop
    front = paint_hill(canvas, rng, light.on(_GRASS), base=row, rise=7, length=170, depth=0.66)
    if rng.random() < 0.6:
        paint_conifers(canvas, rng, light.on(_NEEDLES), _on(front, 6 * scale), tall=58, spacing=85, depth=0.7)
    return Ground(row=row, depth=0.7)


def _snow(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    _ranges(canvas, rng, light, horizon, count=int(rng.integers(1, 3)), rise=rng.uniform(26, 48), snowy=True)
    drop = canvas.height - horizon
    row = horizon
    for near in (0.2, 0.55):
        row = horizon + near * drop
        white = light.on((236 - 26 * (1 - near), 242 - 18 * (1 - near), 250), 0.3 * (0.6 - near))
        hill = paint_hill(canvas, rng, white, base=row, rise=9, length=150, depth=0.36 + 0.5 * near)
        paint_conifers(
            canvas, rng, light.on((64, 96, 96), 0.3 * (0.6 - near)), _on(hill, 3), tall=26 + 50 * near,
            spacing=30 + 70 * near, depth=0.39 + 0.5 * near,
        )  # fmt: skip
    return Ground(row=row, depth=0.68)


def _desert(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    drop = canvas.height - horizon
    if rng.random() < 0.65:
        paint_mesas(canvas, rng, light, foot=horizon + 6 * canvas.scale, distance=0.45, depth=0.16)
        if rng.random() < 0.5:
            paint_mesas(canvas, rng, light, foot=horizon + 8 * canvas.scale, distance=0.2, depth=0.25)
    for near in (0.06, 0.34, 0.66):
        sand = light.on(_SAND, 0.45 * (0.66 - near)) * (1.04 - 0.12 * near)
        paint_dune(canvas, rng, sand, base=horizon + near * drop, rise=7 + 9 * near, depth=0.34 + 0.5 * near)
    row = horizon + 0.66 * drop
    if rng.random() < 0.4:
        paint_cacti(canvas, rng, light, lambda x: row + 0.12 * drop, depth=0.72)
    return Ground(row=row, depth=0.74)


def _forest(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    if rng.random() < 0.7:
        _ranges(canvas, rng, light, horizon, count=int(rng.integers(1, 3)), rise=rng.uniform(24, 46), snowy=False)
    drop = canvas.height - horizon
    for near in (0.0, 0.3, 0.6):
        green = light.on(_NEEDLES, 0.5 * (0.75 - near)) * (1.12 - 0.3 * near)
        hill = paint_hill(
            canvas, rng, green, base=horizon + (0.12 + near) * drop, rise=6, length=140, depth=0.38 + 0.42 * near
        )
        paint_conifers(
            canvas, rng, green, _on(hill, 4), tall=38 + 66 * near, spacing=11 + 14 * near, depth=0.4 + 0.42 * near
        )
    row = horizon + 0.86 * drop
    paint_hill(canvas, rng, light.on((86, 104, 62)), base=row, rise=4, length=200, depth=0.8)
    return Ground(row=row - 0.2 * drop, depth=0.78)


def _grassland(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    if rng.random() < 0.5:
        _ranges(canvas, rng, light, horizon, count=1, rise=rng.uniform(16, 34), snowy=False)
    drop, row = canvas.height - horizon, horizon
    for near in (0.0, 0.25, 0.55):
        row = horizon + near * drop
        grass = light.on((130 - 36 * near, 172 - 26 * near, 84 - 14 * near), 0.42 * (0.55 - near))
        hill = paint_hill(canvas, rng, grass, base=row, rise=12, length=150, depth=0.3 + 0.62 * near)
        if rng.random() < 0.6:
            paint_round_trees(canvas, rng, light, _on(hill), tall=28 + 62 * near, depth=0.33 + 0.62 * near)
    return Ground(row=row, depth=0.7)


def _lake(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    _ranges(canvas, rng, light, horizon, count=int(rng.integers(1, 3)), rise=rng.uniform(30, 54), snowy=True)
    scale, drop = canvas.scale, canvas.height - horizon
    shore = horizon + 0.16 * drop
    bank = paint_hill(canvas, rng, light.on(_NEEDLES, 0.2), base=shore - 7 * scale, rise=4, length=90, depth=0.4)
    if rng.random() < 0.7:
        paint_conifers(canvas, rng, light.on(_NEEDLES, 0.2), _on(bank), tall=24, spacing=18, depth=0.42)
    paint_water(canvas, rng, light, shore, depth=0.45)
    row = horizon + 0.84 * drop
    front = paint_hill(canvas, rng, light.on(_GRASS) * 0.86, base=row, rise=5, length=150, depth=0.86)
    if rng.random() < 0.4:
        paint_conifers(canvas, rng, light.on(_NEEDLES), _on(front, 8 * scale), tall=72, spacing=120, depth=0.9)
    return Ground(row=row - 0.1 * drop, depth=0.86)


def _sea(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    scale, drop = canvas.scale, canvas.height - horizon
    for distance, depth in ((0.6, 0.12), (0.35, 0.2)):
        if rng.random() < 0.6:
            colour = light.on((96, 112, 104), distance)
            base, rise = horizon + rng.uniform(2, 10) * scale, rng.uniform(14, 24)
            paint_hill(canvas, rng, colour, base=base, rise=rise, length=220, depth=depth)
    paint_water(canvas, rng, light, horizon, depth=0.26)
    paint_boats(canvas, rng, light, horizon)
    row = horizon + 0.8 * drop
    paint_hill(canvas, rng, light.on((232, 206, 158)), base=row, rise=5, length=190, depth=0.84)
    return Ground(row=row - 0.08 * drop, depth=0.84)


def _city(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> Ground:
    scale, drop = canvas.scale, canvas.height - horizon
    foot = horizon + 0.3 * drop
    for tall, distance, depth in ((112, 0.55, 0.16), (92, 0.3, 0.28), (66, 0.08, 0.42)):
        paint_buildings(canvas, rng, light, time, foot=foot, tall=tall, distance=distance, depth=depth)
    if rng.random() < 0.5:
        paint_water(canvas, rng, light, foot, depth=0.5)
        row = horizon + 0.86 * drop
        paint_hill(canvas, rng, light.on((150, 146, 140)), base=row, rise=1, length=200, depth=0.86)
        return Ground(row=row - 0.1 * drop, depth=0.86)
    lawn = paint_hill(canvas, rng, light.on(_GRASS) * 0.9, base=foot + 3 * scale, rise=1.5, length=160, depth=0.54)
    paint_round_trees(canvas, rng, light, _on(lawn, 4 * scale), tall=34, depth=0.58)
    row = foot + 0.45 * (canvas.height - foot)
    paint_hill(canvas, rng, light.on((158, 154, 150)), base=row, rise=1, length=220, depth=0.74)
    return Ground(row=row, depth=0.74)


PAINTERS: dict[str, Painter] = {
    "alpine": _alpine,
    "snow": _snow,
    "desert": _desert,
    "forest": _forest,
    "grassland": _grassland,
    "lake": _lake,
    "sea": _sea,
    "city": _city,
}
