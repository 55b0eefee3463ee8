"""Consistent depth of wide guides with any estimator: square tiles are fitted to one estimate of the whole guide.

Depth estimators return values with a different scale and shift in every call. A wide guide is either squashed, or
wider than the training images. An estimate of the whole guide has one scale but less detail; square tiles have the
detail. A least squares fit gives each tile a scale and a shift, so that overlapping tiles agree with each other and
with the whole. (Miangoleh et al., arXiv 2105.14021, also combine one estimate for the scale with others for the
detail. Nothing is learned here.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.wide.views import close_ring_estimate, slices

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int_]
Doubles = npt.NDArray[np.float64]
Estimator = Callable[[Bytes], Floats]  # RGB image (H, W, 3) to nearness (h, w): larger is nearer, in any scale

NEARLY_SQUARE = 1.5  # largest aspect ratio for a single estimate
OVERLAP = 2 / 3  # of a tile; the smallest overlap of neighbours
CELLS = 16  # samples per side of a tile for the fit; each is a local mean, because noise would reduce the scale
TRUST_IN_WHOLE = 0.1  # weight of squared differences from the whole, relative to those between tiles
LEAST_CORRELATION = 0.3  # of a tile with the whole; the scale of other tiles is unknown
ROUNDS = 10  # iterations of reweighting
HUBER = 1.5  # deviations from which the loss is linear
MAD_TO_DEVIATION = 1.4826  # for a normal distribution
ALIKE = 1e-3  # of the deviation of a map; smaller differences are never outliers
FLAT = 1e-6  # of the norm of a map; smaller variation is rounding


def long_depth(estimate: Estimator, side: int, wrap: bool = False) -> Estimator:
    """Return an estimator with one scale over wide guides and the detail of square tiles.

    A nearly square guide is estimated as a whole.

    Args:
        estimate: any depth estimator; its values may have any size, scale and shift.
        side: side of the estimator's training images, px. The guide is scaled down to this shorter side, and the result
            has the size of the smaller guide.
        wrap: the guide and the result are 360-degree rings.
    """
    estimate_whole = close_ring_estimate(estimate) if wrap else _resize_results(estimate)

    def nearness(image: Bytes) -> Floats:
        small = _scale_down(image, side)
        height, width = small.shape[:2]
        if max(height, width) <= NEARLY_SQUARE * min(height, width):
            return estimate_whole(small)
        if width > height:
            return _estimate_tiles(_resize_results(estimate), estimate_whole, small, wrap)
        transposed = _transpose(estimate_whole)  # a tall ring closes within each tile
        return _estimate_tiles(transposed, transposed, np.swapaxes(small, 0, 1), False).T

    return nearness


def _estimate_tiles(estimate_tile: Estimator, estimate_whole: Estimator, image: Bytes, wrap: bool) -> Floats:
    """Return the nearness (H, W) of a wide image (H, W, 3); both estimators return the size of their image."""
    side, length = image.shape[:2]
    columns = tile_columns(length, side, wrap)
    whole = estimate_whole(image)
    tiles = [estimate_tile(image[:, tile_range]) for tile_range in columns]
    return blend_tiles(fit_tiles(tiles, columns, whole), columns, length)


def tile_columns(length: int, side: int, wrap: bool = False) -> list[Columns]:
    """Return the columns (side,) of each square tile of an image (side, length).

    Args:
        length: width of the image, px, at least `side`.
        side: side of a tile, px.
        wrap: the image is a 360-degree ring, and tiles continue from the last column to the first.
    """
    starts = slices(length, side, int(side * OVERLAP), wrap)
    return [np.arange(start, start + side) % length for start in starts]


def blend_tiles(tiles: Sequence[Floats], columns: Sequence[Columns], length: int) -> Floats:
    """Blend tiles (H, w) with columns (w,) each into a map (H, length) without steps."""
    total, weight = np.zeros((len(tiles[0]), length)), np.zeros(length)
    for tile, tile_range in zip(tiles, columns, strict=True):
        position = (np.arange(len(tile_range)) + 0.5) / len(tile_range)
        weights = (
            np.sin(np.pi * position) ** 2
        )  # for tiles a third of a tile apart, these weights and their squares sum to constants
        total[:, tile_range] += weights * tile
        weight[tile_range] += weights
    return np.asarray(total / weight, np.float32)


def fit_tiles(tiles: Sequence[Floats], columns: Sequence[Columns], whole: Floats) -> list[Floats]:
    """Scale and shift the tiles to the scale of the whole; crop a tile from the whole if its fit fails.

    The fit fails for a tile that is flat, uncorrelated with the whole, or inverted relative to its neighbours.

    Args:
        tiles: nearness (H, w) each, of any scale and shift.
        columns: the columns (w,) of the whole for each tile.
        whole: nearness (H, W).
    """
    height, length = whole.shape
    cell = max(1, height // CELLS)
    coarse_whole = _average_cells(whole, np.arange(length), length, cell)
    coarse_tiles = [
        _average_cells(tile, tile_range, length, cell) for tile, tile_range in zip(tiles, columns, strict=True)
    ]
    valid = [i for i, values in enumerate(coarse_tiles) if _correlation(values, coarse_whole) >= LEAST_CORRELATION]
    fits = _solve_fits([coarse_tiles[i] for i in valid], coarse_whole)
    while (fits[:, 0] <= 0).any():
        valid = [i for i, scale in zip(valid, fits[:, 0], strict=True) if scale > 0]
        fits = _solve_fits([coarse_tiles[i] for i in valid], coarse_whole)
    results = [whole[:, tile_range] for tile_range in columns]
    for i, (scale, shift) in zip(valid, fits, strict=True):
        results[i] = np.asarray(scale * tiles[i] + shift, np.float32)
    return results


def _solve_fits(coarse_tiles: Sequence[Doubles], base: Doubles) -> Doubles:
    """Return the scales and shifts (n, 2) that fit n coarse maps to each other and to the base.

    Robust least squares with Huber's weights over the differences of every two maps at their common samples. The base
    is another map with scale 1 and shift 0; without it the best scale would be 0.
    """
    count = len(coarse_tiles)
    if count == 0:
        return np.zeros((0, 2))
    centres = np.array([[np.nanstd(values), np.nanmean(values)] for values in (*coarse_tiles, base)])
    maps = [
        (values - mean) / deviation for values, (deviation, mean) in zip((*coarse_tiles, base), centres, strict=True)
    ]
    pairs = _pairs(maps)
    fits = np.tile([1.0, 0.0], (count + 1, 1))
    for _ in range(ROUNDS):
        differences = [fits[a] @ first - fits[b] @ second for a, b, first, second in pairs]
        bound = ALIKE + HUBER * MAD_TO_DEVIATION * float(np.median(np.abs(np.concatenate(differences))))
        normal = np.zeros((2 * count + 2, 2 * count + 2))
        for (a, b, first, second), difference in zip(pairs, differences, strict=True):
            design, index = np.concatenate([first, -second]), [2 * a, 2 * a + 1, 2 * b, 2 * b + 1]
            weights = (TRUST_IN_WHOLE if b == count else 1) * bound / np.maximum(np.abs(difference), bound)
            normal[np.ix_(index, index)] += (design * weights) @ design.T
        fixed = normal[:-2, -2:] @ fits[-1]
        fits[:-1] = np.linalg.lstsq(normal[:-2, :-2], -fixed, rcond=None)[0].reshape(count, 2)
    scales = fits[:, 0] * centres[-1, 0] / centres[:, 0]
    shifts = fits[:, 1] * centres[-1, 0] + centres[-1, 1] - scales * centres[:, 1]
    return np.stack([scales, shifts], axis=1)[:count]


def _pairs(maps: Sequence[Doubles]) -> list[tuple[int, int, Doubles, Doubles]]:
    """Return every pair of maps with common samples: their indices, and the design matrix (2, samples) of each."""
    pairs = []
    for a, b in combinations(range(len(maps)), 2):
        common = np.isfinite(maps[a]) & np.isfinite(maps[b])
        if common.any():
            ones = np.ones(int(common.sum()))
            pairs.append((a, b, np.stack([maps[a][common], ones]), np.stack([maps[b][common], ones])))
    return pairs


def _average_cells(values: Floats, columns: Columns, length: int, cell: int) -> Doubles:
    """Average a map (H, w) over the cells of a canvas `length` px wide; NaN for cells outside the map."""
    margin = cell // 2
    averaged = cv2.blur(values.astype(np.float64), (2 * margin + 1, 2 * margin + 1))[margin::cell]
    positions = (np.arange(margin, length, cell) - columns[0]) % length
    is_covered = (positions >= margin) & (positions < len(columns) - margin)
    coarse = np.full((len(averaged), len(positions)), np.nan)
    coarse[:, is_covered] = averaged[:, positions[is_covered]]
    return coarse


def _correlation(values: Doubles, base: Doubles) -> float:
    """Return the correlation of two coarse maps at their common samples; 0 if one is flat or there are none."""
    common = np.isfinite(values) & np.isfinite(base)
    if not common.any():
        return 0.0
    first, second = values[common] - values[common].mean(), base[common] - base[common].mean()
    not_flat = [np.linalg.norm(a) > FLAT * np.linalg.norm(b[common]) for a, b in ((first, values), (second, base))]
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second))) if all(not_flat) else 0.0


def _resize_results(estimate: Estimator) -> Estimator:
    """Return an estimator whose results have the size of its image."""

    def nearness(image: Bytes) -> Floats:
        return _resize(estimate(np.ascontiguousarray(image)), *image.shape[:2])

    return nearness


def _transpose(estimate: Estimator) -> Estimator:
    """Return an estimator for transposed images."""
    return lambda image: estimate(np.ascontiguousarray(np.swapaxes(image, 0, 1))).T


def _scale_down(image: Bytes, side: int) -> Bytes:
    """Scale an image down so that its shorter side is `side` px; a smaller image stays as it is."""
    scale = side / min(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return np.asarray(_resize(image, height, width), np.uint8)


def _resize(values: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[Any]:
    """Resize values to (height, width, ...): averaged if they become fewer, else interpolated."""
    shrinks = height * width < values.shape[0] * values.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (width, height), interpolation=interpolation))
