"""The whole sphere as a canvas: windows are perspective views of it, the picture is equirectangular.

Directions are vectors (x to the right, y up, z ahead). Longitude, atan2(x, z), is 0 in the middle of the picture and
grows to the right; latitude falls from 90 degrees at its upper edge to -90 at the lower. Why it is done so is told in
`docs/equirectangular.md`.
"""

import dataclasses
import math
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from synccontrol.canvas.layout import AbstractLayout, Decode
from synccontrol.config import Geometry
from synccontrol.errors import ConfigError

POINTS_PER_CELL = 1.2  # along either axis: fewer would be taken twice by a view, more would be taken by no view
DEFAULT_WINDOWS = 2  # height of a picture for which no size is named; a view is then 76 degrees wide
BAND = 64  # rows of the picture that are projected at once


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
    def axes(self) -> Tensor:
        """Returns every view's directions to the right, up and ahead, (n, 3, 3), float64."""
        latitude, longitude = torch.tensor(self.middles, dtype=torch.float64).unbind(1)
        right = _direction(torch.zeros_like(latitude), longitude + math.pi / 2)
        up = _direction(latitude + math.pi / 2, longitude)
        return torch.stack([right, up, _direction(latitude, longitude)], 1)

    @cached_property
    def points(self) -> Tensor:
        """Returns the directions of the canvas's points (p, 3), float64: evenly dense, parallel by parallel."""
        rows = len(self._parallels)
        row = torch.repeat_interleave(self._parallels)
        column = torch.arange(len(row)) - self._firsts[row]
        longitude = 2 * math.pi * ((column.double() + 0.5) / self._parallels[row] - 0.5)
        return _direction(math.pi * (0.5 - (row.double() + 0.5) / rows), longitude)

    @cached_property
    def nearest(self) -> Tensor:
        """Returns the index of the point that each cell of the views takes, (n, h, w)."""
        latitude, longitude = _angles(self.rays(1))
        rows = len(self._parallels)
        row = ((0.5 - latitude / math.pi) * rows).long().clamp(0, rows - 1)
        on_row = self._parallels[row]
        return self._firsts[row] + ((0.5 + longitude / (2 * math.pi)) * on_row).long() % on_row

    @property
    def trust(self) -> Tensor:
        """Returns cos^3 of the angle to the view's middle, (h, w): a cell's solid angle, as a share of the middle's."""
        return self._plane(1).pow(2).sum(-1).pow(-1.5)

    def crop(self, canvas: Tensor) -> Tensor:
        return canvas[0, :, 0, self.nearest.to(canvas.device)].transpose(0, 1).contiguous()

    def add(self, windows: Tensor) -> Tensor:
        cells = windows.transpose(0, 1).flatten(1)
        cells = torch.cat([cells, cells.new_zeros(len(cells), 1)], 1)
        return cells[:, self._takers.to(cells.device)].sum(1)[None, :, None]

    def look(self, picture: Tensor, cell: int) -> Tensor:
        return torch.stack([look_around(picture[0], rays) for rays in self.rays(cell)])

    def decode(self, x0: Tensor, decode: Decode, cell: int, height: int, width: int) -> Tensor:
        # Pictures are blended, not latents: between cells of different views there is nothing to interpolate.
        views = torch.cat([decode(view[None]).float().cpu() for view in self.crop(x0)])
        weight = _tent(views.shape[-2])[:, None] * _tent(views.shape[-1])
        layers = torch.cat([views * weight, weight.expand(len(views), 1, -1, -1)], 1)
        longitude = 2 * math.pi * ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5)
        bands = []
        for top in range(0, height, BAND):
            rows = torch.arange(top, min(top + BAND, height))
            latitude = math.pi * (0.5 - (rows.double() + 0.5) / height)
            directions = _direction(latitude[:, None], longitude).flatten(0, 1)
            total = torch.zeros(4, len(directions))
            for view, layer in enumerate(layers):
                inside, at = self._see(view, directions)
                total[:, inside] += _sample(layer, at[None])[:, 0]
            bands.append((total[:3] / total[3:]).reshape(3, len(rows), width))
        return torch.cat(bands, 1)[None]

    def rays(self, cell: int) -> Tensor:
        """Returns the directions (n, h * cell, w * cell, 3) of the views' pixels, for `cell` pixels per cell."""
        return torch.einsum("hwa,nad->nhwd", self._plane(cell), self.axes)

    def uncovered(self) -> int:
        """Returns how many points lie in no view, or less than half a cell within its border."""
        seen = torch.zeros(len(self.points), dtype=torch.bool)
        border = 1 - 1 / min(self.window)
        for view in range(len(self)):
            inside, at = self._see(view, self.points)
            seen[inside[(at.abs() <= border).all(-1)]] = True
        return int((~seen).sum())

    @cached_property
    def _parallels(self) -> Tensor:
        """Returns how many points lie on each of the evenly spaced parallels, from the top."""
        rows = round(POINTS_PER_CELL * self.height)
        latitude = math.pi * (0.5 - (torch.arange(rows, dtype=torch.float64) + 0.5) / rows)
        return (2 * rows * latitude.cos()).ceil().long()

    @cached_property
    def _firsts(self) -> Tensor:
        return self._parallels.cumsum(0) - self._parallels

    @cached_property
    def _takers(self) -> Tensor:
        """Returns the cells that each point is made of: flat indices (k, p), filled up with n * h * w.

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

    def _plane(self, cell: int) -> Tensor:
        """Returns a view's pixels (h * cell, w * cell, 3) as directions in its own axes, float64, 1 ahead."""
        h, w = (cell * side for side in self.window)
        x = (torch.arange(w, dtype=torch.float64) + 0.5 - w / 2) / (self.focal * cell)
        y = (h / 2 - 0.5 - torch.arange(h, dtype=torch.float64)) / (self.focal * cell)
        return torch.stack([x.expand(h, w), y[:, None].expand(h, w), torch.ones(h, w, dtype=torch.float64)], -1)

    def _see(self, view: int, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns which of directions (p, 3) a view sees, (k,), and where, (x, y) from -1 at its upper left, (k, 2)."""
        x, y, z = (directions @ self.axes[view].T).unbind(-1)
        h, w = self.window
        at = torch.stack([x / w, -y / h], -1) * (2 * self.focal) / z[:, None]
        (inside,) = ((z > 0) & (at.abs() <= 1).all(-1)).nonzero(as_tuple=True)
        return inside, at[inside]


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


def look_around(picture: Tensor, directions: Tensor) -> Tensor:
    """Returns what an equirectangular picture (c, H, W) shows in directions (h, w, 3), bilinearly: (c, h, w)."""
    height, width = picture.shape[-2:]
    across = picture.roll(width // 2, -1)  # beyond a pole the picture goes on at the opposite longitude
    tall = torch.cat([across[:, :1], picture, across[:, -1:]], 1)
    grown = torch.cat([tall[..., -1:], tall, tall[..., :1]], 2)
    latitude, longitude = _angles(directions)
    x = (0.5 + longitude / (2 * math.pi)) * width + 1  # px of the grown picture, from its border
    y = (0.5 - latitude / math.pi) * height + 1
    return _sample(grown, torch.stack([2 * x / (width + 2), 2 * y / (height + 2)], -1) - 1)


def _sample(picture: Tensor, at: Tensor) -> Tensor:
    """Returns a picture (c, H, W) at places (h, w, 2) in -1..1, bilinearly: (c, h, w)."""
    grid = at.to(picture)[None]
    return grid_sample(picture[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]


def _tent(length: int) -> Tensor:
    """Returns weights (length,) that fall linearly from the middle towards 0 at the borders."""
    return 1 - ((torch.arange(length) + 0.5) / length * 2 - 1).abs()


def _direction(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Returns unit vectors (..., 3) for angles in radians that broadcast against each other."""
    x, z = latitude.cos() * longitude.sin(), latitude.cos() * longitude.cos()
    return torch.stack([x, latitude.sin().expand_as(x), z], -1)


def _angles(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Returns latitude and longitude of directions (..., 3), in radians."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(y, torch.hypot(x, z)), torch.atan2(x, z)
