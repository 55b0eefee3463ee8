"""The sky: gradient, sun or moon, stars and clouds."""

import cv2
import numpy as np

from training.canvas import PERIODS_OUTSIDE, SUBPIXEL_BITS, Canvas, Floats
from training.palette import Light

CLOUDS = ("clear", "scattered", "cloudy")


def paint_sky(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, clouds: str, horizon: float) -> None:
    """Paint the whole sky; `horizon` is the row (px) at which its gradient ends."""
    _gradient(canvas, light, horizon)
    if time == "night":
        _stars(canvas, rng, horizon)
    if time != "overcast" and rng.random() < 0.75:
        _orb(canvas, rng, light, time, horizon)
    if clouds != "clear":
        count = {"scattered": 3.0, "cloudy": 7.0}[clouds] * canvas.period / canvas.height
        flat = time in ("dawn", "sunset", "overcast") or rng.random() < 0.25
        _clouds(canvas, rng, light, max(1, round(count * rng.uniform(0.6, 1.2))), horizon, flat=flat)


def _gradient(canvas: Canvas, light: Light, horizon: float) -> None:
    place = np.clip(canvas.rows() / horizon, 0, 1)
    stops = np.stack([light.top, light.middle, light.horizon])
    column = np.stack([np.interp(place[:, 0], (0, 0.58, 1), stops[:, channel]) for channel in range(3)], -1)
    canvas.image[:] = column[:, None, :]


def _discs(canvas: Canvas, circles: list[tuple[float, float, float]]) -> Floats:
    """Return the antialiased cover of circles (x, y, radius), repeated at the period."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    unit = 2**SUBPIXEL_BITS
    for x, y, radius in circles:
        for turn in PERIODS_OUTSIDE:
            at = x + turn * canvas.period
            if -radius - 1 <= at <= canvas.width + radius + 1:
                centre = (round((at - 0.5) * unit), round((y - 0.5) * unit))
                cv2.circle(mask, centre, round(radius * unit), 255, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask.astype(np.float32) / 255


def _stars(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    count = round(rng.uniform(5, 10) * canvas.period / canvas.height)
    circles = [
        (rng.random() * canvas.period, rng.random() * horizon * 0.8, canvas.scale * rng.uniform(1.1, 1.9))
        for _ in range(count)
    ]
    canvas.paint(_discs(canvas, circles), (236, 238, 240), None)


def _orb(canvas: Canvas, rng: np.random.Generator, light: Light, time: str, horizon: float) -> None:
    """Paint the sun, or the moon by night, with its glow."""
    scale = canvas.scale
    low, high = {"noon": (0.12, 0.4), "night": (0.14, 0.5)}.get(time, (0.55, 0.95))
    radius = scale * (rng.uniform(14, 24) if time in ("dawn", "sunset") else rng.uniform(11, 17))
    x, y = rng.random() * canvas.period, max(rng.uniform(low, high) * horizon, radius + 4 * scale)
    across = np.abs(canvas.columns() - x)
    across = np.minimum(across, canvas.period - across)
    away = np.hypot(across[None, :], canvas.rows() - y)
    reach = scale * (95 if time in ("dawn", "sunset") else 48)
    strength = 0.3 if time == "night" else 0.6
    canvas.paint((strength * np.exp(-((away / reach) ** 2))).astype(np.float32), light.glow, None)
    canvas.paint(_discs(canvas, [(x, y, radius)]), light.glow, None)
    if time == "night" and rng.random() < 0.5:  # a crescent: the sky covers part of the disc
        row = int(np.clip(y, 0, canvas.height - 1))
        dark = light.top + (light.middle - light.top) * min(1.0, row / horizon / 0.58)
        cover = _discs(canvas, [(x + radius * 0.55, y - radius * 0.3, radius * 0.92)])
        canvas.paint(cover, dark + np.float32(0.22) * (light.glow - dark), None)


def _clouds(canvas: Canvas, rng: np.random.Generator, light: Light, count: int, horizon: float, *, flat: bool) -> None:
    """Paint clouds: long lozenges (`flat`) or heaps with a level base; lit above, shaded below."""
    scale = canvas.scale
    circles: list[tuple[float, float, float]] = []
    for _ in range(count):
        x, place = rng.random() * canvas.period, rng.uniform(0.05, 0.72)
        size = scale * rng.uniform(0.6, 1.3) * (1.25 - place)
        circles += _lozenge(rng, x, place * horizon, size) if flat else _heap(rng, x, place * horizon, size)
    cover = _soft(_discs(canvas, circles), 1.6 * scale)
    lowered = [(x, y + 0.45 * radius, radius * 0.9) for x, y, radius in circles]
    lower = _soft(_discs(canvas, lowered), 3.5 * scale)
    colour = light.cloud + (0.75 * lower)[..., None] * (light.shade - light.cloud)
    fade = np.clip(1.3 - canvas.rows() / horizon, 0, 1)
    canvas.paint((cover * fade).astype(np.float32), colour, None)


def _soft(cover: Floats, sigma: float) -> Floats:
    """Return a cover blurred as if the picture closed to a ring, so that tiles meet without a seam."""
    margin = min(int(4 * sigma) + 1, cover.shape[1])
    ring = cv2.copyMakeBorder(cover, 0, 0, margin, margin, cv2.BORDER_WRAP)
    return np.asarray(cv2.GaussianBlur(ring, (0, 0), sigma)[:, margin:-margin], np.float32)


def _lozenge(rng: np.random.Generator, x: float, y: float, size: float) -> list[tuple[float, float, float]]:
    """Return the circles of a long flat cloud: two or three rounded bars, one above the other."""
    circles = []
    for bar in range(rng.integers(1, 4)):
        half, radius = size * rng.uniform(28, 70), size * rng.uniform(5, 9)
        middle = x + rng.uniform(-0.5, 0.5) * half
        for step in np.linspace(-half, half, max(2, int(2.5 * half / radius))):
            thin = radius * (1 - 0.55 * (step / half) ** 2)
            circles.append((middle + step, y + bar * size * 11, thin))
    return circles


def _heap(rng: np.random.Generator, x: float, y: float, size: float) -> list[tuple[float, float, float]]:
    """Return the circles of a heaped cloud, large in the middle, small at its ends, on one base line."""
    half = size * rng.uniform(26, 48)
    circles = []
    for step in np.linspace(-1, 1, rng.integers(5, 8)):
        radius = size * (19 - 12 * abs(step)) * rng.uniform(0.8, 1.15)
        circles.append((x + step * half, y - radius * 0.75, radius))
        circles.append((x + step * half, y - size * 5, size * 6))
    return circles
