"""What stands on the land: conifers, round trees, cacti, boats and buildings."""

from collections.abc import Callable

import numpy as np

from training.canvas import Canvas, Floats, Polygon
from training.palette import Light

Footing = Callable[[float], float]  # x px -> y px of the ground


def conifer(x: float, foot: float, tall: float, lean: float = 0.0) -> Polygon:
    """Return the outline of a conifer of three tiers, `tall` px high, that stands at (x, foot)."""
    wide = tall * 0.2
    right = [
        (0.0, -1.0),
        (0.5, -0.66),
        (0.26, -0.67),
        (0.76, -0.36),
        (0.42, -0.38),
        (1.0, -0.08),
        (0.16, -0.08),
        (0.16, 0.04),
    ]
    left = [(-across, up) for across, up in reversed(right[1:])]
    return [(x + across * wide - up * lean, foot + up * tall) for across, up in right + left]


def paint_conifers(
    canvas: Canvas,
    rng: np.random.Generator,
    colour: Floats,
    footing: Footing,
    *,
    tall: float,
    spacing: float,
    depth: float,
) -> None:
    """Paint a row of conifers about `spacing` px apart, of about `tall` px (both at 256 px high)."""
    count = max(1, round(canvas.period / (spacing * canvas.scale)))
    trees = []
    for index in range(count):
        x = (index + rng.uniform(0, 0.9)) * canvas.period / count
        trees.append(conifer(x, footing(x), tall * canvas.scale * rng.uniform(0.62, 1.15)))
    cover, top = canvas.stencil(trees)
    canvas.paint(cover, colour, depth, top)


def paint_round_trees(
    canvas: Canvas, rng: np.random.Generator, light: Light, footing: Footing, *, tall: float, depth: float
) -> None:
    """Paint a few round trees with trunks, the crown lit from the left."""
    trunks: list[Polygon] = []
    crowns: list[Polygon] = []
    lit: list[Polygon] = []
    for _ in range(max(1, round(rng.uniform(1, 3.5) * canvas.period / canvas.height))):
        x, size = rng.random() * canvas.period, tall * canvas.scale * rng.uniform(0.7, 1.2)
        foot = footing(x) + 2
        trunks.append(
            [
                (x - size * 0.05, foot),
                (x - size * 0.04, foot - size * 0.5),
                (x + size * 0.04, foot - size * 0.5),
                (x + size * 0.05, foot),
            ]
        )
        crowns.append(_oval(x, foot - size * 0.62, size * 0.34, size * 0.38))
        lit.append(_oval(x - size * 0.07, foot - size * 0.68, size * 0.24, size * 0.27))
    green = light.on((62, 122, 60), 0.08)
    for polygons, colour, near in (
        (trunks, light.on((92, 64, 48)), depth),
        (crowns, green, depth),
        (lit, green * 1.22, None),
    ):
        cover, top = canvas.stencil(polygons)
        canvas.paint(cover, colour, near, top)


def _oval(x: float, y: float, across: float, up: float) -> Polygon:
    turns = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return [(x + across * float(np.cos(turn)), y + up * float(np.sin(turn))) for turn in turns]


def paint_cacti(canvas: Canvas, rng: np.random.Generator, light: Light, footing: Footing, *, depth: float) -> None:
    """Paint a few cacti with two arms."""
    cacti: list[Polygon] = []
    for _ in range(max(1, round(rng.uniform(0.5, 2.5) * canvas.period / canvas.height))):
        x, size = rng.random() * canvas.period, canvas.scale * rng.uniform(34, 62)
        foot, w = footing(x) + 2, size * 0.085
        cacti.append([(x - w, foot), (x - w, foot - size), (x + w, foot - size), (x + w, foot)])
        for side, low, high in ((-1, rng.uniform(0.3, 0.45), 0.75), (1, rng.uniform(0.4, 0.55), 0.85)):
            out = x + side * size * 0.25
            cacti.append(
                [
                    (x, foot - size * low),
                    (out + side * w, foot - size * low),
                    (out + side * w, foot - size * high),
                    (out - side * w, foot - size * high),
                    (out - side * w, foot - size * low - 2 * w),
                    (x, foot - size * low - 2 * w),
                ]
            )
    cover, top = canvas.stencil(cacti)
    canvas.paint(cover, light.on((66, 110, 70)), depth, top)


