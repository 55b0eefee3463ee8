"""Windows on a flat canvas or a cylindrical panorama (360-degree ring)."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor

from synccontrol.canvas import sphere, tiled_decode
from synccontrol.canvas.base import AbstractLayout, Decode
from synccontrol.errors import ConfigError
from synccontrol.io import images
from synccontrol.spec.settings import EQUIRECTANGULAR, Geometry, WindowConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout(AbstractLayout):
    """Windows of one size that together cover a flat canvas; all lengths are in latent cells.

    With `loop` the canvas is a 360-degree ring: a window that passes the right edge continues at the left.
    """

    height: int
    width: int
    window: tuple[int, int]  # height, width
    stride: int
    loop: bool = False

    def __post_init__(self) -> None:
        h, w = self.window
        assert self.height >= h and self.width >= w
        overlapping = [window for window, side in ((h, self.height), (w, self.width)) if side > window]
        overlapping += [w] if self.loop else []
        if overlapping and not 0 < self.stride < min(overlapping):
            raise ConfigError(
                f"stride is {self.stride} cells; it must be between 1 and {min(overlapping) - 1}, "
                "so that windows overlap"
            )

    @cached_property
    def origins(self) -> tuple[tuple[int, int], ...]:
        """Return the (top, left) cell of every window, row by row."""
        h, w = self.window
        lefts = range(0, self.width, self.stride) if self.loop else _starts(self.width, w, self.stride)
        return tuple((top, left) for top in _starts(self.height, h, self.stride) for left in lefts)

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def kind(self) -> str:
        return "a ring" if self.loop else ""

    @property
    def lossless(self) -> bool:
        return True

    @property
    def middle(self) -> int:
        """Return the index of the window in the middle of its row and column, the later of two.

        In one row of n windows this is n // 2, as published.
        """
        rows = len({top for top, _ in self.origins})
        columns = len(self) // rows
        return rows // 2 * columns + columns // 2

    @property
    def cell_weights(self) -> Float[Tensor, "h w"]:
        return torch.ones(self.window, dtype=torch.float64)

    @property
    def decode_shape(self) -> tuple[int, int]:
        rows = tiled_decode.Spans(length=self.height, tile=self.tile)
        columns = tiled_decode.Spans(length=self.width, tile=self.tile, closed=self.loop)
        return rows.longest, columns.longest

    def crop(self, canvas: Float[Tensor, "1 c y x"]) -> Float[Tensor, "n c h w"]:
        return self.crop_image(canvas, 1, range(len(self)))

    def add(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        h, w = self.window
        overhang = w if self.loop else 0
        canvas = windows.new_zeros(1, windows.shape[1], self.height, self.width + overhang)
        for (top, left), window in zip(self.origins, windows, strict=True):
            canvas[0, :, top : top + h, left : left + w] += window
        canvas[..., :overhang] += canvas[..., self.width :]
        return canvas[..., : self.width]

    def crop_image(
        self, image: Num[Tensor, "1 c H W"], cell: int, windows: Sequence[int]
    ) -> Float[Tensor, "k c window_H window_W"]:
        h, w = (cell * side for side in self.window)
        crops = []
        for top, left in (self.origins[window] for window in windows):
            crop = image[..., top * cell : top * cell + h, left * cell : left * cell + w]
            if self.loop:
                wrapped = image[..., top * cell : top * cell + h, : w - crop.shape[-1]]
                crop = torch.cat([crop, wrapped], dim=-1)
            crops.append(images.pad_to(images.to_float(crop), h, w))
        return torch.cat(crops)

    def decode(
        self,
        x0: Float[Tensor, "1 c y x"],
        decode: Decode,
        cell: int,
        height: int,
        width: int,
        tile: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        return tiled_decode.decode(x0, decode, cell, height, width, tile or self.tile, self.loop)


def lay_out(height: int, width: int, geometry: Geometry, windows: WindowConfig) -> AbstractLayout:
    """Return the windows of an image of height x width px; sides are rounded up to whole cells.

    Raises:
        ConfigError: the size or the stride is invalid: the image is smaller than one window or too large; the width of
            a loop is not a multiple of a cell; an equirectangular panorama is not twice as wide as high.
    """
    if height * width > images.LARGEST:  # larger images could not be read again
        raise ConfigError(
            f"size {width}x{height} is beyond {images.LARGEST / 1e6:.0f} megapixels; generate it in parts"
        )
    if windows.projection == EQUIRECTANGULAR:
        return sphere.lay_out(height, width, geometry, windows.stride)
    (window_h, window_w), cell = geometry.window_px, geometry.cell
    if height < window_h or width < window_w:
        raise ConfigError(f"size {width}x{height} is below one window; this model needs at least {window_w}x{window_h}")
    if windows.loop and width % cell:
        lower = width // cell * cell
        raise ConfigError(
            f"a loop of width {width} cannot close: it must be a multiple of {cell}; use {lower} or {lower + cell}"
        )
    return Layout(
        height=-(-height // cell),
        width=-(-width // cell),
        window=geometry.window,
        stride=windows.stride,
        loop=windows.loop,
    )


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Return window starts 0, stride, 2 stride, ...; the last window ends at `length`."""
    return [*range(0, length - window, stride), length - window]
