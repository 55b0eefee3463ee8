"""Shares of regions: 1 in all, soft at borders, closed on rings, read off pictures, and never with a silent gap."""

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
    given = {"layout": LAYOUT, "size": SIZE, "closed": False, **changes}
    return regions.shares([Region.parse(line) for line in lines], map_, base=base, **given)


def greys(*levels: int) -> Image.Image:
    """Returns a map 256x64 of bars of these levels."""
    return Image.fromarray(np.repeat(np.array([levels], np.uint8), 64, 0).repeat(256 // len(levels), 1))


def test_neighbours_pass_into_each_other_and_are_whole_inside() -> None:
    found = shares("0-50%: a | soft: 0.5", "50-100%: b | soft: 0.5")
    torch.testing.assert_close(found.sum(0), torch.ones(8, 32, dtype=torch.float64))
    assert torch.equal(found[0, 0], found[1, 0].flip(0))
    assert found[0, 0, :14].eq(1).all() and found[0, 0, 18:].eq(0).all()
    torch.testing.assert_close(found[0, 0, 14:18], torch.tensor([7, 5, 3, 1]).double() / 8)


def test_a_hard_border_is_one_step_and_rows_have_borders_too() -> None:
    found = shares("0-100% x 0-50%: sky | soft: 0", "0-100% x 50-100%: land | soft: 0")
    assert found[0, :4].eq(1).all() and found[1, 4:].eq(1).all()


def test_where_regions_overlap_each_has_an_equal_part() -> None:
    found = shares("0-75%: a | soft: 0", "25-100%: b | soft: 0")
    assert found[:, :, 8:24].eq(0.5).all() and found[0, :, :8].eq(1).all()


def test_what_lies_in_none_is_the_last_and_needs_a_prompt() -> None:
    found = shares("0-50%: a | soft: 0", base=True)
    assert len(found) == 2 and found[1, :, 16:].eq(1).all()
    assert len(shares("0-100%: a", base=True)) == 1
    with pytest.raises(ConfigError, match="covers 128 cells between x 128 to 256 and y 0 to 64 px; give a prompt"):
        shares("0-128: a")


def test_regions_of_other_softness_leave_no_gap() -> None:
    found = shares("0-50%: a | soft: 0", "50-100%: b | soft: 1")
    assert len(found) == 2 and found.isfinite().all()
    torch.testing.assert_close(found.sum(0), torch.ones(8, 32, dtype=torch.float64))


def test_on_a_ring_the_join_is_a_border_as_any_other() -> None:
    ring = Layout(height=8, width=32, window=(8, 8), stride=4, loop=True)
    found = shares("0-50%: a", "50-100%: b", layout=ring, closed=True)
    turned = shares("25-75%: a", "75-25%: b", layout=ring, closed=True)
    torch.testing.assert_close(found.roll(8, -1), turned)
    assert shares("0-100%: a", layout=ring, closed=True).eq(1).all()
    with pytest.raises(ConfigError, match="the picture is no ring"):
        shares("75-25%: b", base=True)


def test_windows_of_a_sphere_see_shares_that_are_one_in_all() -> None:
    sphere = Sphere(height=16, width=32, window=(8, 8), stride=4)
    size = (128, 256, CELL)
    found = shares("0-50%: a", "50-100% x 0-50%: b", base=True, layout=sphere, size=size, closed=True)
    seen = sphere.look(found[None], 1, range(len(sphere)))
    assert seen.shape == (len(sphere), 3, 8, 8)
    torch.testing.assert_close(seen.sum(1), torch.ones(len(sphere), 8, 8, dtype=torch.float64))


def test_regions_are_read_off_levels_of_grey() -> None:
    found = shares("grey 0: a | soft: 0", "grey 128: b | soft: 0", map_=greys(3, 128, 128, 0), base=False)
    assert found[0, :, :8].eq(1).all() and found[1, :, 8:24].eq(1).all() and found[0, :, 24:].eq(1).all()
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
        (["300-400: a"], None, "lies outside of the picture, which is 256x64"),
        (["0-100% x 64-80: a"], None, "lies outside"),
    ],
)
def test_what_makes_no_sense_is_one_line(lines: list[str], map_: Image.Image | None, words: str) -> None:
    with pytest.raises((ConfigError, InputError), match=words):
        shares(*lines, map_=map_, base=True)
