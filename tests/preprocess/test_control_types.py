"""Detectors without weights, and properties of every control type."""

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
    """Return a guide with edges, shades and people."""
    return Image.fromarray(render(np.random.default_rng(3), height=256, width=512, people=3).image).resize(
        (width, height)
    )


def drawing(width: int = 200, height: int = 120) -> Image.Image:
    """Return a dark, thick, upright line on white, from x = 98 to 101."""
    paper = Image.new("RGB", (width, height), "white")
    paper.paste((20, 20, 20), (98, 20, 102, height - 20))
    return paper


def grey(control: str, detector: str, guide: Image.Image, **options: float) -> np.ndarray:
    """Return a control map as grey levels (H, W), and check that it is grey."""
    levels = np.asarray(preprocess.load(control, detector, offline=True, **options)(guide)).astype(int)
    assert (levels == levels[..., :1]).all()
    return levels[..., 0]


@pytest.mark.parametrize(("control", "detector"), WITHOUT_WEIGHTS)
def test_maps_have_the_size_of_the_guide(control: str, detector: str) -> None:
    detect = preprocess.load(control, detector, offline=True)
    image = scene(256, 64)
    for size in SIZES:
        control_map = detect(image.resize(size))
        assert control_map.size == size and control_map.mode == "RGB"


@pytest.mark.parametrize(("control", "detector"), LINES)
def test_lines_are_white_on_black(control: str, detector: str) -> None:
    levels = grey(control, detector, drawing())
    columns = np.flatnonzero(levels[60] > 100)
    assert len(columns) and columns.min() >= 85 and columns.max() <= 114
    assert (levels[:, :70] < 5).all() and (levels[:, 130:] < 5).all()


