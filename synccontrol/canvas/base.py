"""The interface of a canvas: crop windows from it, merge them, and decode it to an image."""

import abc
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor

Decode = Callable[[Tensor], Tensor]  # latents (1, c, h, w) -> image (1, 3, H, W) in about -1..1

TILE = 1.5  # side of a tile that is decoded in one call, in windows


class AbstractLayout(abc.ABC):
    """Windows of one size that together cover a canvas; all lengths are in latent cells."""

    height: int  # of the image
    width: int
    window: tuple[int, int]  # height, width
    stride: int

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of windows."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return the last two sides of the canvas tensor (1, c, ., .)."""

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """Return the name of the canvas in messages; an empty text for a flat image."""

    @property
    @abc.abstractmethod
    def lossless(self) -> bool:
        """Return whether cropping windows and averaging them restores the canvas exactly."""

    @property
    @abc.abstractmethod
    def middle(self) -> int:
        """Return the index of the window in the middle of the canvas."""

    @property
    def tile(self) -> int:
        """Return the default longest side of a tile that `decode` decodes in one call."""
        return round(TILE * max(self.window))

    @property
    @abc.abstractmethod
    def decode_shape(self) -> tuple[int, int]:
        """Return the height and width of the largest tile that is decoded in one call."""

    @property
    @abc.abstractmethod
    def cell_weights(self) -> Float[Tensor, "h w"]:
        """Return the weight of each cell of a window in the average, above 0 and at most 1."""

    @abc.abstractmethod
    def crop(self, canvas: Float[Tensor, "1 c y x"]) -> Float[Tensor, "n c h w"]:
        """Crop every window of a canvas (1, c, *shape)."""

    @abc.abstractmethod
    def add(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Return a canvas (1, c, *shape) with the sum of the windows."""

    @abc.abstractmethod
    def crop_image(
        self, image: Num[Tensor, "1 c H W"], cell: int, windows: Sequence[int]
    ) -> Float[Tensor, "k c window_H window_W"]:
        """Crop windows, by their indices, from an image of the whole canvas: (k, c, h * cell, w * cell).

        An 8-bit image is converted to floats in 0..1 crop by crop, so it is never held in floats as a whole.
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
        """Decode a clean canvas (1, c, *shape) to an 8-bit image (height, width, 3).

        Args:
            x0: the canvas.
            decode: the decoder, which receives at most one tile.
            cell: px per cell.
            height: height of the image, px.
            width: width of the image, px.
            tile: the longest side of a tile in cells; None for `self.tile`. Smaller tiles need less memory.

        Raises:
            NonFiniteError: the decoder returns NaN or infinity.
        """


GAUSSIAN_DEVIATION = 0.25  # in sides of the window


class Merger:
    """Average windows onto the canvas, all with the same weights.

    Args:
        layout: the positions of the windows.
        weights: 'uniform', 'ramp' (falls linearly to the border) or 'gaussian'.
        like: a tensor with the dtype and device of the windows; sums are computed in float32 at least.
    """

    def __init__(self, layout: AbstractLayout, weights: str, like: Tensor) -> None:
        self._layout = layout
        h, w = layout.window
        weight = _profile(h, weights)[:, None] * _profile(w, weights)[None, :] * layout.cell_weights
        self._weight = weight.to(torch.promote_types(like.dtype, torch.float32)).to(like.device)
        self._total = layout.add(self._weight.expand(len(layout), 1, h, w))

    def __call__(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Merge windows into a canvas (1, c, *shape) of the same dtype."""
        return (self._layout.add(windows * self._weight) / self._total).to(windows.dtype)

    def residual(self, canvas: Float[Tensor, "1 c y x"], windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Return the canvas minus its merged windows, which is 0 for a lossless layout."""
        return torch.zeros_like(canvas) if self._layout.lossless else canvas - self(windows)


def _profile(length: int, weights: str) -> Float[Tensor, " length"]:
    """Return the weights along one side of a window, float64, above 0 and at most 1."""
    distance = (
        torch.arange(length, dtype=torch.float64) + 0.5
    ) / length - 0.5  # from the centre, in sides of the window
    profiles = {
        "uniform": torch.ones_like(distance),
        "ramp": 1 - 2 * distance.abs(),
        "gaussian": torch.exp(-0.5 * (distance / GAUSSIAN_DEVIATION) ** 2),
    }
    return profiles[weights]
