"""Decoding in strips: tiles that overlap are blended in pixels and go to 8 bit as soon as they are done.

What is held in floats is a strip and what it shares with the next one, however wide the picture is. The margins, and
what a decoder whose norms see a whole tile leaves between tiles, are measured in `benchmarks/decoding.md`.
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

TILES_PER_OVERLAP = 3  # so that no more than two spans meet anywhere
TRIM = 1 / 4  # of an overlap, at either end: what lies so near a tile's border is spoilt by the padding of convolutions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans:
    """One side of a canvas, cut into spans that are about equally long and overlap; all lengths are in cells."""

    length: int
    tile: int  # no span is longer
    closed: bool = False  # the end goes on at the start

    @property
    def overlap(self) -> int:
        """Returns how many cells a span shares with the next one."""
        return min(self.tile // TILES_PER_OVERLAP, self.length)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Returns where the spans start and stop, from the left.

        Of a closed side the first span starts before 0, with the cells that the last one ends with.
        """
        if not self.closed and self.length <= self.tile:
            return ((0, self.length),)
        turn, first = (self.length, -self.overlap) if self.closed else (self.length - self.overlap, 0)
        n = -(-turn // (self.tile - self.overlap))
        starts = [first + turn * span // n for span in range(n + 1)]
        return tuple((start, following + self.overlap) for start, following in itertools.pairwise(starts))

    @property
    def longest(self) -> int:
        """Returns how many cells the longest span has."""
        return max(stop - start for start, stop in self.bounds)

    def ramp(self, cell: int) -> Float[Tensor, " overlap"]:
        """Returns the share, 0..1, of a span in the px that it shares with the one before, which has the rest."""
        length = self.overlap * cell
        along = (torch.arange(length) + 0.5) / max(length, 1)
        return ((along - TRIM) / (1 - 2 * TRIM)).clamp(0, 1)


def blended(
    parts: Iterable[Float[Tensor, "1 c _ _"]], ramp: Float[Tensor, " overlap"], dim: int, closed: bool = False
) -> Iterator[Float[Tensor, "1 c _ _"]]:
    """Yields a picture piece by piece along `dim` (-1 or -2), of parts that share `len(ramp)` px with their neighbours.

    Of a closed picture the first part begins with what the last one ends with; its pieces start behind that.
    """
    parts, overlap = iter(parts), len(ramp)
    share = ramp if dim == -1 else ramp[:, None]
    held = next(parts)
    if closed:
        head, held = held.tensor_split([overlap], dim)
        parts = itertools.chain(parts, [head.clone()])
    for part in parts:
        done, tail = held.tensor_split([held.shape[dim] - overlap], dim)
        head, rest = part.tensor_split([overlap], dim)
        yield done
        held = torch.cat([torch.lerp(tail, head, share.to(tail)), rest], dim)
    yield held


def decode(
    x0: Float[Tensor, "1 c h w"], decode: Decode, cell: int, height: int, width: int, tile: int, closed: bool = False
) -> npt.NDArray[np.uint8]:
    """Returns the picture (height, width, 3) of clean latents, 8 bit; a single tile is decoded in one call.

    Args:
        x0: latents; the part of the picture beyond height and width is cut off.
        decode: the decoder.
        cell: px per cell.
        height: of the picture, px.
        width: of the picture, px.
        tile: cells that are decoded in one call, at most, along either side.
        closed: whether the right edge goes on at the left.

    Raises:
        NonFiniteError: the decoder gives NaN or infinity.
    """
    rows = Spans(length=x0.shape[-2], tile=tile)
    columns = Spans(length=x0.shape[-1], tile=tile, closed=closed)

    def tiles(left: int, right: int) -> Iterator[Tensor]:
        around = torch.arange(left, right, device=x0.device) % columns.length
        strip = x0.index_select(-1, around)
        return (_finite(decode(strip[..., top:bottom, :])) for top, bottom in rows.bounds)

    strips = (torch.cat([*blended(tiles(*bounds), rows.ramp(cell), -2)], -2) for bounds in columns.bounds)
    picture, left = np.empty((height, width, 3), dtype=np.uint8), 0
    for piece in blended(strips, columns.ramp(cell), -1, closed):
        shown = piece[..., :height, : width - left]
        picture[:, left : left + shown.shape[-1]] = np.asarray(images.to_pil(shown))
        left += shown.shape[-1]
    return picture


def _finite(picture: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 H W"]:
    if not picture.isfinite().all():
        raise NonFiniteError("the decoded picture is not finite; try dtype float32 or bfloat16")
    return picture.float()
