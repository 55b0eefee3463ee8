"""Tiled decoding: overlapping tiles are decoded, blended in pixels, and converted to 8 bit column by column.

Only one column of tiles and its overlap are held in floats, for any width of the image. `benchmarks/decoding.md`
measures the margins, and the differences between tiles that a decoder with norms over a whole tile leaves.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.canvas.base import Decode
from synccontrol.errors import NonFiniteError
from synccontrol.io import images

TILES_PER_OVERLAP = 3  # at most two spans overlap anywhere
TRIM = 1 / 4  # of an overlap, unused at either end, because the padding of convolutions distorts the border of a tile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans:
    """One side of a canvas, divided into overlapping spans of about equal length; all lengths are in latent cells."""

    length: int
    tile: int  # no span is longer
    closed: bool = False  # the end continues at the start

    @property
    def overlap(self) -> int:
        """Return the number of cells that neighbouring spans share."""
        return min(self.tile // TILES_PER_OVERLAP, self.length)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Return the start and stop of each span.

        On a closed side the first span starts before 0, with the cells at the end of the last span.
        """
        if not self.closed and self.length <= self.tile:
            return ((0, self.length),)
        total, first = (self.length, -self.overlap) if self.closed else (self.length - self.overlap, 0)
        n = -(-total // (self.tile - self.overlap))
        starts = [first + total * span // n for span in range(n + 1)]
        return tuple((start, next_start + self.overlap) for start, next_start in itertools.pairwise(starts))

    @property
    def longest(self) -> int:
        """Return the length of the longest span."""
        return max(stop - start for start, stop in self.bounds)

    def ramp(self, cell: int) -> Float[Tensor, " overlap"]:
        """Return the weights, 0..1, of a span in the px that it shares with the previous span."""
        length = self.overlap * cell
        position = (torch.arange(length) + 0.5) / max(length, 1)
        return ((position - TRIM) / (1 - 2 * TRIM)).clamp(0, 1)


def blend(
    parts: Iterable[Float[Tensor, "1 c _ _"]], ramp: Float[Tensor, " overlap"], dim: int, closed: bool = False
) -> Iterator[Float[Tensor, "1 c _ _"]]:
    """Blend parts along `dim` (-1 or -2) that overlap by `len(ramp)` px; yield the image piece by piece.

    In a closed image the first part overlaps the last one; the first piece starts after that overlap.
    """
    parts, overlap = iter(parts), len(ramp)
    weights = ramp if dim == -1 else ramp[:, None]
    pending = next(parts)
    if closed:
        head, pending = pending.tensor_split([overlap], dim)
        parts = itertools.chain(parts, [head.clone()])
    for part in parts:
        done, tail = pending.tensor_split([pending.shape[dim] - overlap], dim)
        head, rest = part.tensor_split([overlap], dim)
        yield done
        pending = torch.cat([torch.lerp(tail, head, weights.to(tail)), rest], dim)
    yield pending


def decode(
    x0: Float[Tensor, "1 c h w"], decode: Decode, cell: int, height: int, width: int, tile: int, closed: bool = False
) -> npt.NDArray[np.uint8]:
    """Decode clean latents to an 8-bit image (height, width, 3), tile by tile.

    Args:
        x0: the latents; the image is cropped to height and width.
        decode: the decoder.
        cell: px per cell.
        height: height of the image, px.
        width: width of the image, px.
        tile: the longest side of a tile, in cells.
        closed: the left and right edges are neighbours.

    Raises:
        NonFiniteError: the decoder returns NaN or infinity.
    """
    rows = Spans(length=x0.shape[-2], tile=tile)
    columns = Spans(length=x0.shape[-1], tile=tile, closed=closed)

    def tiles(left: int, right: int) -> Iterator[Tensor]:
        indices = torch.arange(left, right, device=x0.device) % columns.length
        column = x0.index_select(-1, indices)
        return (_require_finite(decode(column[..., top:bottom, :])) for top, bottom in rows.bounds)

    tile_columns = (torch.cat([*blend(tiles(*bounds), rows.ramp(cell), -2)], -2) for bounds in columns.bounds)
    image, left = np.empty((height, width, 3), dtype=np.uint8), 0
    for piece in blend(tile_columns, columns.ramp(cell), -1, closed):
        visible = piece[..., :height, : width - left]
        image[:, left : left + visible.shape[-1]] = np.asarray(images.to_pil(visible))
        left += visible.shape[-1]
    return image


def _require_finite(image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 H W"]:
    if not image.isfinite().all():
        raise NonFiniteError("the decoded image is not finite; try dtype float32 or bfloat16")
    return image.float()
