"""Warnings about control maps that are empty or invalid, and none about valid maps."""

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
    """Return a few white lines on black."""
    image = BLACK.copy()
    ImageDraw.Draw(image).line([(5, 5), (280, 90), (150, 10)], fill="white")
    return image


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_valid_maps_are_not_reported(guide: Path) -> None:
    with Image.open(guide) as image:
        for control in ("canny", "depth"):
            assert preprocess.remarks(control, preprocess.load(control)(image)) == []
        pose_map = preprocess.load("pose")(image)
    has_nobody = not len(poses_of(pose_map).people)
    assert has_nobody == (guide.stem != "people")
    assert [remark.split(":")[1].split(";")[0] for remark in preprocess.remarks("pose", pose_map)] == (
        [" it shows nobody"] if has_nobody else []
    )


@pytest.mark.parametrize(("control", "content"), LINES.items())
def test_maps_without_lines_are_reported(control: str, content: str) -> None:
    (remark,) = preprocess.remarks(control, BLACK)
    assert f"the {control} map is one colour throughout: it holds no {content}; give a guide" in remark
    faint = np.random.default_rng(0).integers(0, 10, (100, 300), dtype=np.uint8)  # as in JPEG files
    assert preprocess.remarks(control, faint) == [remark]


@pytest.mark.parametrize("control", LINES)
def test_inverted_maps_are_reported(control: str) -> None:
    assert preprocess.remarks(control, lines()) == []
    (remark,) = preprocess.remarks(control, ImageOps.invert(lines()))
    assert "looks inverted, dark on light" in remark and "white on black" in remark
    assert ("'invert'" in remark) == ("invert" in preprocess.detectors(control))


def test_depth_in_millimetres_is_almost_black() -> None:
    metres = np.linspace(1, 6, 300 * 100).reshape(100, 300)
    (remark,) = preprocess.remarks("depth", Image.fromarray((metres * 1000).astype(np.uint16)))
    assert "the depth map is almost black throughout" in remark and "16 bits" in remark
    with_outlier = (metres * 1000).astype(np.uint16)
    with_outlier[0, 0] = 65535  # the value of sensors without a measurement
    assert preprocess.remarks("depth", with_outlier) == [remark]
    assert preprocess.remarks("depth", (metres / 6 * 65535).astype(np.uint16)) == []


def test_constant_depth_is_reported() -> None:
    assert preprocess.remarks("depth", BLACK)[0].startswith("the depth map is almost black throughout")
    assert "all is at one distance" in preprocess.remarks("depth", np.full((100, 300), 0.6))[0]


@pytest.mark.parametrize("control", preprocess.names())
def test_empty_maps_of_every_type_are_reported(control: str) -> None:
    (remark,) = preprocess.remarks(control, BLACK)
    assert remark.startswith(f"the {control} map is ") and "; " in remark and "\n" not in remark
    coloured = np.zeros((100, 300, 3), np.uint8)
    coloured[:, :150] = (0, 0, 255)
    assert preprocess.remarks(control, coloured) == [] or control == "depth"


def test_invalid_arguments_are_errors() -> None:
    with pytest.raises(OptionError, match="no control type 'smell'"):
        preprocess.remarks("smell", BLACK)
    with pytest.raises(PictureError, match="is a path"):
        preprocess.remarks("canny", "map.png")
