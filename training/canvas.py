"""What a scene is painted on: picture and depth together, and the curves that outline its layers."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Colour = tuple[float, float, float]  # RGB, 0..255
Polygon = list[tuple[float, float]]  # x px, y px

SUBPIXEL_BITS = 4  # fractional bits of OpenCV's drawing coordinates
PERIODS_OUTSIDE = (-1, 0, 1)  # copies of a shape that can reach into the picture


@dataclass
class Canvas:
    """A picture that is painted back to front, with the depth of what is painted."""

    image: Floats  # (H, W, 3), RGB 0..255
    depth: Floats  # (H, W), near = 1, sky = 0
    period: float  # px after which the scene repeats; equal to the width when the scene tiles

    @classmethod
    def blank(cls, height: int, width: int, *, tileable: bool) -> "Canvas":
        """Return an empty canvas; without `tileable` the scene repeats only well outside the picture."""
        period = float(width if tileable else width + 2 * height)
        return cls(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32), period)

    @property
    def height(self) -> int:
        """Height in px."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Width in px."""
        return int(self.image.shape[1])

    @property
    def scale(self) -> float:
        """Size of things relative to a picture 256 px high."""
        return self.height / 256

    def rows(self) -> Floats:
        """Return the y of every row's middle, (H, 1)."""
        return (np.arange(self.height, dtype=np.float32) + 0.5)[:, None]

    def columns(self) -> Floats:
        """Return the x of every column's middle, (W,)."""
        return np.arange(self.width, dtype=np.float32) + 0.5

    def below(self, outline: Floats, top: int) -> Floats:
        """Return the antialiased cover (H - top, W), 0..1, of what lies below an outline, from row `top` down."""
        return np.asarray(np.clip(self.rows()[top:] - outline[None, :] + 0.5, 0, 1), np.float32)

    def paint(self, cover: Floats, colour: Floats | Colour, depth: Floats | float | None, top: int = 0) -> None:
        """Blend a colour over rows `top` and below where `cover` (h, W) is set; set the depth where it prevails."""
        rows = slice(top, top + cover.shape[0])
        target = self.image[rows]
        target += cover[..., None] * (np.asarray(colour, np.float32) - target)
        if depth is not None:
            self.depth[rows] = np.where(cover >= 0.5, depth, self.depth[rows])

    def stencil(self, polygons: list[Polygon]) -> tuple[Floats, int]:
        """Return the antialiased cover of polygons, repeated at the period, and the row that it starts at."""
        shapes = []
        for polygon in polygons:
            points = np.asarray(polygon, np.float32)
            for turn in PERIODS_OUTSIDE:
                moved = points + np.array([turn * self.period, 0], np.float32)
                if moved[:, 0].max() >= 0 and moved[:, 0].min() <= self.width:
                    shapes.append(moved)
        if not shapes:
            return np.zeros((1, self.width), np.float32), 0
        top = int(np.clip(min(s[:, 1].min() for s in shapes) - 2, 0, self.height - 1))
        bottom = int(np.clip(max(s[:, 1].max() for s in shapes) + 2, top + 1, self.height))
        mask = np.zeros((bottom - top, self.width), np.uint8)
        for shape in shapes:
            fixed = np.round((shape - (0.5, top + 0.5)) * 2**SUBPIXEL_BITS).astype(np.int32)
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return mask.astype(np.float32) / 255, top


def waves(rng: np.random.Generator, x: Floats, period: float, *, length: float, octaves: int = 3) -> Floats:
    """Return a smooth random curve over `x`, about -1..1, with features of about `length` px, periodic."""
    curve = np.zeros_like(x)
    for octave in range(octaves):
        turns = max(1, round(period / length * 1.7**octave * rng.uniform(0.8, 1.2)))
        curve += 0.5**octave * np.sin(2 * np.pi * (turns * x / period + rng.random())).astype(np.float32)
    return curve / 1.5


def zigzag(rng: np.random.Generator, x: Floats, period: float, *, length: float) -> Floats:
    """Return straight segments over `x` that rise and fall by turns between -1 and 1, periodic."""
    knots, heights = peaks(rng, period, length=length)
    return np.interp(x, knots, heights, period=period).astype(np.float32)


def peaks(rng: np.random.Generator, period: float, *, length: float) -> tuple[Floats, Floats]:
    """Return the knots (x, y) of a ridge: peaks near +1 and saddles near -1 by turns, about `length` px apart."""
    count = 2 * max(1, round(period / (2 * length)))
    spread = rng.uniform(-0.3, 0.3, count)
    knots = ((np.arange(count) + spread + rng.random()) * period / count) % period
    heights = np.where(np.arange(count) % 2 == 0, rng.uniform(0.1, 1, count), rng.uniform(-1, -0.25, count))
    order = np.argsort(knots)
    return knots[order].astype(np.float32), heights[order].astype(np.float32)
