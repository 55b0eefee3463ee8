"""Equirectangular pictures: what they show in some directions, and how one is made of views.

Directions are vectors (x to the right, y up, z ahead). Longitude, atan2(x, z), is 0 in the middle of the picture and
grows to the right; latitude falls from 90 degrees at its upper edge to -90 at the lower.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn.functional import grid_sample

from synccontrol.io import images

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
        first, second = (images.in_floats(picture[:, inside, (column + offset) % width]) for offset in (0, 1))
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
