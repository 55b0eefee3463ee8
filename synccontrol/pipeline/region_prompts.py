"""The regions of a picture on its canvas: which part of each window is whose, and what is said there."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synccontrol.canvas import regions
from synccontrol.canvas.base import AbstractLayout
from synccontrol.families.base import View
from synccontrol.spec.image_spec import ImageSpec
from synccontrol.spec.region import joined
from synccontrol.spec.settings import SamplingConfig


def window_shares(
    picture: ImageSpec, region_map: Image.Image | None, layout: AbstractLayout, cell: int
) -> Float[Tensor, "n r h w"] | None:
    """Returns how much of each cell of each window belongs to each region of a picture; None if it has no regions.

    Raises:
        SyncControlError: as `canvas.regions.shares`.
    """
    if not picture.regions:
        regions.check_unused(region_map)
        return None
    size = picture.height, picture.width, cell
    closed, base = picture.windows.closed, bool(picture.prompt)
    found = regions.shares(picture.regions, region_map, layout, size, closed, base)
    return layout.look(found[None], 1, range(len(layout)))


def said(picture: ImageSpec, view: View, count: int) -> Sequence[tuple[View, SamplingConfig]]:
    """Returns what is drawn in each of so many regions, and how; the last may be what lies in none."""
    found = [(_own(view, region.prompt, region.negative_prompt), region.control_scale) for region in picture.regions]
    return [(own, _controlled(picture.sampling, scale)) for own, scale in (*found, (view, 1.0))][:count]


def _own(view: View, prompt: str, negative_prompt: str) -> View:
    assert isinstance(view.prompt, str) and isinstance(view.negative_prompt, str)
    return dataclasses.replace(
        view, prompt=joined(prompt, view.prompt), negative_prompt=joined(negative_prompt, view.negative_prompt)
    )


def _controlled(sampling: SamplingConfig, factor: float) -> SamplingConfig:
    scale = sampling.control_scale
    scaled = tuple(one * factor for one in scale) if isinstance(scale, tuple) else scale * factor
    return dataclasses.replace(sampling, control_scale=scaled)
