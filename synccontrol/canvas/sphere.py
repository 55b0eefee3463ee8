"""Equirectangular panoramas: the canvas is a sphere, and windows are perspective views of it.

`docs/equirectangular.md` explains the design.
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

BAND = 64  # rows of the panorama that are stitched at once

Projection = Callable[[int, Tensor], tuple[Tensor, Tensor]]  # `Sphere.project`


def direction(latitude: Float[Tensor, "*#d"], longitude: Float[Tensor, "*#d"]) -> Float[Tensor, "*d 3"]:
    """Return unit vectors for latitudes and longitudes in radians, which broadcast against each other."""
    x, z = latitude.cos() * longitude.sin(), latitude.cos() * longitude.cos()
    return torch.stack([x, latitude.sin().expand_as(x), z], -1)


def angles(directions: Float[Tensor, "*d 3"]) -> tuple[Float[Tensor, "*d"], Float[Tensor, "*d"]]:
    """Return the latitudes and longitudes of directions, in radians."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(y, torch.hypot(x, z)), torch.atan2(x, z)


def sample_equirectangular(image: Num[Tensor, "c H W"], directions: Float[Tensor, "h w 3"]) -> Float[Tensor, "c h w"]:
    """Sample an equirectangular image in the given directions, bilinearly."""
    height, width = image.shape[-2:]
    latitude, longitude = angles(directions)
    x = (0.5 + longitude / (2 * math.pi)) * width - 0.5  # px, from the centre of the first pixel
    y = (0.5 - latitude / math.pi) * height - 0.5
    left, top = x.floor().long(), y.floor().long()

    def row(index: Tensor) -> Tensor:
        beyond = (index < 0) | (index >= height)  # beyond a pole the image continues at the opposite longitude
        column, inside = left + beyond * (width // 2), index.clamp(0, height - 1)
        first, second = (images.to_float(image[:, inside, (column + offset) % width]) for offset in (0, 1))
        return torch.lerp(first, second, (x - left).to(first))

    upper, lower = row(top), row(top + 1)
    return torch.lerp(upper, lower, (y - top).to(upper))


def stitch_views(
    views: Sequence[npt.NDArray[np.uint8]], project: Projection, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Stitch views (h, w, 3) into an equirectangular image (height, width, 3), band by band.

    Overlapping views are averaged with weights that fall towards their borders. `project(index, directions)` returns
    the indices of the directions (p, 3) inside a view and their positions in it.
    """
    panorama = np.empty((height, width, 3), dtype=np.uint8)
    longitude = 2 * math.pi * ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5)
    for top in range(0, height, BAND):
        rows = torch.arange(top, min(top + BAND, height))
        latitude = math.pi * (0.5 - (rows.double() + 0.5) / height)
        directions = direction(latitude[:, None], longitude).flatten(0, 1)
        total = torch.zeros(4, len(directions))
        for index, view in enumerate(views):
            inside, positions = project(index, directions)
            if len(inside):
                total[:, inside] += _sample(_layer(view), positions)
        band = (total[:3] / total[3:]).reshape(1, 3, len(rows), width)
        panorama[top : top + BAND] = np.asarray(images.to_pil(band))
    return panorama


def _layer(view: npt.NDArray[np.uint8]) -> Float[Tensor, "4 h w"]:
    """Return an image (h, w, 3) in -1..1 multiplied by tent weights, with the weights as the last channel."""
    h, w = view.shape[:2]
    weight = _tent(h)[:, None] * _tent(w)
    return torch.cat([(torch.from_numpy(view).permute(2, 0, 1) / 127.5 - 1) * weight, weight[None]])


def _sample(image: Float[Tensor, "c h w"], positions: Float[Tensor, "k 2"]) -> Float[Tensor, "c k"]:
    """Sample an image at positions (x, y) in -1..1, bilinearly."""
    grid = positions.to(image)[None, None]
    return grid_sample(image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0]


def _tent(length: int) -> Float[Tensor, " length"]:
    """Return weights that fall linearly from the middle towards 0 at the borders."""
    return 1 - ((torch.arange(length) + 0.5) / length * 2 - 1).abs()


POINTS_PER_CELL = (
    1.2  # along either axis: with fewer points two cells of a view share one, with more some points stay unused
)
DEFAULT_WINDOWS = 2  # default height of a panorama; a view is then 76 degrees wide


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sphere(AbstractLayout):
    """Perspective views on circles of latitude and at both poles; the canvas is a list of points on the sphere.

    A cell at the centre of a view is as large as a cell on the equator of the panorama. So the width of the panorama
    determines the field of view.
    """

    height: int
    width: int
    window: tuple[int, int]  # height, width
    stride: int  # the largest distance of neighbouring views on the equator and on a meridian

    def __len__(self) -> int:
        return len(self.centers)

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
    def decode_shape(self) -> tuple[int, int]:
        return self.window

    @property
    def focal(self) -> float:
        """Return the focal length of a view, in cells."""
        return self.width / (2 * math.pi)

    @cached_property
    def centers(self) -> tuple[tuple[float, float], ...]:
        """Return (latitude, longitude) of the centres of the views in radians, circle by circle from the top.

        One circle is the equator, and each has a view at longitude 0. The middle view of the list looks straight ahead.
        """
        circles = 2 * math.ceil(self.height / 2 / self.stride)
        centers = []
        for circle in range(circles + 1):
            latitude = math.pi / 2 - math.pi * circle / circles
            n = max(1, math.ceil(self.width * math.cos(latitude) / self.stride - 1e-6))  # 1e-6: cos(90 degrees) > 0
            centers += [(latitude, 2 * math.pi * (view - n // 2) / n) for view in range(n)]
        return tuple(centers)

    @cached_property
    def axes(self) -> Float[Tensor, "n 3 3"]:
        """Return the axes of every view (right, up, ahead), float64."""
        latitude, longitude = torch.tensor(self.centers, dtype=torch.float64).unbind(1)
        right = direction(torch.zeros_like(latitude), longitude + math.pi / 2)
        up = direction(latitude + math.pi / 2, longitude)
        return torch.stack([right, up, direction(latitude, longitude)], 1)

    @cached_property
    def points(self) -> Float[Tensor, "p 3"]:
        """Return the directions of the points of the canvas, float64: of even density, parallel by parallel."""
        rows = len(self._row_lengths)
        row = torch.repeat_interleave(self._row_lengths)
        column = torch.arange(len(row)) - self._row_starts[row]
        longitude = 2 * math.pi * ((column.double() + 0.5) / self._row_lengths[row] - 0.5)
        return direction(math.pi * (0.5 - (row.double() + 0.5) / rows), longitude)

    @cached_property
    def nearest(self) -> Int[Tensor, "n h w"]:
        """Return the index of the nearest point for each cell of the views."""
        latitude, longitude = angles(torch.stack([self.rays(1, view) for view in range(len(self))]))
        rows = len(self._row_lengths)
        row = ((0.5 - latitude / math.pi) * rows).long().clamp(0, rows - 1)
        on_row = self._row_lengths[row]
        return self._row_starts[row] + ((0.5 + longitude / (2 * math.pi)) * on_row).long() % on_row

    @property
    def cell_weights(self) -> Float[Tensor, "h w"]:
        """Return the solid angle of each cell relative to the central one: cos^3 of the angle from the centre."""
        return self._plane(1).pow(2).sum(-1).pow(-1.5)

    def crop(self, canvas: Float[Tensor, "1 c y x"]) -> Float[Tensor, "n c h w"]:
        return canvas[0, :, 0, self.nearest.to(canvas.device)].transpose(0, 1).contiguous()

    def add(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        cells = windows.transpose(0, 1).flatten(1)
        cells = torch.cat([cells, cells.new_zeros(len(cells), 1)], 1)
        return cells[:, self._cells_of_points.to(cells.device)].sum(1)[None, :, None]

    def crop_image(
        self, image: Num[Tensor, "1 c H W"], cell: int, windows: Sequence[int]
    ) -> Float[Tensor, "k c window_H window_W"]:
        return torch.stack([sample_equirectangular(image[0], self.rays(cell, view)) for view in windows])

    def decode(
        self,
        x0: Float[Tensor, "1 c y x"],
        decode: Decode,
        cell: int,
        height: int,
        width: int,
        tile: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        # Views are blended in pixels, because the latent cells of different views cannot be interpolated. The images of
        # all views are held in 8 bit.
        h, w = (cell * side for side in self.window)
        views = [tiled_decode.decode(view[None], decode, cell, h, w, tile or self.tile) for view in self.crop(x0)]
        return stitch_views(views, self.project, height, width)

    def rays(self, cell: int, view: int) -> Float[Tensor, "H W 3"]:
        """Return the directions (h * cell, w * cell, 3) of the pixels of a view, float64."""
        return self._plane(cell) @ self.axes[view]

    def project(self, view: int, directions: Float[Tensor, "p 3"]) -> tuple[Int[Tensor, " k"], Float[Tensor, "k 2"]]:
        """Return the indices of the directions inside a view, and their positions (x, y) in -1..1."""
        x, y, z = (directions @ self.axes[view].T).unbind(-1)
        h, w = self.window
        positions = torch.stack([x / w, -y / h], -1) * (2 * self.focal) / z[:, None]
        (inside,) = ((z > 0) & (positions.abs() <= 1).all(-1)).nonzero(as_tuple=True)
        return inside, positions[inside]

    def uncovered(self) -> int:
        """Return the number of points that no view covers by at least half a cell."""
        is_covered = torch.zeros(len(self.points), dtype=torch.bool)
        border = 1 - 1 / min(self.window)
        for view in range(len(self)):
            inside, positions = self.project(view, self.points)
            is_covered[inside[(positions.abs() <= border).all(-1)]] = True
        return int((~is_covered).sum())

    @cached_property
    def _row_lengths(self) -> Int[Tensor, " rows"]:
        """Return the number of points on each of the evenly spaced parallels, from the top."""
        rows = round(POINTS_PER_CELL * self.height)
        latitude = math.pi * (0.5 - (torch.arange(rows, dtype=torch.float64) + 0.5) / rows)
        return (2 * rows * latitude.cos()).ceil().long()

    @cached_property
    def _row_starts(self) -> Int[Tensor, " rows"]:
        return self._row_lengths.cumsum(0) - self._row_lengths

    @cached_property
    def _cells_of_points(self) -> Int[Tensor, "k p"]:
        """Return the cells that contribute to each point: flat indices, padded with n * h * w.

        These are the cells whose nearest point it is. A point that is nearest to no cell takes the cell that contains
        it, in the view whose centre is closest.
        """
        cells, order = self.nearest.flatten().sort(stable=True)
        count = torch.bincount(cells, minlength=len(self.points))
        slots = torch.arange(len(cells)) - (count.cumsum(0) - count)[cells]
        table = torch.full((int(count.max()), len(count)), len(cells))
        table[slots, cells] = order
        (unassigned,) = (count == 0).nonzero(as_tuple=True)
        points, (h, w) = self.points[unassigned], self.window
        view = (points @ self.axes[:, 2].T).argmax(-1)
        x, y, z = torch.einsum("pd,pad->pa", points, self.axes[view]).unbind(-1)
        row = (h / 2 - self.focal * y / z).long().clamp(0, h - 1)
        column = (w / 2 + self.focal * x / z).long().clamp(0, w - 1)
        table[0, unassigned] = (view * h + row) * w + column
        return table

    def _plane(self, cell: int) -> Float[Tensor, "H W 3"]:
        """Return the pixels of a view (h * cell, w * cell, 3) as directions in the axes of the view, float64."""
        h, w = (cell * side for side in self.window)
        x = (torch.arange(w, dtype=torch.float64) + 0.5 - w / 2) / (self.focal * cell)
        y = (h / 2 - 0.5 - torch.arange(h, dtype=torch.float64)) / (self.focal * cell)
        return torch.stack([x.expand(h, w), y[:, None].expand(h, w), torch.ones(h, w, dtype=torch.float64)], -1)


def lay_out(height: int, width: int, geometry: Geometry, stride: int) -> Sphere:
    """Return the views of an equirectangular panorama of height x width px.

    Raises:
        ConfigError: the panorama is not twice as wide as high; it is so small that views would be wider than 90
            degrees; the stride is so large that views leave gaps.
    """
    if width != 2 * height:
        raise ConfigError(
            f"size {width}x{height} is not 2:1, as an equirectangular panorama is (360 x 180 degrees); "
            f"use {2 * height}x{height}"
        )
    smallest = math.ceil(math.pi * max(geometry.window_px) / 2)
    if height < smallest:
        raise ConfigError(
            f"size {width}x{height} is too small for an equirectangular panorama: the views of this model "
            f"would be wider than 90 degrees; use at least {2 * smallest}x{smallest}"
        )
    sphere = Sphere(
        height=-(-height // geometry.cell),
        width=-(-width // geometry.cell),
        window=geometry.window,
        stride=stride,
    )
    if sphere.uncovered():
        raise ConfigError(f"stride {stride} leaves gaps between the views; use {min(geometry.window) // 2} or less")
    return sphere


def size(height: int | None, width: int | None, geometry: Geometry) -> tuple[int, int]:
    """Return the height and width in px; a missing side follows from the ratio 2:1, or from two windows."""
    if height is None:
        height = width // 2 if width is not None else DEFAULT_WINDOWS * geometry.window_px[0]
    return height, 2 * height if width is None else width
