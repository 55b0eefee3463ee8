"""Region shares: they sum to 1, blend at borders, close on rings, and leave no unnoticed gap."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol.canvas import regions
from synccontrol.canvas.flat import Layout
from synccontrol.canvas.sphere import Sphere
from synccontrol.errors import ConfigError, InputError
from synccontrol.spec.region import Region

CELL = 8
LAYOUT = Layout(height=8, width=32, window=(8, 8), stride=4)
SIZE = (64, 256, CELL)


def shares(*lines: str, map_: Image.Image | None = None, base: bool = False, **changes: Any) -> Tensor:
    options = {"layout": LAYOUT, "size": SIZE, "closed": False, **changes}
    return regions.shares([Region.parse(line) for line in lines], map_, base=base, **options)


def greys(*levels: int) -> Image.Image:
    """Return a map 256x64 of bars of these levels."""
    return Image.fromarray(np.repeat(np.array([levels], np.uint8), 64, 0).repeat(256 // len(levels), 1))


def test_neighbouring_regions_blend_at_their_border() -> None:
    result = shares("0-50%: a | soft: 0.5", "50-100%: b | soft: 0.5")
    torch.testing.assert_close(result.sum(0), torch.ones(8, 32, dtype=torch.float64))
    assert torch.equal(result[0, 0], result[1, 0].flip(0))
    assert result[0, 0, :14].eq(1).all() and result[0, 0, 18:].eq(0).all()
    torch.testing.assert_close(result[0, 0, 14:18], torch.tensor([7, 5, 3, 1]).double() / 8)


def test_hard_borders_are_one_step_in_both_directions() -> None:
    result = shares("0-100% x 0-50%: sky | soft: 0", "0-100% x 50-100%: land | soft: 0")
    assert result[0, :4].eq(1).all() and result[1, 4:].eq(1).all()


def test_overlapping_regions_have_equal_shares() -> None:
    result = shares("0-75%: a | soft: 0", "25-100%: b | soft: 0")
    assert result[:, :, 8:24].eq(0.5).all() and result[0, :, :8].eq(1).all()


def test_cells_outside_all_regions_need_a_base_prompt() -> None:
    result = shares("0-50%: a | soft: 0", base=True)
    assert len(result) == 2 and result[1, :, 16:].eq(1).all()
    assert len(shares("0-100%: a", base=True)) == 1
    with pytest.raises(ConfigError, match="covers 128 cells between x 128 to 256 and y 0 to 64 px; give a prompt"):
        shares("0-128: a")


def test_regions_of_different_softness_leave_no_gap() -> None:
    result = shares("0-50%: a | soft: 0", "50-100%: b | soft: 1")
    assert len(result) == 2 and result.isfinite().all()
    torch.testing.assert_close(result.sum(0), torch.ones(8, 32, dtype=torch.float64))


def test_the_seam_of_a_ring_is_an_ordinary_border() -> None:
    ring = Layout(height=8, width=32, window=(8, 8), stride=4, loop=True)
    result = shares("0-50%: a", "50-100%: b", layout=ring, closed=True)
    rolled = shares("25-75%: a", "75-25%: b", layout=ring, closed=True)
    torch.testing.assert_close(result.roll(8, -1), rolled)
    assert shares("0-100%: a", layout=ring, closed=True).eq(1).all()
    with pytest.raises(ConfigError, match="the image is not a ring"):
        shares("75-25%: b", base=True)


def test_shares_in_the_views_of_a_sphere_sum_to_one() -> None:
    sphere = Sphere(height=16, width=32, window=(8, 8), stride=4)
    size = (128, 256, CELL)
    result = shares("0-50%: a", "50-100% x 0-50%: b", base=True, layout=sphere, size=size, closed=True)
    crops = sphere.crop_image(result[None], 1, range(len(sphere)))
    assert crops.shape == (len(sphere), 3, 8, 8)
    torch.testing.assert_close(crops.sum(1), torch.ones(len(sphere), 8, 8, dtype=torch.float64))


def test_regions_come_from_levels_of_grey() -> None:
    result = shares("grey 0: a | soft: 0", "grey 128: b | soft: 0", map_=greys(3, 128, 128, 0), base=False)
    assert result[0, :, :8].eq(1).all() and result[1, :, 8:24].eq(1).all() and result[0, :, 24:].eq(1).all()
    small = shares("grey 0: a", "grey 255: b", map_=greys(0, 255).resize((64, 16)))
    torch.testing.assert_close(small, shares("0-50%: a", "50-100%: b"))


@pytest.mark.parametrize(
    ("lines", "map_", "words"),
    [
        (["grey 9: a"], None, "needs a region map"),
        (["0-100%: a"], greys(0, 255), "the region map does nothing"),
        (["grey 9: a", "grey 20: b"], greys(9, 20), "more than 16 apart"),
        (["grey 9: a", "grey 80: b"], greys(9, 200), "no grey 80; its most frequent greys are .*200"),
        (["grey 0: a"], greys(0, 255).resize((100, 100)), "the region map is 100x100, another aspect"),
        (["300-400: a"], None, "lies outside the image, which is 256x64"),
        (["0-100% x 64-80: a"], None, "lies outside"),
    ],
)
def test_invalid_regions_raise_an_error_of_one_line(lines: list[str], map_: Image.Image | None, words: str) -> None:
    with pytest.raises((ConfigError, InputError), match=words):
        shares(*lines, map_=map_, base=True)
