"""The shares of regions in every cell of the canvas: they sum to 1 and blend at soft borders."""

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

MIN_SHARE = 1e-6  # smaller shares are set to 0
MAX_UNCOVERED = 0.5  # a larger share without a region is a gap; a smaller one is the edge of a painted map
GREY_TOLERANCE = 8  # levels of grey that count as equal, because compression changes them


def shares(
    regions: Sequence[Region],
    map_: Image.Image | None,
    layout: AbstractLayout,
    size: tuple[int, int, int],
    closed: bool,
    base: bool,
) -> Float[Tensor, "r y x"]:
    """Return the share of each region in every cell (layout.height, layout.width).

    The shares of a cell sum to 1; overlapping regions have equal shares. If some cells lie outside all regions, the
    last share is that of the base prompt.

    Args:
        regions: one or more regions.
        map_: the region map, whose levels of grey are regions; equirectangular if the canvas is.
        layout: the canvas.
        size: height and width of the image, px, and px per cell.
        closed: the left and right edges are neighbours.
        base: there is a base prompt for cells outside all regions.

    Raises:
        ConfigError: a region lies outside the image, or cells lie outside all regions and there is no base prompt.
        InputError: the region map is missing, or does not contain a level of grey.
    """
    height, width, cell = size
    masks = _grey_masks(map_, regions, height, width, closed)
    hard, soft = [], []
    for region in regions:
        border = region.soft * min(layout.window)
        if region.grey is None:
            box = _box(region, height, width, closed)
            hard.append(_box_share(box, layout, size, 0.0, closed))
            soft.append(_box_share(box, layout, size, border * cell, closed))
        else:
            hard.append(_white_share(masks[region.grey], layout, cell))
            soft.append(_blur(hard[-1], round(border), closed))
    blended, uncovered = torch.stack(soft), 1 - torch.stack(hard).sum(0)
    if bool((uncovered > MAX_UNCOVERED).any()):
        if not base:
            raise ConfigError(_describe_gap(uncovered, cell))
        blended = torch.cat([blended, (1 - blended.sum(0, keepdim=True)).clamp_min(0)])
    blended = blended / blended.sum(0, keepdim=True)
    blended = blended.where(blended > MIN_SHARE, torch.zeros_like(blended))
    return blended / blended.sum(0, keepdim=True)


def check_unused(map_: Image.Image | None) -> None:
    """Raise `ConfigError` if there is a region map but no region names one of its greys."""
    if map_ is not None:
        raise ConfigError("the region map does nothing: no region names a grey of it; write 'grey 128: a lake'")


def _box(region: Region, height: int, width: int, closed: bool) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom, px; on a ring, right may exceed the width."""
    left, top, right, bottom = region.box(height, width)
    if left > right and not closed:
        raise ConfigError(f"region {region.area} passes the right edge, and the image is not a ring; end it at 100%")
    if min(left, right) >= width or top >= height:
        raise ConfigError(f"region {region.area} lies outside the image, which is {width}x{height}")
    return left, top, right if left < right else right + width, bottom


def _box_share(
    box: tuple[float, float, float, float],
    layout: AbstractLayout,
    size: tuple[int, int, int],
    soft: float,
    closed: bool,
) -> Float[Tensor, "y x"]:
    """Return 1 inside a box and 0 outside, with linear borders `soft` px wide."""
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


def _ramp(position: Tensor, start: float, end: float, soft: float, ends: tuple[bool, bool]) -> Tensor:
    width = max(soft, MIN_SHARE)  # px; at least a hard border
    rise, fall = ((position - start) / width + 0.5).clamp(0, 1), ((end - position) / width + 0.5).clamp(0, 1)
    return (rise if ends[0] else torch.ones_like(position)) * (fall if ends[1] else torch.ones_like(position))


def _grey_masks(
    map_: Image.Image | None, regions: Sequence[Region], height: int, width: int, closed: bool
) -> dict[int, Image.Image]:
    """Return a mask for each level of grey: white on black, of the size of the image."""
    greys = sorted({region.grey for region in regions if region.grey is not None})
    if not greys:
        check_unused(map_)
        return {}
    if map_ is None:
        raise InputError(f"region grey {greys[0]} needs a region map, an image with one level of grey per region")
    if any(b - a <= 2 * GREY_TOLERANCE for a, b in itertools.pairwise(greys)):
        raise ConfigError(
            f"regions have the greys {greys}; they must lie more than {2 * GREY_TOLERANCE} apart to be told apart"
        )
    grey = map_.convert("L")
    resize.plan(images.to_rgb(map_), height, width, "region map", loop=closed)  # rejects another aspect ratio
    masks = {
        level: grey.point(lambda value, level=level: 255 * (abs(value - level) <= GREY_TOLERANCE)) for level in greys
    }
    for level, mask in masks.items():
        if not mask.getbbox():
            frequent = [value for _, value in sorted(grey.getcolors(256) or [], reverse=True)[:8]]
            raise InputError(f"the region map has no grey {level}; its most frequent greys are {frequent}")
    return {level: mask.resize((width, height), Image.Resampling.BOX) for level, mask in masks.items()}


def _white_share(mask: Image.Image, layout: AbstractLayout, cell: int) -> Float[Tensor, "y x"]:
    """Return the white share of every cell."""
    white = images.to_tensor(mask)[:, :1].double()
    return avg_pool2d(images.pad_to(white, layout.height * cell, layout.width * cell), cell)[0, 0]


def _blur(share: Float[Tensor, "y x"], width: int, closed: bool) -> Float[Tensor, "y x"]:
    """Blur shares so that their borders are `width` cells wide."""
    size = max(width, 1) | 1
    padded = pad(share[None, None], (size // 2, size // 2, 0, 0), mode="circular" if closed else "replicate")
    padded = pad(padded, (0, 0, size // 2, size // 2), mode="replicate")
    return avg_pool2d(padded, size, stride=1)[0, 0]


def _describe_gap(uncovered: Float[Tensor, "y x"], cell: int) -> str:
    rows, columns = (uncovered > MAX_UNCOVERED).nonzero(as_tuple=True)
    x, y = (f"{int(indices.min()) * cell} to {(int(indices.max()) + 1) * cell}" for indices in (columns, rows))
    return f"no region covers {len(rows)} cells between x {x} and y {y} px; give a prompt for all, or another region"
