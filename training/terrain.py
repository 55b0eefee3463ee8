"""Land and water: ridges, hills, dunes, mesas, lakes."""

from dataclasses import dataclass

import cv2
import numpy as np

from training.canvas import Canvas, Colour, Floats, Polygon, peaks, waves, zigzag
from training.palette import Light

HILL_RISE = 0.07  # how much nearer a hill's foot is than its crest


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """One range of mountains; lengths in px of a picture 256 px high."""

    base: float  # row (px) of its mean height
    rise: float  # half the height between saddles and peaks
    length: float  # distance from peak to saddle
    rock: Colour
    snow: Colour | None  # colour of its caps, if any
    distance: float  # 0 near .. 1 lost in the haze
    depth: float  # of its crest, 0..1


def paint_ridge(canvas: Canvas, rng: np.random.Generator, light: Light, ridge: Ridge) -> None:
    """Paint a range: facets lit on one side of every peak, dark on the other, with or without snow."""
    scale, x = canvas.scale, canvas.columns()
    knots, heights = peaks(rng, canvas.period, length=ridge.length * scale)
    rough = zigzag(rng, x, canvas.period, length=9 * scale) * 1.8 * scale
    crest = np.interp(x, knots, heights, period=canvas.period).astype(np.float32)
    outline = ridge.base - ridge.rise * scale * crest + rough
    top = int(np.clip(np.floor(outline.min()) - 1, 0, canvas.height - 1))
    below = (canvas.rows()[top:] - outline[None, :]) / scale
    rock = np.broadcast_to(light.on(ridge.rock, ridge.distance), (*below.shape, 3)).copy()
    if ridge.snow is not None:
        line = 11 + 15 * crest + 7 * zigzag(rng, x, canvas.period, length=13 * scale)
        cap = np.clip((line[None, :] - below) * scale + 0.5, 0, 1)
        rock += cap[..., None] * (light.on(ridge.snow, ridge.distance) - rock)
    rock *= (1 - 0.28 * (1 - ridge.distance) * _shadow(rng, canvas, knots, heights, below))[..., None]
    fog = np.clip(below / (2.6 * ridge.rise), 0, 1) * 0.35
    rock += fog[..., None] * (light.haze - rock)
    near = ridge.depth + np.clip(below / 200, 0, 1) * HILL_RISE
    canvas.paint(canvas.below(outline, top), rock, near.astype(np.float32), top)


def _shadow(rng: np.random.Generator, canvas: Canvas, knots: Floats, heights: Floats, below: Floats) -> Floats:
    """Return where (0..1) a range's facets lie in shadow: right of each peak, left of each saddle."""
    scale = canvas.scale
    top = canvas.height - below.shape[0]
    down = canvas.rows()[top:, 0]
    shift = 5 * scale * zigzag(rng, down, 4.0 * canvas.height, length=17 * scale) + 0.12 * (down - top)
    falls = np.where(heights > np.roll(heights, -1), 1.0, 0.0)  # of the segment that starts at each knot
    edges = np.concatenate([knots - 0.5 * scale, knots + 0.5 * scale])
    sides = np.concatenate([np.roll(falls, 1), falls])
    order = np.argsort(edges)
    at = canvas.columns()[None, :] - shift[:, None]
    shadow = np.interp(at, edges[order], sides[order], period=canvas.period)
    return np.asarray(shadow * np.clip(1.3 - below / 75, 0, 1), np.float32)


def paint_hill(
    canvas: Canvas,
    rng: np.random.Generator,
    colour: Floats,
    *,
    base: float,
    rise: float,
    length: float,
    depth: float,
) -> Floats:
    """Paint a smooth hill over the full width and return its outline (W,), px."""
    scale, x = canvas.scale, canvas.columns()
    outline = base - rise * scale * waves(rng, x, canvas.period, length=length * scale)
    top = int(np.clip(np.floor(outline.min()) - 1, 0, canvas.height - 1))
    below = np.clip((canvas.rows()[top:] - outline[None, :]) / (80 * scale), 0, 1)
    shaded = colour * (1.06 - 0.3 * below)[..., None]
    canvas.paint(canvas.below(outline, top), shaded, (depth + HILL_RISE * below).astype(np.float32), top)
    return outline.astype(np.float32)


