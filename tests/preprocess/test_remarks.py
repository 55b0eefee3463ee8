"""Control maps that hold nothing or cannot be right are remarked on, all others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

import preprocess
from preprocess.controls.pose import poses_of
from preprocess.errors import OptionError, PictureError

GUIDES = sorted((Path(__file__).parents[2] / "examples" / "guides").glob("*.png"))
LINES = {"canny": "edges", "softedge": "outlines", "lineart": "lines", "scribble": "strokes", "mlsd": "straight lines"}
SIZE = (300, 100)
BLACK = Image.new("RGB", SIZE)


def lines() -> Image.Image:
    """Returns a few white lines on black."""
    drawn = BLACK.copy()
    ImageDraw.Draw(drawn).line([(5, 5), (280, 90), (150, 10)], fill="white")
    return drawn


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_no_false_alarms(guide: Path) -> None:
    with Image.open(guide) as picture:
        for control in ("canny", "depth"):
            assert preprocess.remarks(control, preprocess.load(control)(picture)) == []
        people = preprocess.load("pose")(picture)
    nobody = not len(poses_of(people).people)
    assert nobody == (guide.stem != "people")
    assert [remark.split(":")[1].split(";")[0] for remark in preprocess.remarks("pose", people)] == (
        [" it shows nobody"] if nobody else []
    )


@pytest.mark.parametrize(("control", "what"), LINES.items())
def test_maps_without_lines(control: str, what: str) -> None:
    (remark,) = preprocess.remarks(control, BLACK)
    assert f"the {control} map is one colour throughout: it holds no {what}; give a guide" in remark
    faint = np.random.default_rng(0).integers(0, 10, (100, 300), dtype=np.uint8)  # as JPEG leaves it
    assert preprocess.remarks(control, faint) == [remark]


@pytest.mark.parametrize("control", LINES)
def test_lines_are_white_on_black(control: str) -> None:
    assert preprocess.remarks(control, lines()) == []
    (remark,) = preprocess.remarks(control, ImageOps.invert(lines()))
    assert "looks inverted, dark on light" in remark and "white on black" in remark
    assert ("'invert'" in remark) == ("invert" in preprocess.detectors(control))


def test_depth_in_millimetres_is_almost_black() -> None:
    metres = np.linspace(1, 6, 300 * 100).reshape(100, 300)
    (remark,) = preprocess.remarks("depth", Image.fromarray((metres * 1000).astype(np.uint16)))
    assert "the depth map is almost black throughout" in remark and "16 bits" in remark
    stray = (metres * 1000).astype(np.uint16)
    stray[0, 0] = 65535  # what sensors write where they measure nothing
    assert preprocess.remarks("depth", stray) == [remark]
    assert preprocess.remarks("depth", (metres / 6 * 65535).astype(np.uint16)) == []


def test_flat_depth() -> None:
    assert preprocess.remarks("depth", BLACK)[0].startswith("the depth map is almost black throughout")
    assert "all is at one distance" in preprocess.remarks("depth", np.full((100, 300), 0.6))[0]


@pytest.mark.parametrize("control", preprocess.names())
def test_every_type_remarks_on_nothing(control: str) -> None:
    (remark,) = preprocess.remarks(control, BLACK)
    assert remark.startswith(f"the {control} map is ") and "; " in remark and "\n" not in remark
    coloured = np.zeros((100, 300, 3), np.uint8)
    coloured[:, :150] = (0, 0, 255)
    assert preprocess.remarks(control, coloured) == [] or control == "depth"


def test_wrong_arguments() -> None:
    with pytest.raises(OptionError, match="no control type 'smell'"):
        preprocess.remarks("smell", BLACK)
    with pytest.raises(PictureError, match="is a path"):
        preprocess.remarks("canny", "map.png")
