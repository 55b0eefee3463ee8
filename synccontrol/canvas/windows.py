"""Where windows lie on a flat canvas or a ring, and how they are cropped out of it."""

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from synccontrol.canvas import sphere
from synccontrol.canvas.layout import AbstractLayout, Decode
from synccontrol.config import EQUIRECTANGULAR, Geometry, WindowConfig
from synccontrol.errors import ConfigError
from synccontrol.files import images


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
    def trust(self) -> Tensor:
        return torch.ones(self.window, dtype=torch.float64)

    @property
    def decoded(self) -> tuple[int, int]:
        return self.height, self.width + 2 * self.margin

    @property
    def margin(self) -> int:
        """Returns how many cells of the other end a ring is decoded with on either side; 0 if it is none."""
        return self.window[1] // 2 if self.loop else 0

    def crop(self, canvas: Tensor, cell: int = 1) -> Tensor:
        """Returns the windows (n, c, h * cell, w * cell) of a canvas (1, c, height * cell, width * cell).

        `cell` is the number of pixels per cell for pictures, and 1 for latents.
        """
        h, w = (cell * side for side in self.window)
        if self.loop:
            canvas = torch.cat([canvas, canvas[..., :w]], dim=-1)
        boxes = ((top * cell, left * cell) for top, left in self.origins)
        return torch.cat([canvas[..., top : top + h, left : left + w] for top, left in boxes])

    def add(self, windows: Tensor) -> Tensor:
        h, w = self.window
        overhang = w if self.loop else 0
        canvas = windows.new_zeros(1, windows.shape[1], self.height, self.width + overhang)
        for (top, left), window in zip(self.origins, windows, strict=True):
            canvas[0, :, top : top + h, left : left + w] += window
        canvas[..., :overhang] += canvas[..., self.width :]
        return canvas[..., : self.width]

    def look(self, picture: Tensor, cell: int) -> Tensor:
        return self.crop(images.pad_to(picture, self.height * cell, self.width * cell), cell)

    def decode(self, x0: Tensor, decode: Decode, cell: int, height: int, width: int) -> Tensor:
        margin = self.margin  # of a ring, whose ends are continued, so that they meet
        ring = torch.cat([x0[..., self.width - margin :], x0, x0[..., :margin]], dim=-1) if margin else x0
        return images.close_ring(decode(ring), margin * cell)[..., :height, :width]


def lay_out(height: int, width: int, geometry: Geometry, windows: WindowConfig) -> AbstractLayout:
    """Returns where the windows of a picture of height x width px lie; a part of a cell counts as a whole one.

    Raises:
        ConfigError: the size is below one window, the stride too large, a loop's width not in whole cells, or an
            equirectangular picture not twice as wide as high.
    """
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
