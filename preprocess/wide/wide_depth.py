"""Depth of long guides by any estimator: square tiles, fitted together to one look at the whole guide.

Estimators answer in numbers of no fixed scale, another at every call, and see a long guide squashed, or longer than
anything they were trained on. A look at the whole guide has one scale but less detail; square tiles have the detail.
So every tile gets a scale and a shift, all found together: overlapping tiles should agree with each other, and all with
the whole. (One look for the scale and others for the detail: Miangoleh et al., arXiv 2105.14021. Nothing is learned
here.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.wide.views import closed_estimate, slices

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int_]
Doubles = npt.NDArray[np.float64]
Estimator = Callable[[Bytes], Floats]  # RGB picture (H, W, 3) to nearness (h, w): larger is nearer, of no fixed scale

NEARLY_SQUARE = 1.5  # the longer side over the shorter, up to which one look is enough
OVERLAP = 2 / 3  # of a tile, that neighbours share at least
CELLS = 16  # a tile is fitted at so many places a side, each the mean around it: noise must not lower the scale
TRUST_IN_WHOLE = 0.1  # what a squared difference from the whole counts, beside one between two tiles
LEAST_CORRELATION = 0.3  # of a tile with the whole; below it the tile's scale cannot be told
ROUNDS = 10  # of reweighting
HUBER = 1.5  # deviations from which a difference counts by its size and no longer by its square
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
ALIKE = 1e-3  # of a map's deviation: differences so small are never outliers
FLAT = 1e-6  # of a map's size: what varies less is rounding


def long_depth(estimate: Estimator, side: int, wrap: bool = False) -> Estimator:
    """Returns an estimator of one scale all over guides of any length, at the detail of the tiles that it looks at.

    A guide whose sides differ little is seen once, whole.

    Args:
        estimate: Any depth estimator; its answers may be of any size, scale and shift.
        side: Of the pictures that `estimate` was trained on, px. A larger guide is made smaller, its shorter side
            becoming this; the answer has the size of the guide so reduced.
        wrap: The guide closes to a ring, the right edge going on at the left edge, and so does the answer.
    """
    seen_whole = closed_estimate(estimate) if wrap else _sized(estimate)

    def nearness(picture: Bytes) -> Floats:
        small = _reduced(picture, side)
        height, width = small.shape[:2]
        if max(height, width) <= NEARLY_SQUARE * min(height, width):
            return seen_whole(small)
        if width > height:
            return _mosaic(_sized(estimate), seen_whole, small, wrap)
        lying = _turned(seen_whole)  # a tall ring closes within each tile, not from tile to tile
        return _mosaic(lying, lying, np.swapaxes(small, 0, 1), False).T

    return nearness


def _mosaic(look: Estimator, look_at_whole: Estimator, picture: Bytes, wrap: bool) -> Floats:
    """Returns the nearness (H, W) of a wide picture (H, W, 3); both estimators answer in their picture's size."""
    side, length = picture.shape[:2]
    columns = tile_columns(length, side, wrap)
    whole = look_at_whole(picture)
    tiles = [look(picture[:, inside]) for inside in columns]
    return feathered(fitted(tiles, columns, whole), columns, length)


def tile_columns(length: int, side: int, wrap: bool = False) -> list[Columns]:
    """Returns for each square tile of a picture (side, length) the columns (side,) that it shows, in its order.

    Args:
        length: Of the picture, px, at least `side`.
        side: Of a tile, px.
        wrap: The picture is a ring, and tiles go on from its last column to its first.
    """
    starts = slices(length, side, int(side * OVERLAP), wrap)
    return [np.arange(start, start + side) % length for start in starts]


def feathered(tiles: Sequence[Floats], columns: Sequence[Columns], length: int) -> Floats:
    """Returns the map (H, length) in which tiles (H, w), on columns (w,) each, pass into each other without steps."""
    total, weight = np.zeros((len(tiles[0]), length)), np.zeros(length)
    for tile, inside in zip(tiles, columns, strict=True):
        place = (np.arange(len(inside)) + 0.5) / len(inside)
        share = np.sin(np.pi * place) ** 2  # a third of a tile apart, shares and their squares sum to constants
        total[:, inside] += share * tile
        weight[inside] += share
    return np.asarray(total / weight, np.float32)