def paint_dune(
    canvas: Canvas, rng: np.random.Generator, colour: Floats, *, base: float, rise: float, depth: float
) -> None:
    """Paint dunes: sharp crests, the side away from the light dark."""
    scale, x = canvas.scale, canvas.columns()
    knots, heights = peaks(rng, canvas.period, length=rng.uniform(70, 130) * scale)
    ridge = np.interp(x, knots, heights, period=canvas.period)
    soft = waves(rng, x, canvas.period, length=160 * scale, octaves=2)
    outline = (base - rise * scale * (0.75 * np.sin(ridge * np.pi / 2) + 0.5 * soft)).astype(np.float32)
    top = int(np.clip(np.floor(outline.min()) - 1, 0, canvas.height - 1))
    below = ((canvas.rows()[top:] - outline[None, :]) / scale).astype(np.float32)
    at = x[None, :] - 0.9 * scale * below - 7 * scale * np.sin(below / 13)
    falls = np.where(heights > np.roll(heights, -1), 1.0, 0.0)
    edges = np.concatenate([knots - 0.6 * scale, knots + 0.6 * scale])
    sides = np.concatenate([np.roll(falls, 1), falls])
    order = np.argsort(edges)
    dark = np.interp(at, edges[order], sides[order], period=canvas.period) * np.clip(1.2 - below / 45, 0, 1)
    shaded = colour * (1.04 - 0.24 * dark)[..., None].astype(np.float32)
    near = depth + HILL_RISE * np.clip(below / 80, 0, 1)
    canvas.paint(canvas.below(outline, top), shaded, near.astype(np.float32), top)


def paint_mesas(
    canvas: Canvas, rng: np.random.Generator, light: Light, *, foot: float, distance: float, depth: float
) -> None:
    """Paint table mountains that stand on row `foot`, banded, with one side in shadow."""
    scale = canvas.scale
    bodies: list[Polygon] = []
    sides: list[Polygon] = []
    for _ in range(max(1, round(rng.uniform(0.8, 2.2) * canvas.period / canvas.height))):
        x, half, tall = rng.random() * canvas.period, scale * rng.uniform(22, 62), scale * rng.uniform(34, 88)
        slope = scale * rng.uniform(4, 14)
        step = tall * rng.uniform(0.3, 0.6)
        right = [(x + half, foot - tall), (x + half + slope * 0.5, foot - step), (x + half + 2 * slope, foot + 4)]
        left = [(x - half - 2 * slope, foot + 4), (x - half - slope * 0.5, foot - step), (x - half, foot - tall)]
        bodies.append(left + right)
        inner = half * rng.uniform(0.2, 0.6)
        sides.append([(x + inner, foot - tall), *right, (x + inner + slope, foot + 4)])
    stone = light.on((196, 104, 66), distance)
    cover, top = canvas.stencil(bodies)
    height = (foot - canvas.rows()[top : top + cover.shape[0]]) / scale
    band = 0.93 + 0.09 * (np.sin(height * 2 * np.pi / 27) > 0.2)
    canvas.paint(cover, stone * np.broadcast_to(band, cover.shape)[..., None], depth, top)
    dark, top = canvas.stencil(sides)
    canvas.paint(0.75 * dark, stone * 0.72, None, top)


def paint_water(canvas: Canvas, rng: np.random.Generator, light: Light, shore: float, *, depth: float) -> None:
    """Paint a mirror below row `shore`: what stands above it, upside down, dimmer and streaked."""
    scale, first = canvas.scale, round(shore)
    rows = canvas.height - first
    away = (np.arange(rows, dtype=np.float32) + 0.5) / rows
    source = first - 1 - np.arange(rows) * (first - 1) / max(rows, 1) * 0.92
    source = np.clip(source, 0, first - 1).astype(np.float32)
    columns = np.arange(canvas.width, dtype=np.float32)
    mirror = cv2.remap(
        canvas.image,
        np.broadcast_to(columns[None, :], (rows, canvas.width)).copy(),
        np.broadcast_to(source[:, None], (rows, canvas.width)).copy(),
        cv2.INTER_LINEAR,
    )
    mirror = cv2.blur(mirror, (1, max(1, round(5 * scale))))
    tint = light.on((46, 110, 150)) * (1 - 0.25 * away)[:, None, None] + np.float32(0.1) * light.haze
    mirror += np.float32(0.42) * (tint - mirror)
    canvas.image[first:] = mirror
    canvas.depth[first:] = depth + (0.95 - depth) * away[:, None]
    _streaks(canvas, rng, light, shore)


def _streaks(canvas: Canvas, rng: np.random.Generator, light: Light, shore: float) -> None:
    """Paint a few level streaks of light on water, larger nearer."""
    streaks: list[Polygon] = []
    for _ in range(round(rng.uniform(4, 9) * canvas.period / canvas.height)):
        near = rng.random()
        x, y = rng.random() * canvas.period, shore + (0.06 + 0.9 * near) * (canvas.height - shore)
        half, thick = canvas.scale * (12 + 34 * near) * rng.uniform(0.6, 1.2), canvas.scale * (0.9 + 1.5 * near)
        streaks.append([(x - half, y), (x, y - thick), (x + half, y), (x, y + thick)])
    cover, top = canvas.stencil(streaks)
    canvas.paint(0.4 * cover, light.horizon, None, top)
