"""Where the overlapping slices of a long picture lie."""

from __future__ import annotations

import math


def slices(length: int, size: int, overlap: int, wrap: bool = False) -> list[int]:
    """Returns the starts of the fewest slices of `size` that cover `length`, spread evenly; one at 0 if it fits in one.

    Args:
        length: What is to be covered, px.
        size: Of a slice, px.
        overlap: How much neighbouring slices share at least, px, from 0 to `size - 1`.
        wrap: The slices go round a ring: the last overlaps the first, and a slice that runs over `length` goes on at 0.
    """
    if length <= size:
        return [0]
    step = size - overlap
    if wrap:
        count = math.ceil(length / step)
        return [round(length * i / count) for i in range(count)]
    count = 1 + math.ceil((length - size) / step)
    return [round((length - size) * i / (count - 1)) for i in range(count)]
