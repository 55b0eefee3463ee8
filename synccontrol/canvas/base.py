"""What the montage loop needs of a canvas: how windows are cropped out of it, put back, and become a picture."""

import abc
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor

Decode = Callable[[Tensor], Tensor]  # latents (1, c, h, w) -> picture (1, 3, H, W) in about -1..1

TILE = 1.5  # windows, a side of what is decoded in one call


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
    def middle(self) -> int:
        """Returns the index of the window in the middle of the canvas."""

    @property
    def tile(self) -> int:
        """Returns the longest side of what is decoded in one call, unless `decode` is told otherwise."""
        return round(TILE * max(self.window))

    @property
    @abc.abstractmethod
    def decoded(self) -> tuple[int, int]:
        """Returns height and width of what is decoded in one call, at most."""

    @property
    @abc.abstractmethod
    def trust(self) -> Float[Tensor, "h w"]:
        """Returns how much each cell of a window counts when windows are averaged, above 0 and at most 1."""

    @abc.abstractmethod
    def crop(self, canvas: Float[Tensor, "1 c y x"]) -> Float[Tensor, "n c h w"]:
        """Returns the windows of a canvas (1, c, *shape)."""

    @abc.abstractmethod
    def add(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Returns the canvas (1, c, *shape) onto which windows have been summed."""

    @abc.abstractmethod
    def look(
        self, picture: Num[Tensor, "1 c H W"], cell: int, windows: Sequence[int]
    ) -> Float[Tensor, "k c window_H window_W"]:
        """Returns what some windows, by their indices, see of a picture of the whole: (k, c, h * cell, w * cell).

        A picture in 8 bit is seen in floats, 0..1, of which there are never those of the whole.
        """

    @abc.abstractmethod
    def decode(
        self,
        x0: Float[Tensor, "1 c y x"],
        decode: Decode,
        cell: int,
        height: int,
        width: int,
        tile: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Returns the picture (height, width, 3), px, 8 bit, of a clean canvas (1, c, *shape).

        Args:
            x0: the canvas.
            decode: the decoder; it never sees more than a tile.
            cell: px per cell.
            height: of the picture, px.
            width: of the picture, px.
            tile: the longest side of a tile in cells; `self.tile` where none is named. Smaller ones take less memory.

        Raises:
            NonFiniteError: the decoder gives NaN or infinity.
        """


GAUSSIAN_DEVIATION = 0.25  # of the window's side


class Merger:
    """Averages windows onto the canvas, each window weighted alike.

    Args:
        layout: where the windows lie.
        weights: 'uniform', 'ramp' (falls linearly to the border) or 'gaussian'.
        like: a tensor of the dtype and device of the windows to come; sums are kept in float32 at least.
    """

    def __init__(self, layout: AbstractLayout, weights: str, like: Tensor) -> None:
        self._layout = layout
        h, w = layout.window
        weight = _profile(h, weights)[:, None] * _profile(w, weights)[None, :] * layout.trust
        self._weight = weight.to(torch.promote_types(like.dtype, torch.float32)).to(like.device)
        self._total = layout.add(self._weight.expand(len(layout), 1, h, w))

    def __call__(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Returns the canvas (1, c, *shape) of windows, in their dtype."""
        return (self._layout.add(windows * self._weight) / self._total).to(windows.dtype)

    def rest(self, canvas: Float[Tensor, "1 c y x"], windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Returns what of a canvas its windows do not hold: canvas = merge(windows) + rest, and 0 on a flat one."""
        return torch.zeros_like(canvas) if self._layout.lossless else canvas - self(windows)


def _profile(length: int, weights: str) -> Float[Tensor, " length"]:
    """Returns the weights along one side of a window, float64, above 0 and at most 1."""
    distance = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5  # from the middle, in window sides
    profiles = {
        "uniform": torch.ones_like(distance),
        "ramp": 1 - 2 * distance.abs(),
        "gaussian": torch.exp(-0.5 * (distance / GAUSSIAN_DEVIATION) ** 2),
    }
    return profiles[weights]
