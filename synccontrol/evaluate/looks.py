"""What networks saw in crops, held block by block, so that memory does not grow with how many crops there are."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a network saw in n crops; a part that it does not have is empty."""

    points: tuple[Tensor, ...] = ()  # one (d,) a crop: LPIPS is the squared distance between two of them
    grams: tuple[Tensor, ...] = ()  # one (n, c, c) a layer
    pooled: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # (n, c): mean over the crop

    def __len__(self) -> int:
        return max(len(self.points), len(self.pooled), *(len(layer) for layer in self.grams), 0)

    @property
    def bytes(self) -> int:
        """Returns how much memory it takes."""
        return sum(part.nbytes for part in (*self.points, *self.grams, self.pooled))


class Seen:
    """What a network sees in n crops, block by block; the last block that was asked for is kept.

    Args:
        look: returns what it sees in crops start..stop.
        n: how many crops there are.
        block: how many are looked at together.
    """

    def __init__(self, look: Callable[[int, int], Look], n: int, block: int) -> None:
        self.starts = range(0, n, block)
        self._look, self._n, self._size = look, n, block
        self._last: tuple[int, Look] | None = None

    def block(self, start: int) -> Look:
        """Returns what it sees in the block that begins at a crop, one of `starts`."""
        if self._last is None or self._last[0] != start:
            self._last = None  # before the next one is made
            self._last = start, self._look(start, min(start + self._size, self._n))
        return self._last[1]

    def pairs(self, other: "Seen") -> Iterator[tuple[Look, int, Look, int]]:
        """Yields crop i of this and crop j of another for all i < j: look and place in it, twice."""
        for start in self.starts:
            one = self.block(start)
            for begin in other.starts:
                if begin < start:
                    continue
                two = one if other is self and begin == start else other.block(begin)
                for i, j in itertools.product(range(len(one)), range(len(two))):
                    if start + i < begin + j:
                        yield one, i, two, j
