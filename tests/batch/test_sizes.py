"""How large pictures are."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synccontrol.errors import ConfigError, InputError
from synccontrol.io.resize import ASPECT_TOLERANCE
from synccontrol.pipeline.inputs import canvas_size
from synccontrol.spec.settings import Geometry, WindowConfig
from tests.batch.wanted import RECIPE

GEOMETRY = Geometry(window=(8, 8), cell=8, channels=4)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(40, 2000), st.integers(40, 2000), st.booleans())
def test_the_canvas_has_the_guides_aspect_and_room_for_a_window(width: int, height: int, loop: bool) -> None:
    guide, windows = Image.new("L", (width, height)), WindowConfig(stride=4, loop=loop)
    canvas_h, canvas_w = canvas_size(guide, None, None, windows, GEOMETRY)
    assert min(canvas_h, canvas_w) >= 64
    assert 64 in (canvas_h, canvas_w)
    slack = 4 / canvas_w if loop else 0  # half a cell
    assert abs(canvas_w / canvas_h * height / width - 1) < ASPECT_TOLERANCE + slack
    assert canvas_w % 8 == 0 or not loop


def test_one_given_side_sets_the_other() -> None:
    guide = Image.new("L", (600, 100))
    assert canvas_size(guide, 128, None, WindowConfig(), GEOMETRY) == (128, 768)
    assert canvas_size(guide, None, 480, WindowConfig(), GEOMETRY) == (80, 480)
    with pytest.raises(InputError, match="at least 13 pixels"):
        canvas_size(Image.new("L", (60, 10)), 100, None, WindowConfig(), GEOMETRY)


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown fit 'squash'; known: exact, crop, pad, stretch"):
        dataclasses.replace(RECIPE, fit="squash")
