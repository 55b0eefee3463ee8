"""The control types that need no weights, and what every control type keeps to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import preprocess
from preprocess.controls.lineart import standard
from preprocess.controls.mlsd import wireframe
from preprocess.controls.scribble import dark_lines, strokes
from preprocess.controls.softedge import FULL_STEP, edge_map, slopes
from preprocess.controls.tile import SOFTNESS
from preprocess.errors import DetectorError, OptionError
from synccontrol.cli import main, terminal
from synccontrol.models import registry
from synccontrol.spec.image_spec import INPAINT
from training.render import render

WITHOUT_WEIGHTS = [
    ("softedge", "sobel"),
    ("lineart", "standard"),
    ("lineart", "invert"),
    ("scribble", "sobel"),
    ("scribble", "xdog"),
    ("scribble", "invert"),
    ("mlsd", "lsd"),
    ("normal", "tiny"),
    ("tile", "blur"),
    ("tile", "guide"),
    ("qr", "grey"),
    ("qr", "binary"),
]
WITH_WEIGHTS = ["softedge", "lineart", "scribble", "mlsd", "normal", "segmentation"]
LINES = [pair for pair in WITHOUT_WEIGHTS if pair[0] in ("softedge", "lineart", "scribble", "mlsd")]
SIZES = [(205, 41), (31, 67), (9, 9), (1, 1)]  # width, height


def scene(width: int, height: int) -> Image.Image:
    """Returns a guide with edges, shades and people."""
    return Image.fromarray(render(np.random.default_rng(3), height=256, width=512, people=3).image).resize(
        (width, height)
    )


def drawing(width: int = 200, height: int = 120) -> Image.Image:
    """Returns a dark, thick, upright line on white, from x = 98 to 101."""
    paper = Image.new("RGB", (width, height), "white")
    paper.paste((20, 20, 20), (98, 20, 102, height - 20))
    return paper


def grey(control: str, detector: str, guide: Image.Image, **options: float) -> np.ndarray:
    """Returns a control map as numbers (H, W), and that its three colours are one."""
    found = np.asarray(preprocess.load(control, detector, offline=True, **options)(guide)).astype(int)
    assert (found == found[..., :1]).all()
    return found[..., 0]


@pytest.mark.parametrize(("control", "detector"), WITHOUT_WEIGHTS)
def test_map_has_exactly_the_guides_size(control: str, detector: str) -> None:
    detect = preprocess.load(control, detector, offline=True)
    picture = scene(256, 64)
    for size in SIZES:
        found = detect(picture.resize(size))
        assert found.size == size and found.mode == "RGB"


@pytest.mark.parametrize(("control", "detector"), LINES)
def test_lines_are_white_on_black(control: str, detector: str) -> None:
    found = grey(control, detector, drawing())
    columns = np.flatnonzero(found[60] > 100)
    assert len(columns) and columns.min() >= 85 and columns.max() <= 114
    assert (found[:, :70] < 5).all() and (found[:, 130:] < 5).all()


@pytest.mark.parametrize(("control", "detector"), [pair for pair in LINES if pair[1] != "invert"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_gives_no_lines(control: str, detector: str, level: int) -> None:
    assert not grey(control, detector, Image.new("RGB", (90, 60), (level,) * 3)).any()


@given(st.integers(1, 255))
def test_strength_of_a_step_is_its_height(height: int) -> None:
    picture = np.zeros((9, 80, 3), np.uint8)
    picture[:, 40:, 1] = height
    found = slopes(picture)[4]
    assert found.max() == pytest.approx(min(height / FULL_STEP, 1), rel=0.12)
    assert np.flatnonzero(found == found.max()).mean() == pytest.approx(39.5, abs=1)


def test_safe_edges_are_cut_to_three_greys() -> None:
    found = np.asarray(edge_map(np.array([[0, 0.3, 0.34, 0.6, 0.67, 1]], np.float32), safe=True))[0, :, 0]
    assert found.tolist() == [0, 0, 127, 127, 255, 255]
    assert set(np.unique(grey("softedge", "sobel", scene(120, 60), safe=True))) == {0, 127, 255}


def test_line_art_takes_only_what_is_darker_all_round() -> None:
    picture = np.full((60, 90, 3), 128, np.uint8)
    picture[30, 20:40], picture[30, 50:70], picture[45, 50:70, 0] = 60, 200, 60
    found = standard(picture)
    assert found[30, 30] > 0.4 and found[30, 60] == 0
    assert found[45, 60] < 0.1 * found[30, 30]  # darker in one colour only
    assert found.shape == (60, 90) and found.max() <= 1


def test_difference_of_gaussians_finds_dark_lines_in_every_colour() -> None:
    picture = np.full((60, 90, 3), 128, np.uint8)
    picture[30, 20:70], picture[10, 20:70], picture[45, 20:70, 0] = 40, 230, 40
    found = dark_lines(picture)
    assert found[30, 40] and not found[10].any() and not found[45].any()


def test_strokes_follow_the_ridge_of_sure_edges() -> None:
    strength = np.zeros((80, 120), np.float32)
    strength[:, 30:36], strength[:, 90:96] = 1, 0.4
    found = strokes(strength)
    columns = np.flatnonzero(found[40])
    assert columns.mean() == pytest.approx(32.5, abs=1) and 5 <= len(columns) <= 24


def test_wireframe_leaves_short_lines_out() -> None:
    lines = np.array([[5, 5, 45, 5], [10, 20, 20, 20], [-30, 30, 90, 30]], np.float32)
    found = np.asarray(wireframe(lines, (60, 40), length=15))[..., 0]
    assert set(np.flatnonzero(found.any(axis=1))) == {5, 30}
    assert np.flatnonzero(found[5]).tolist() == list(range(5, 46)) and found[30].all()
    assert not np.asarray(wireframe(np.zeros((0, 4), np.float32), (60, 40), length=0)).any()


def test_straight_lines_of_a_polygon() -> None:
    picture = np.full((120, 200, 3), 255, np.uint8)
    cv2.fillPoly(picture, [np.array([[40, 20], [160, 50], [60, 100]])], (30, 60, 90))
    found = grey("mlsd", "lsd", Image.fromarray(picture))
    outline = np.zeros((120, 200), np.uint8)
    cv2.polylines(outline, [np.array([[40, 20], [160, 50], [60, 100]])], True, 255, 5)
    assert set(np.unique(found)) == {0, 255}
    assert (outline[found > 0] > 0).all() and (found > 0).sum() > 0.8 * (126 + 112 + 83) * 0.8


@pytest.mark.parametrize("shift", [13, 130, 199])
def test_straight_lines_of_a_ring_are_whole_wherever_it_is_cut(shift: int) -> None:
    picture = np.full((100, 300, 3), 255, np.uint8)
    cv2.fillPoly(picture, [np.array([[100, 20], [200, 30], [160, 80], [110, 75]])], (30, 60, 90))
    detect = preprocess.load("mlsd", "lsd", offline=True, loop=True)
    found = np.asarray(detect(Image.fromarray(picture)))
    turned = np.asarray(detect(Image.fromarray(np.roll(picture, shift, axis=1))))
    assert set(np.unique(turned)) == {0, 255} and found.any()
    assert (np.roll(found, shift, axis=1) == turned).mean() > 0.999


def test_tile_keeps_colours_and_loses_detail() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 512, 3), np.uint8))
    found, given = np.asarray(preprocess.load("tile")(noise), float), np.asarray(noise, float)
    assert np.abs(found.mean(axis=(0, 1)) - given.mean(axis=(0, 1))).max() < 2
    left = given.std() / (2 * SOFTNESS * np.sqrt(np.pi))  # of independent noise, after a Gaussian blur
    assert found.std() == pytest.approx(left, rel=0.1)
    assert np.array_equal(preprocess.load("tile", "guide")(noise), noise)


def test_pattern_is_neutral_at_half_grey() -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1)))
    assert np.array_equal(grey("qr", "grey", ramp)[0], np.arange(256))
    assert set(np.unique(grey("qr", "grey", ramp, contrast=0))) <= {127, 128}
    half = grey("qr", "grey", ramp, contrast=0.5)[0]
    assert half.min() == 64 and half.max() == 191 and (half[127], half[128]) == (127, 128)
    assert set(np.unique(grey("qr", "binary", ramp))) == {0, 255}
    assert set(preprocess.outside("qr")) == {128}


@pytest.mark.parametrize(
    ("control", "option", "value"), [("qr", "contrast", 1.5), ("qr", "contrast", -0.1), ("mlsd", "length", -1.0)]
)
def test_options_out_of_range(control: str, option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{control} {option}"):
        preprocess.load(control, **{option: value})


@pytest.mark.parametrize("control", WITH_WEIGHTS)
def test_every_published_detector_says_when_its_weights_are_missing(
    control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    offline = {name for type_, name in WITHOUT_WEIGHTS if type_ == control}
    published = set(preprocess.detectors(control)) - offline
    assert preprocess.detectors(control)[0] in published
    for detector in published:
        with pytest.raises(DetectorError, match="has not been downloaded and downloads are off") as error:
            preprocess.load(control, detector, offline=True)
        assert "\n" not in str(error.value)
        named = [name for name in preprocess.detectors(control) if f"'{name}'" in str(error.value)]
        assert set(named) <= offline and bool(named) == bool(offline)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("control", WITH_WEIGHTS)
def test_a_place_that_is_no_folder(control: str) -> None:
    with pytest.raises((DetectorError, OptionError), match=r"'\./no/such/folder'") as error:
        preprocess.load(control, "./no/such/folder", offline=True)
    assert "\n" not in str(error.value)


def test_photographic_models_have_controlnets_of_every_type() -> None:
    assert set(registry.PRESETS["sd15"].controlnets) == {*preprocess.names(), INPAINT}
    assert set(registry.PRESETS["sd21"].controlnets) == set(preprocess.names()) - {"mlsd", "tile"}
    assert set(registry.PRESETS["sdxl"].controlnets) == set(preprocess.names()) - {"qr"}


def test_a_missing_controlnet_is_said_before_weights_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene(512, 256).save(tmp_path / "guide.png")
    argv = ["--control", "softedge", "--guide", str(tmp_path / "guide.png"), "--output", str(tmp_path / "out.png")]
    for extra in ([], ["--dry-run"]):
        assert main.main([*argv, "--offline", *extra]) == terminal.BAD_INPUT
        said = capsys.readouterr().err
        assert "model 'tiny' has no ControlNet for 'softedge': it has canny, depth, pose" in said
        assert said.count("\n") == 1
