"""Where windows lie on the canvas, and how they are cropped out of it."""

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from synccontrol.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Windows of one size on a canvas; all lengths are in cells. Together they cover every cell.

    In a loop the canvas is a ring: a window that passes the right edge goes on at the left.
    """

    height: int
    width: int
    window: tuple[int, int]  # height, width
    stride: int
    loop: bool = False

    def __post_init__(self) -> None:
        h, w = self.window
        if self.height < h or self.width < w:
            raise ConfigError(
                f"the canvas of {self.width}x{self.height} cells is smaller than one window of {w}x{h}; make it larger"
            )
        if not 0 < self.stride < min(h, w):
            raise ConfigError(
                f"stride is {self.stride} cells; it must be between 1 and {min(h, w) - 1}, so that windows overlap"
            )

    @cached_property
    def origins(self) -> tuple[tuple[int, int], ...]:
        """Returns the (top, left) cell of every window, row by row."""
        h, w = self.window
        lefts = range(0, self.width, self.stride) if self.loop else _starts(self.width, w, self.stride)
        return tuple((top, left) for top in _starts(self.height, h, self.stride) for left in lefts)

    def __len__(self) -> int:
        return len(self.origins)

    def crop(self, canvas: Tensor, cell: int = 1) -> Tensor:
        """Returns the windows (n, c, h * cell, w * cell) of a canvas (1, c, height * cell, width * cell).

        `cell` is the number of pixels per cell for pictures, and 1 for latents.
        """
        h, w = (cell * side for side in self.window)
        if self.loop:
            canvas = torch.cat([canvas, canvas[..., :w]], dim=-1)
        boxes = ((top * cell, left * cell) for top, left in self.origins)
        return torch.cat([canvas[..., top : top + h, left : left + w] for top, left in boxes])


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Returns window starts 0, stride, 2 stride, ..., the last one slid to end at `length`."""
    return [*range(0, length - window, stride), length - window]
