"""Where windows lie on a flat canvas or a ring, and how they are cropped out of it."""

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
        assert self.height >= h and self.width >= w
        several = [window for window, side in ((h, self.height), (w, self.width)) if side > window]
        several += [w] if self.loop else []
        if several and not 0 < self.stride < min(several):
            raise ConfigError(
                f"stride is {self.stride} cells; it must be between 1 and {min(several) - 1}, so that windows overlap"
            )

    @cached_property
    def origins(self) -> tuple[tuple[int, int], ...]:
        """Returns the (top, left) cell of every window, row by row."""
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
        """Returns the index of the window in the middle of its row and of its column; of two, the later one.

        In one row of n windows that is n // 2, as published.
        """
        rows = len({top for top, _ in self.origins})
        columns = len(self) // rows
        return rows // 2 * columns + columns // 2

    @property
    def trust(self) -> Float[Tensor, "h w"]:
        return torch.ones(self.window, dtype=torch.float64)

    @property
    def decoded(self) -> tuple[int, int]:
        rows = tiled_decode.Spans(length=self.height, tile=self.tile)
        columns = tiled_decode.Spans(length=self.width, tile=self.tile, closed=self.loop)
        return rows.longest, columns.longest

    def crop(self, canvas: Float[Tensor, "1 c y x"]) -> Float[Tensor, "n c h w"]:
        return self.look(canvas, 1, range(len(self)))

    def add(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        h, w = self.window
        overhang = w if self.loop else 0
        canvas = windows.new_zeros(1, windows.shape[1], self.height, self.width + overhang)
        for (top, left), window in zip(self.origins, windows, strict=True):
            canvas[0, :, top : top + h, left : left + w] += window
        canvas[..., :overhang] += canvas[..., self.width :]
        return canvas[..., : self.width]

    def look(
        self, picture: Num[Tensor, "1 c H W"], cell: int, windows: Sequence[int]
    ) -> Float[Tensor, "k c window_H window_W"]:
        h, w = (cell * side for side in self.window)
        crops = []
        for top, left in (self.origins[window] for window in windows):
            crop = picture[..., top * cell : top * cell + h, left * cell : left * cell + w]
            if self.loop:
                rest = picture[..., top * cell : top * cell + h, : w - crop.shape[-1]]
                crop = torch.cat([crop, rest], dim=-1)
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
    """Returns where the windows of a picture of height x width px lie; a part of a cell counts as a whole one.

    Raises:
        ConfigError: the size is below one window or beyond all pictures, the stride too large, a loop's width not in
            whole cells, or an equirectangular picture not twice as wide as high.
    """
    if height * width > images.LARGEST:  # which nobody could read again
        raise ConfigError(f"size {width}x{height} is beyond {images.LARGEST / 1e6:.0f} megapixels; draw it in parts")
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
    """Returns window starts 0, stride, 2 stride, ..., the last one slid to end at `length`."""
    return [*range(0, length - window, stride), length - window]
