"""The whole sphere as a canvas: windows are perspective views of it, the image is equirectangular.

`docs/equirectangular.md` says why.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.nn.functional import grid_sample

from synccontrol.canvas import tiled_decode
from synccontrol.canvas.base import AbstractLayout, Decode
from synccontrol.errors import ConfigError
from synccontrol.io import images
from synccontrol.spec.settings import Geometry

BAND = 64  # rows of a picture that are made of views at once

See = Callable[[int, Tensor], tuple[Tensor, Tensor]]  # `Sphere.see`


def direction(latitude: Float[Tensor, "*#d"], longitude: Float[Tensor, "*#d"]) -> Float[Tensor, "*d 3"]:
    """Returns unit vectors for angles in radians that broadcast against each other."""
    x, z = latitude.cos() * longitude.sin(), latitude.cos() * longitude.cos()
    return torch.stack([x, latitude.sin().expand_as(x), z], -1)


def angles(directions: Float[Tensor, "*d 3"]) -> tuple[Float[Tensor, "*d"], Float[Tensor, "*d"]]:
    """Returns latitude and longitude, in radians."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(y, torch.hypot(x, z)), torch.atan2(x, z)


def look_around(picture: Num[Tensor, "c H W"], directions: Float[Tensor, "h w 3"]) -> Float[Tensor, "c h w"]:
    """Returns what an equirectangular picture shows in some directions, bilinearly."""
    height, width = picture.shape[-2:]
    latitude, longitude = angles(directions)
    x = (0.5 + longitude / (2 * math.pi)) * width - 0.5  # px, from the middle of the first one
    y = (0.5 - latitude / math.pi) * height - 0.5
    left, top = x.floor().long(), y.floor().long()

    def row(number: Tensor) -> Tensor:
        beyond = (number < 0) | (number >= height)  # a pole: the picture goes on at the opposite longitude
        column, inside = left + beyond * (width // 2), number.clamp(0, height - 1)
        first, second = (images.to_float(picture[:, inside, (column + offset) % width]) for offset in (0, 1))
        return torch.lerp(first, second, (x - left).to(first))

    upper, lower = row(top), row(top + 1)
    return torch.lerp(upper, lower, (y - top).to(upper))


def stitched(views: Sequence[npt.NDArray[np.uint8]], see: See, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Returns the equirectangular picture (height, width, 3) of views (h, w, 3); in floats there is a band of it only.

    Where views overlap they are averaged, each with weights that fall to its border. `see` says which of directions
    (p, 3) a view, by its index, shows, and where.
    """
    picture = np.empty((height, width, 3), dtype=np.uint8)
    longitude = 2 * math.pi * ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5)
    for top in range(0, height, BAND):
        rows = torch.arange(top, min(top + BAND, height))
        latitude = math.pi * (0.5 - (rows.double() + 0.5) / height)
        directions = direction(latitude[:, None], longitude).flatten(0, 1)
        total = torch.zeros(4, len(directions))
        for number, view in enumerate(views):
            inside, at = see(number, directions)
            if len(inside):
                total[:, inside] += _sample(_layer(view), at)
        band = (total[:3] / total[3:]).reshape(1, 3, len(rows), width)
        picture[top : top + BAND] = np.asarray(images.to_pil(band))
    return picture


def _layer(view: npt.NDArray[np.uint8]) -> Float[Tensor, "4 h w"]:
    """Returns a picture (h, w, 3) in -1..1 times its weights, and the weights, which are a tent."""
    h, w = view.shape[:2]
    weight = _tent(h)[:, None] * _tent(w)
    return torch.cat([(torch.from_numpy(view).permute(2, 0, 1) / 127.5 - 1) * weight, weight[None]])


def _sample(picture: Float[Tensor, "c h w"], at: Float[Tensor, "k 2"]) -> Float[Tensor, "c k"]:
    """Returns a picture at places (x, y) in -1..1, bilinearly."""
    grid = at.to(picture)[None, None]
    return grid_sample(picture[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0]


def _tent(length: int) -> Float[Tensor, " length"]:
    """Returns weights that fall linearly from the middle towards 0 at the borders."""
    return 1 - ((torch.arange(length) + 0.5) / length * 2 - 1).abs()


POINTS_PER_CELL = 1.2  # along either axis: fewer would be taken twice by a view, more would be taken by no view
DEFAULT_WINDOWS = 2  # height of a picture for which no size is named; a view is then 76 degrees wide


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sphere(AbstractLayout):
    """Perspective views on rings of latitude, both poles included; the canvas is a row of points all over the sphere.

    In the middle of a view a cell is as large as on the equator of the picture, so the picture's width sets how wide
    the views are.
    """

    height: int
    width: int
    window: tuple[int, int]  # height, width
    stride: int  # at most so far lie neighbouring views apart, on the equator and on a meridian

    def __len__(self) -> int:
        return len(self.middles)

    @property
    def shape(self) -> tuple[int, int]:
        return 1, len(self.points)

    @property
    def kind(self) -> str:
        return "a sphere"

    @property
    def lossless(self) -> bool:
        return False

    @property
    def middle(self) -> int:
        return len(self) // 2

    @property
    def decoded(self) -> tuple[int, int]:
        return self.window

    @property
    def focal(self) -> float:
        """Returns the distance of a view's plane from the eye, in cells."""
        return self.width / (2 * math.pi)

    @cached_property
    def middles(self) -> tuple[tuple[float, float], ...]:
        """Returns (latitude, longitude) of the views' middles in radians, ring by ring from the top.

        One ring lies on the equator; every ring has a view at longitude 0; the view in the middle of the list is ahead.
        """
        rings = 2 * math.ceil(self.height / 2 / self.stride)
        found = []
        for ring in range(rings + 1):
            latitude = math.pi / 2 - math.pi * ring / rings
            n = max(1, math.ceil(self.width * math.cos(latitude) / self.stride - 1e-6))  # 1e-6: cos(90 degrees) > 0
            found += [(latitude, 2 * math.pi * (view - n // 2) / n) for view in range(n)]
        return tuple(found)

    @cached_property
    def axes(self) -> Float[Tensor, "n 3 3"]:
        """Returns every view's directions to the right, up and ahead, float64."""
        latitude, longitude = torch.tensor(self.middles, dtype=torch.float64).unbind(1)
        right = direction(torch.zeros_like(latitude), longitude + math.pi / 2)
        up = direction(latitude + math.pi / 2, longitude)
        return torch.stack([right, up, direction(latitude, longitude)], 1)

    @cached_property
    def points(self) -> Float[Tensor, "p 3"]:
        """Returns the directions of the canvas's points, float64: evenly dense, parallel by parallel."""
        rows = len(self._parallels)
        row = torch.repeat_interleave(self._parallels)
        column = torch.arange(len(row)) - self._firsts[row]
        longitude = 2 * math.pi * ((column.double() + 0.5) / self._parallels[row] - 0.5)
        return direction(math.pi * (0.5 - (row.double() + 0.5) / rows), longitude)

    @cached_property
    def nearest(self) -> Int[Tensor, "n h w"]:
        """Returns the index of the point that each cell of the views takes."""
        latitude, longitude = angles(torch.stack([self.rays(1, view) for view in range(len(self))]))
        rows = len(self._parallels)
        row = ((0.5 - latitude / math.pi) * rows).long().clamp(0, rows - 1)
        on_row = self._parallels[row]
        return self._firsts[row] + ((0.5 + longitude / (2 * math.pi)) * on_row).long() % on_row

    @property
    def trust(self) -> Float[Tensor, "h w"]:
        """Returns cos^3 of the angle to the view's middle: a cell's solid angle, as a share of the middle's."""
        return self._plane(1).pow(2).sum(-1).pow(-1.5)

    def crop(self, canvas: Float[Tensor, "1 c y x"]) -> Float[Tensor, "n c h w"]:
        return canvas[0, :, 0, self.nearest.to(canvas.device)].transpose(0, 1).contiguous()

    def add(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        cells = windows.transpose(0, 1).flatten(1)
        cells = torch.cat([cells, cells.new_zeros(len(cells), 1)], 1)
        return cells[:, self._takers.to(cells.device)].sum(1)[None, :, None]

    def look(
        self, picture: Num[Tensor, "1 c H W"], cell: int, windows: Sequence[int]
    ) -> Float[Tensor, "k c window_H window_W"]:
        return torch.stack([look_around(picture[0], self.rays(cell, view)) for view in windows])

    def decode(
        self,
        x0: Float[Tensor, "1 c y x"],
        decode: Decode,
        cell: int,
        height: int,
        width: int,
        tile: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        # Pictures are blended, not latents: between cells of different views there is nothing to interpolate. Those of
        # all views are held, but in 8 bit.
        h, w = (cell * side for side in self.window)
        views = [tiled_decode.decode(view[None], decode, cell, h, w, tile or self.tile) for view in self.crop(x0)]
        return stitched(views, self.see, height, width)

    def rays(self, cell: int, view: int) -> Float[Tensor, "H W 3"]:
        """Returns the directions (h * cell, w * cell, 3) of a view's pixels, float64, for `cell` pixels per cell."""
        return self._plane(cell) @ self.axes[view]

    def see(self, view: int, directions: Float[Tensor, "p 3"]) -> tuple[Int[Tensor, " k"], Float[Tensor, "k 2"]]:
        """Returns which of the directions a view sees, and where: (x, y) from -1 at its upper left."""
        x, y, z = (directions @ self.axes[view].T).unbind(-1)
        h, w = self.window
        at = torch.stack([x / w, -y / h], -1) * (2 * self.focal) / z[:, None]
        (inside,) = ((z > 0) & (at.abs() <= 1).all(-1)).nonzero(as_tuple=True)
        return inside, at[inside]

    def uncovered(self) -> int:
        """Returns how many points lie in no view, or less than half a cell within its border."""
        seen = torch.zeros(len(self.points), dtype=torch.bool)
        border = 1 - 1 / min(self.window)
        for view in range(len(self)):
            inside, at = self.see(view, self.points)
            seen[inside[(at.abs() <= border).all(-1)]] = True
        return int((~seen).sum())

    @cached_property
    def _parallels(self) -> Int[Tensor, " rows"]:
        """Returns how many points lie on each of the evenly spaced parallels, from the top."""
        rows = round(POINTS_PER_CELL * self.height)
        latitude = math.pi * (0.5 - (torch.arange(rows, dtype=torch.float64) + 0.5) / rows)
        return (2 * rows * latitude.cos()).ceil().long()

    @cached_property
    def _firsts(self) -> Int[Tensor, " rows"]:
        return self._parallels.cumsum(0) - self._parallels

    @cached_property
    def _takers(self) -> Int[Tensor, "k p"]:
        """Returns the cells that each point is made of: flat indices, filled up with n * h * w.

        They are the cells that take it. A point between cells, which none takes, is made of the cell around it in the
        view in whose middle it lies most.
        """
        cells, order = self.nearest.flatten().sort(stable=True)
        count = torch.bincount(cells, minlength=len(self.points))
        rank = torch.arange(len(cells)) - (count.cumsum(0) - count)[cells]
        table = torch.full((int(count.max()), len(count)), len(cells))
        table[rank, cells] = order
        (between,) = (count == 0).nonzero(as_tuple=True)
        points, (h, w) = self.points[between], self.window
        view = (points @ self.axes[:, 2].T).argmax(-1)
        x, y, z = torch.einsum("pd,pad->pa", points, self.axes[view]).unbind(-1)
        row = (h / 2 - self.focal * y / z).long().clamp(0, h - 1)
        column = (w / 2 + self.focal * x / z).long().clamp(0, w - 1)
        table[0, between] = (view * h + row) * w + column
        return table

    def _plane(self, cell: int) -> Float[Tensor, "H W 3"]:
        """Returns a view's pixels (h * cell, w * cell, 3) as directions in its own axes, float64, 1 ahead."""
        h, w = (cell * side for side in self.window)
        x = (torch.arange(w, dtype=torch.float64) + 0.5 - w / 2) / (self.focal * cell)
        y = (h / 2 - 0.5 - torch.arange(h, dtype=torch.float64)) / (self.focal * cell)
        return torch.stack([x.expand(h, w), y[:, None].expand(h, w), torch.ones(h, w, dtype=torch.float64)], -1)


def lay_out(height: int, width: int, geometry: Geometry, stride: int) -> Sphere:
    """Returns the views of an equirectangular picture of height x width px.

    Raises:
        ConfigError: the picture is not twice as wide as high, so small that views would be wider than 90 degrees, or
            the stride so large that views leave gaps.
    """
    if width != 2 * height:
        raise ConfigError(
            f"size {width}x{height} is not 2:1, as an equirectangular picture is (360 x 180 degrees); "
            f"use {2 * height}x{height}"
        )
    smallest = math.ceil(math.pi * max(geometry.window_px) / 2)
    if height < smallest:
        raise ConfigError(
            f"size {width}x{height} is too small for a sphere: views of this model would be wider than 90 degrees; "
            f"use at least {2 * smallest}x{smallest}"
        )
    sphere = Sphere(
        height=-(-height // geometry.cell),
        width=-(-width // geometry.cell),
        window=geometry.window,
        stride=stride,
    )
    if sphere.uncovered():
        raise ConfigError(
            f"stride {stride} leaves gaps between the views of the sphere; use {min(geometry.window) // 2} or less"
        )
    return sphere


def size(height: int | None, width: int | None, geometry: Geometry) -> tuple[int, int]:
    """Returns height and width of a picture in px: as asked, or from the other by 2:1, or two windows high."""
    if height is None:
        height = width // 2 if width is not None else DEFAULT_WINDOWS * geometry.window_px[0]
    return height, 2 * height if width is None else width
