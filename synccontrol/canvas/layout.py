"""What the montage loop needs of a canvas: how windows are cropped out of it, put back, and become a picture."""

import abc
from collections.abc import Callable

from torch import Tensor

Decode = Callable[[Tensor], Tensor]  # latents (1, c, h, w) -> picture (1, 3, H, W) in about -1..1


class AbstractLayout(abc.ABC):
    """Windows of one size on a canvas; all lengths are in cells. Together they cover every cell of the canvas."""

    height: int  # of the picture
    width: int
    window: tuple[int, int]  # height, width
    stride: int

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of windows."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Returns the last two sides of the canvas tensor (1, c, ., .)."""

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """Returns what to call the canvas when it is more than a flat picture, or an empty text."""

    @property
    @abc.abstractmethod
    def lossless(self) -> bool:
        """Returns whether the average of the windows is all of the canvas they were cropped from."""

    @property
    @abc.abstractmethod
    def decoded(self) -> tuple[int, int]:
        """Returns height and width of what is decoded in one call."""

    @property
    @abc.abstractmethod
    def trust(self) -> Tensor:
        """Returns how much each cell of a window counts when windows are averaged, (h, w), above 0 and at most 1."""

    @abc.abstractmethod
    def crop(self, canvas: Tensor) -> Tensor:
        """Returns the windows (n, c, h, w) of a canvas (1, c, *shape)."""

    @abc.abstractmethod
    def add(self, windows: Tensor) -> Tensor:
        """Returns the canvas (1, c, *shape) onto which windows (n, c, h, w) have been summed."""

    @abc.abstractmethod
    def look(self, picture: Tensor, cell: int) -> Tensor:
        """Returns what each window sees of a picture (1, c, H, W) of the whole: (n, c, h * cell, w * cell)."""

    @abc.abstractmethod
    def decode(self, x0: Tensor, decode: Decode, cell: int, height: int, width: int) -> Tensor:
        """Returns the picture (1, 3, height, width), px, of a clean canvas (1, c, *shape)."""
