"""Which part of the canvas belongs to which region: shares that are 1 in all, and pass softly into each other."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from synccontrol.canvas.base import AbstractLayout
from synccontrol.errors import ConfigError, InputError
from synccontrol.io import images, resize
from synccontrol.spec.region import Region

LEAST = 1e-6  # a share below is none
FREE = 0.5  # a cell of which more lies in no region does not belong to one; less is the edge of a drawn map
NEAR = 8  # levels of grey that count as the same, as in pictures that were compressed


def shares(
    regions: Sequence[Region],
    map_: Image.Image | None,
    layout: AbstractLayout,
    size: tuple[int, int, int],
    closed: bool,
    base: bool,
) -> Float[Tensor, "r y x"]:
    """Returns how much of every cell (layout.height, layout.width) belongs to each region, and to none of them, last.

    They are 1 in all. Where regions overlap each has an equal part. The last one is there only if some cells lie in no
    region.

    Args:
        regions: at least one.
        map_: whose levels of grey are regions; on a sphere it is equirectangular.
        layout: the canvas.
        size: of the picture: height and width, px, and px per cell.
        closed: the right edge goes on at the left.
        base: there is a prompt for what lies in no region.

    Raises:
        ConfigError: a region lies outside of the picture, or what lies in none has no prompt.
        InputError: there is no map, or a level of grey is not in it.
    """
    height, width, cell = size
    levels = _levels(map_, regions, height, width, closed)
    hard, soft = [], []
    for region in regions:
        width_of_border = region.soft * min(layout.window)
        if region.grey is None:
            box = _box(region, height, width, closed)
            hard.append(_inside(box, layout, size, 0.0, closed))
            soft.append(_inside(box, layout, size, width_of_border * cell, closed))
        else:
            hard.append(_cells(levels[region.grey], layout, cell))
            soft.append(_blurred(hard[-1], round(width_of_border), closed))
    found, free = torch.stack(soft), 1 - torch.stack(hard).sum(0)
    if bool((free > FREE).any()):
        if not base:
            raise ConfigError(_gap(free, cell))
        found = torch.cat([found, (1 - found.sum(0, keepdim=True)).clamp_min(0)])
    found = found / found.sum(0, keepdim=True)
    found = found.where(found > LEAST, torch.zeros_like(found))
    return found / found.sum(0, keepdim=True)


def check_unused(map_: Image.Image | None) -> None:
    """Raises `ConfigError` if there is a region map where no region names a grey of it."""
    if map_ is not None:
        raise ConfigError("the region map does nothing: no region names a grey of it; write 'grey 128: a lake'")


def _box(region: Region, height: int, width: int, closed: bool) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom, px; right may lie beyond a ring's join."""
    left, top, right, bottom = region.box(height, width)
    if left > right and not closed:
        raise ConfigError(f"region {region.area} passes the right edge, and the picture is no ring; end it at 100%")
    if min(left, right) >= width or top >= height:
        raise ConfigError(f"region {region.area} lies outside of the picture, which is {width}x{height}")
    return left, top, right if left < right else right + width, bottom


def _inside(
    box: tuple[float, float, float, float],
    layout: AbstractLayout,
    size: tuple[int, int, int],
    soft: float,
    closed: bool,
) -> Float[Tensor, "y x"]:
    """Returns 1 inside of a box and 0 outside; along its borders, `soft` px wide, it falls linearly."""
    left, top, right, bottom = box
    height, width, cell = size
    x, y = ((torch.arange(n, dtype=torch.float64) + 0.5) * cell for n in (layout.width, layout.height))
    down = _ramp(y, top, bottom, soft, ends=(top > 0, bottom < height))
    if not closed:
        across = _ramp(x, left, right, soft, ends=(left > 0, right < width))
    elif right - left >= width:
        across = torch.ones_like(x)
    else:
        turns = [_ramp(x + turn * width, left, right, soft, ends=(True, True)) for turn in (-1, 0, 1)]
        across = torch.stack(turns).amax(0)
    return down[:, None] * across[None, :]


def _ramp(at: Tensor, first: float, last: float, soft: float, ends: tuple[bool, bool]) -> Tensor:
    width = max(soft, LEAST)  # px; a hard border
    up, down = ((at - first) / width + 0.5).clamp(0, 1), ((last - at) / width + 0.5).clamp(0, 1)
    return (up if ends[0] else torch.ones_like(at)) * (down if ends[1] else torch.ones_like(at))


def _levels(
    map_: Image.Image | None, regions: Sequence[Region], height: int, width: int, closed: bool
) -> dict[int, Image.Image]:
    """Returns, by level of grey, where the map has it: white on black, as large as the picture."""
    wanted = sorted({region.grey for region in regions if region.grey is not None})
    if not wanted:
        check_unused(map_)
        return {}
    if map_ is None:
        raise InputError(f"region grey {wanted[0]} needs a region map, a picture of one level of grey a region")
    if any(b - a <= 2 * NEAR for a, b in itertools.pairwise(wanted)):
        raise ConfigError(f"regions have the greys {wanted}; they must lie more than {2 * NEAR} apart to be told apart")
    grey = map_.convert("L")
    resize.plan(images.to_rgb(map_), height, width, "region map", loop=closed)  # raises where its aspect is another
    found = {level: grey.point(lambda value, level=level: 255 * (abs(value - level) <= NEAR)) for level in wanted}
    for level, where in found.items():
        if not where.getbbox():
            there = [value for _, value in sorted(grey.getcolors(256) or [], reverse=True)[:8]]
            raise InputError(f"the region map has no grey {level}; its most frequent greys are {there}")
    return {level: where.resize((width, height), Image.Resampling.BOX) for level, where in found.items()}


def _cells(where: Image.Image, layout: AbstractLayout, cell: int) -> Float[Tensor, "y x"]:
    """Returns how much of every cell is white."""
    white = images.to_tensor(where)[:, :1].double()
    return avg_pool2d(images.pad_to(white, layout.height * cell, layout.width * cell), cell)[0, 0]


def _blurred(share: Float[Tensor, "y x"], width: int, closed: bool) -> Float[Tensor, "y x"]:
    """Returns shares whose borders are as wide as `width` cells."""
    size = max(width, 1) | 1
    padded = pad(share[None, None], (size // 2, size // 2, 0, 0), mode="circular" if closed else "replicate")
    padded = pad(padded, (0, 0, size // 2, size // 2), mode="replicate")
    return avg_pool2d(padded, size, stride=1)[0, 0]


def _gap(free: Float[Tensor, "y x"], cell: int) -> str:
    rows, columns = (free > FREE).nonzero(as_tuple=True)
    x, y = (f"{int(some.min()) * cell} to {(int(some.max()) + 1) * cell}" for some in (columns, rows))
    return f"no region covers {len(rows)} cells between x {x} and y {y} px; give a prompt for all, or another region"