def paint_boats(canvas: Canvas, rng: np.random.Generator, light: Light, shore: float) -> None:
    """Paint sailing boats on the water beyond row `shore`."""
    for _ in range(round(rng.uniform(0, 1.6) * canvas.period / canvas.height)):
        near = rng.uniform(0.08, 0.45)
        x, y = rng.random() * canvas.period, shore + near * (canvas.height - shore)
        size = canvas.scale * (16 + 46 * near)
        parts: tuple[tuple[Polygon, Floats], ...] = (
            (
                [
                    (x - 0.5 * size, y - 0.14 * size),
                    (x + 0.6 * size, y - 0.14 * size),
                    (x + 0.4 * size, y + 0.06 * size),
                    (x - 0.38 * size, y + 0.06 * size),
                ],
                light.on((122, 62, 50)),
            ),
            (
                [
                    (x + 0.04 * size, y - 0.2 * size),
                    (x + 0.04 * size, y - 1.3 * size),
                    (x + 0.56 * size, y - 0.26 * size),
                ],
                light.on((246, 240, 228)),
            ),
            (
                [
                    (x - 0.02 * size, y - 0.2 * size),
                    (x - 0.02 * size, y - 1.1 * size),
                    (x - 0.44 * size, y - 0.24 * size),
                ],
                light.on((226, 214, 200)),
            ),
        )
        for polygon, colour in parts:
            cover, top = canvas.stencil([polygon])
            canvas.paint(cover, colour, 0.36 + 0.5 * near, top)


_WALLS = ((112, 120, 140), (140, 124, 120), (96, 112, 128), (150, 140, 126), (118, 104, 118), (128, 138, 132))


def paint_buildings(
    canvas: Canvas,
    rng: np.random.Generator,
    light: Light,
    time: str,
    *,
    foot: float,
    tall: float,
    distance: float,
    depth: float,
) -> None:
    """Paint a row of towers on row `foot`, up to `tall` px (at 256 px high), nearer ones with windows."""
    scale = canvas.scale
    count = max(2, round(canvas.period / (36 * scale)))
    cell = canvas.period / count
    for index in range(count):
        wide = cell * rng.uniform(0.7, 1.0)
        x = (index + rng.uniform(0, 0.25)) * cell
        high = scale * tall * rng.uniform(0.4, 1.0)
        wall = light.on(_WALLS[rng.integers(len(_WALLS))], distance)
        body: list[Polygon] = [_box(x, foot - high, wide, high + 3)]
        if rng.random() < 0.35:
            body.append(_box(x + wide * 0.25, foot - high - 9 * scale, wide * 0.5, 10 * scale))
        near = depth + 0.03 * (index % 3) - 0.03
        cover, top = canvas.stencil(body)
        canvas.paint(cover, wall, near, top)
        cover, top = canvas.stencil([_box(x + wide * 0.78, foot - high, wide * 0.22, high + 3)])
        canvas.paint(cover, wall * 0.82, None, top)
        if distance < 0.35:
            _paint_windows(canvas, rng, light, time, (x, foot - high, wide * 0.78, high))


def _paint_windows(
    canvas: Canvas, rng: np.random.Generator, light: Light, time: str, wall: tuple[float, float, float, float]
) -> None:
    """Paint the windows of one wall (x, y, wide, high): lit ones warm in the dark hours."""
    x, y, wide, high = wall
    pitch = 11 * canvas.scale
    columns, rows = int((wide - 3) / pitch), int((high - 4) / (pitch * 1.2))
    margin = (wide - columns * pitch + 5 * canvas.scale) / 2
    share = {"night": 0.6, "sunset": 0.5, "dawn": 0.3, "overcast": 0.15, "noon": 0.0}[time]
    lit: list[Polygon] = []
    dark: list[Polygon] = []
    for row in range(rows):
        for column in range(columns):
            pane = _box(
                x + margin + column * pitch,
                y + 6 * canvas.scale + row * pitch * 1.2,
                6 * canvas.scale,
                7 * canvas.scale,
            )
            (lit if rng.random() < share else dark).append(pane)
    for panes, colour in ((dark, light.on((70, 92, 124), 0.1)), (lit, np.asarray((255, 214, 120), np.float32))):
        if panes:
            cover, top = canvas.stencil(panes)
            canvas.paint(cover, colour, None, top)


def _box(x: float, y: float, wide: float, high: float) -> Polygon:
    return [(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)]