def fitted(tiles: Sequence[Floats], columns: Sequence[Columns], whole: Floats) -> list[Floats]:
    """Returns the tiles in the scale of the whole: each scaled and shifted, or where that fails, cut from the whole.

    A tile fails that is flat, unlike the whole, or upside down beside its neighbours.

    Args:
        tiles: Nearness (H, w) each, of any scale and shift.
        columns: For each tile the columns (w,) of the whole that it shows.
        whole: Nearness (H, W).
    """
    height, length = whole.shape
    cell = max(1, height // CELLS)
    base = _coarse(whole, np.arange(length), length, cell)
    seen = [_coarse(tile, inside, length, cell) for tile, inside in zip(tiles, columns, strict=True)]
    good = [i for i, values in enumerate(seen) if _correlation(values, base) >= LEAST_CORRELATION]
    fits = _solved([seen[i] for i in good], base)
    while (fits[:, 0] <= 0).any():
        good = [i for i, scale in zip(good, fits[:, 0], strict=True) if scale > 0]
        fits = _solved([seen[i] for i in good], base)
    brought = [whole[:, inside] for inside in columns]
    for i, (scale, shift) in zip(good, fits, strict=True):
        brought[i] = np.asarray(scale * tiles[i] + shift, np.float32)
    return brought


def _solved(seen: Sequence[Doubles], base: Doubles) -> Doubles:
    """Returns the scale and the shift (n, 2) of n coarse maps that bring them together, and to the base.

    Robust least squares, by reweighting with Huber's weights, of the differences between every two maps at the places
    that both show. The base is one more map, held at scale 1 and shift 0, for without it scale 0 would fit best.
    """
    count = len(seen)
    if count == 0:
        return np.zeros((0, 2))
    centres = np.array([[np.nanstd(values), np.nanmean(values)] for values in (*seen, base)])
    maps = [(values - mean) / deviation for values, (deviation, mean) in zip((*seen, base), centres, strict=True)]
    pairs = _pairs(maps)
    fits = np.tile([1.0, 0.0], (count + 1, 1))
    for _ in range(ROUNDS):
        differences = [fits[a] @ one - fits[b] @ other for a, b, one, other in pairs]
        bound = ALIKE + HUBER * MAD_TO_DEVIATION * float(np.median(np.abs(np.concatenate(differences))))
        normal = np.zeros((2 * count + 2, 2 * count + 2))
        for (a, b, one, other), difference in zip(pairs, differences, strict=True):
            design, index = np.concatenate([one, -other]), [2 * a, 2 * a + 1, 2 * b, 2 * b + 1]
            weights = (TRUST_IN_WHOLE if b == count else 1) * bound / np.maximum(np.abs(difference), bound)
            normal[np.ix_(index, index)] += (design * weights) @ design.T
        held = normal[:-2, -2:] @ fits[-1]
        fits[:-1] = np.linalg.lstsq(normal[:-2, :-2], -held, rcond=None)[0].reshape(count, 2)
    scales = fits[:, 0] * centres[-1, 0] / centres[:, 0]
    shifts = fits[:, 1] * centres[-1, 0] + centres[-1, 1] - scales * centres[:, 1]
    return np.stack([scales, shifts], axis=1)[:count]


def _pairs(maps: Sequence[Doubles]) -> list[tuple[int, int, Doubles, Doubles]]:
    """Returns every two maps that show the same places: their indices, and for each its values and ones (2, places)."""
    found = []
    for a, b in combinations(range(len(maps)), 2):
        both = np.isfinite(maps[a]) & np.isfinite(maps[b])
        if both.any():
            ones = np.ones(int(both.sum()))
            found.append((a, b, np.stack([maps[a][both], ones]), np.stack([maps[b][both], ones])))
    return found


def _coarse(values: Floats, columns: Columns, length: int, cell: int) -> Doubles:
    """Returns a map (H, w) averaged over cells, at every cell of a canvas `length` px wide; NaN where it shows none."""
    margin = cell // 2
    averaged = cv2.blur(values.astype(np.float64), (2 * margin + 1, 2 * margin + 1))[margin::cell]
    inside = (np.arange(margin, length, cell) - columns[0]) % length
    shown = (inside >= margin) & (inside < len(columns) - margin)
    found = np.full((len(averaged), len(inside)), np.nan)
    found[:, shown] = averaged[:, inside[shown]]
    return found


def _correlation(values: Doubles, base: Doubles) -> float:
    """Returns the correlation of two coarse maps where both show something; 0 where one is flat or shows nothing."""
    both = np.isfinite(values) & np.isfinite(base)
    if not both.any():
        return 0.0
    one, other = values[both] - values[both].mean(), base[both] - base[both].mean()
    varies = [np.linalg.norm(a) > FLAT * np.linalg.norm(b[both]) for a, b in ((one, values), (other, base))]
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))) if all(varies) else 0.0


def _sized(estimate: Estimator) -> Estimator:
    """Returns the estimator whose answers have the size of its picture."""

    def nearness(picture: Bytes) -> Floats:
        return _resized(estimate(np.ascontiguousarray(picture)), *picture.shape[:2])

    return nearness


def _turned(estimate: Estimator) -> Estimator:
    """Returns the estimator for pictures that lie on their side: it sees them upright."""
    return lambda picture: estimate(np.ascontiguousarray(np.swapaxes(picture, 0, 1))).T


def _reduced(picture: Bytes, side: int) -> Bytes:
    """Returns the picture with its shorter side `side` px, if that makes it smaller."""
    scale = side / min(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    return np.asarray(_resized(picture, height, width), np.uint8)


def _resized(values: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[Any]:
    """Returns the values (height, width, ...): averaged where they become fewer, else interpolated."""
    shrinks = height * width < values.shape[0] * values.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (width, height), interpolation=how))