@pytest.mark.parametrize(("control", "detector"), [pair for pair in LINES if pair[1] != "invert"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_guides_have_no_lines(control: str, detector: str, level: int) -> None:
    assert not grey(control, detector, Image.new("RGB", (90, 60), (level,) * 3)).any()


@given(st.integers(1, 255))
def test_strength_of_a_step_is_its_height(height: int) -> None:
    image = np.zeros((9, 80, 3), np.uint8)
    image[:, 40:, 1] = height
    strength = slopes(image)[4]
    assert strength.max() == pytest.approx(min(height / FULL_STEP, 1), rel=0.12)
    assert np.flatnonzero(strength == strength.max()).mean() == pytest.approx(39.5, abs=1)


def test_safe_edges_have_three_levels() -> None:
    levels = np.asarray(edge_map(np.array([[0, 0.3, 0.34, 0.6, 0.67, 1]], np.float32), safe=True))[0, :, 0]
    assert levels.tolist() == [0, 0, 127, 127, 255, 255]
    assert set(np.unique(grey("softedge", "sobel", scene(120, 60), safe=True))) == {0, 127, 255}


def test_line_art_is_darker_than_its_surroundings_in_every_channel() -> None:
    image = np.full((60, 90, 3), 128, np.uint8)
    image[30, 20:40], image[30, 50:70], image[45, 50:70, 0] = 60, 200, 60
    strength = standard(image)
    assert strength[30, 30] > 0.4 and strength[30, 60] == 0
    assert strength[45, 60] < 0.1 * strength[30, 30]  # darker in one channel only
    assert strength.shape == (60, 90) and strength.max() <= 1


def test_xdog_lines_are_dark_in_every_channel() -> None:
    image = np.full((60, 90, 3), 128, np.uint8)
    image[30, 20:70], image[10, 20:70], image[45, 20:70, 0] = 40, 230, 40
    mask = dark_lines(image)
    assert mask[30, 40] and not mask[10].any() and not mask[45].any()


def test_strokes_follow_the_ridges_of_strong_edges() -> None:
    strength = np.zeros((80, 120), np.float32)
    strength[:, 30:36], strength[:, 90:96] = 1, 0.4
    mask = strokes(strength)
    columns = np.flatnonzero(mask[40])
    assert columns.mean() == pytest.approx(32.5, abs=1) and 5 <= len(columns) <= 24


def test_wireframe_leaves_short_lines_out() -> None:
    lines = np.array([[5, 5, 45, 5], [10, 20, 20, 20], [-30, 30, 90, 30]], np.float32)
    levels = np.asarray(wireframe(lines, (60, 40), length=15))[..., 0]
    assert set(np.flatnonzero(levels.any(axis=1))) == {5, 30}
    assert np.flatnonzero(levels[5]).tolist() == list(range(5, 46)) and levels[30].all()
    assert not np.asarray(wireframe(np.zeros((0, 4), np.float32), (60, 40), length=0)).any()


def test_straight_lines_of_a_polygon() -> None:
    image = np.full((120, 200, 3), 255, np.uint8)
    cv2.fillPoly(image, [np.array([[40, 20], [160, 50], [60, 100]])], (30, 60, 90))
    levels = grey("mlsd", "lsd", Image.fromarray(image))
    outline = np.zeros((120, 200), np.uint8)
    cv2.polylines(outline, [np.array([[40, 20], [160, 50], [60, 100]])], True, 255, 5)
    assert set(np.unique(levels)) == {0, 255}
    assert (outline[levels > 0] > 0).all() and (levels > 0).sum() > 0.8 * (126 + 112 + 83) * 0.8


@pytest.mark.parametrize("shift", [13, 130, 199])
def test_straight_lines_cross_the_seam_of_a_ring(shift: int) -> None:
    image = np.full((100, 300, 3), 255, np.uint8)
    cv2.fillPoly(image, [np.array([[100, 20], [200, 30], [160, 80], [110, 75]])], (30, 60, 90))
    detect = preprocess.load("mlsd", "lsd", offline=True, loop=True)
    control_map = np.asarray(detect(Image.fromarray(image)))
    turned = np.asarray(detect(Image.fromarray(np.roll(image, shift, axis=1))))
    assert set(np.unique(turned)) == {0, 255} and control_map.any()
    assert (np.roll(control_map, shift, axis=1) == turned).mean() > 0.999


def test_tile_preserves_colours_and_removes_detail() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 512, 3), np.uint8))
    blurred, original = np.asarray(preprocess.load("tile")(noise), float), np.asarray(noise, float)
    assert np.abs(blurred.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 2
    remaining = original.std() / (
        2 * SOFTNESS * np.sqrt(np.pi)
    )  # expected deviation of white noise after a Gaussian blur
    assert blurred.std() == pytest.approx(remaining, rel=0.1)
    assert np.array_equal(preprocess.load("tile", "guide")(noise), noise)


def test_patterns_are_neutral_at_mid_grey() -> None:
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
def test_detectors_report_missing_weights(
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
        alternatives = [name for name in preprocess.detectors(control) if f"'{name}'" in str(error.value)]
        assert set(alternatives) <= offline and bool(alternatives) == bool(offline)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("control", WITH_WEIGHTS)
def test_an_invalid_folder_is_an_error(control: str) -> None:
    with pytest.raises((DetectorError, OptionError), match=r"'\./no/such/folder'") as error:
        preprocess.load(control, "./no/such/folder", offline=True)
    assert "\n" not in str(error.value)


def test_photographic_models_have_controlnets_of_every_type() -> None:
    assert set(registry.PRESETS["sd15"].controlnets) == {*preprocess.names(), INPAINT}
    assert set(registry.PRESETS["sd21"].controlnets) == set(preprocess.names()) - {"mlsd", "tile"}
    assert set(registry.PRESETS["sdxl"].controlnets) == set(preprocess.names()) - {"qr"}


def test_a_missing_controlnet_is_reported_before_weights_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene(512, 256).save(tmp_path / "guide.png")
    argv = ["--control", "softedge", "--guide", str(tmp_path / "guide.png"), "--output", str(tmp_path / "out.png")]
    for extra in ([], ["--dry-run"]):
        assert main.main([*argv, "--offline", *extra]) == terminal.BAD_INPUT
        message = capsys.readouterr().err
        assert "model 'tiny' has no ControlNet for 'softedge': it has canny, depth, pose" in message
        assert message.count("\n") == 1
