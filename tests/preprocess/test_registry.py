"""The registry of control types, and properties of its types."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import preprocess
from preprocess import controls
from preprocess.errors import DetectorError, OptionError, PreprocessError
from training.render import render

SIZES = [(517, 301), (301, 517), (64, 64), (1100, 130)]  # width, height
CONTROLS = ["canny", "depth", "pose"]


def scene(width: int, height: int) -> Image.Image:
    """Return a guide with edges, shades and people."""
    return Image.fromarray(render(np.random.default_rng(3), height=256, width=512, people=3).image).resize(
        (width, height)
    )


def test_the_folder_is_the_registry() -> None:
    names = preprocess.names()
    files = {path.stem for path in Path(controls.__file__).parent.glob("*.py")}
    assert set(CONTROLS) <= set(names)
    assert set(names) == files - {"__init__"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONTROLS)
def test_maps_have_the_size_of_the_guide(name: str, size: tuple[int, int]) -> None:
    control_map = preprocess.load(name)(scene(*size))
    assert control_map.size == size
    assert control_map.mode == "RGB"


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_guides_of_any_mode(mode: str) -> None:
    guide = scene(96, 64).convert("L") if mode == "I;16" else scene(96, 64)
    assert preprocess.load("canny")(guide.convert(mode)).size == (96, 64)


@pytest.mark.parametrize("name", CONTROLS)
def test_default_detectors_need_no_network(name: str) -> None:
    assert preprocess.load(name, offline=True)(scene(128, 64)).size == (128, 64)
    assert preprocess.detectors(name)[0] == importlib.import_module(f"preprocess.controls.{name}").CONTROL.default


@pytest.mark.parametrize("name", CONTROLS)
def test_detection_is_deterministic(name: str) -> None:
    detect, guide = preprocess.load(name), scene(256, 128)
    assert np.array_equal(np.asarray(detect(guide)), np.asarray(detect(guide)))


def test_an_unknown_control_type_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"no control type 'dept'.*canny.*depth.*pose") as error:
        preprocess.load("dept")
    assert isinstance(error.value, PreprocessError) and isinstance(error.value, ValueError)


@pytest.mark.parametrize("name", CONTROLS)
def test_an_unknown_detector_lists_the_known_ones(name: str) -> None:
    with pytest.raises(OptionError, match="nonesuch") as error:
        preprocess.load(name, "nonesuch")
    assert all(detector in str(error.value) for detector in preprocess.detectors(name))
    assert "\n" not in str(error.value)


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"canny has no option 'hgih'; it has low, high"):
        preprocess.load("canny", hgih=3)
    with pytest.raises(OptionError, match=r"pose has no option 'low'; it has none"):
        preprocess.load("pose", low=3)


def test_an_unknown_device_is_an_error() -> None:
    with pytest.raises(DetectorError, match=r"device 'cuda:7' cannot be used.*use cpu"):
        preprocess.load("depth", device="cuda:7")


def test_canny_is_white_on_black_and_follows_its_thresholds() -> None:
    guide = Image.new("RGB", (60, 40), "black")
    guide.paste((40, 40, 40), (0, 0, 30, 40))
    faint = preprocess.load("canny", low=20, high=60)(guide)
    assert set(np.unique(faint)) == {0, 255}
    columns = np.flatnonzero(np.asarray(faint)[20, :, 0])
    assert len(columns) and np.abs(columns - 29.5).max() <= 1
    assert not np.asarray(preprocess.load("canny")(guide)).any()
    with pytest.raises(OptionError, match="low 300, high 200"):
        preprocess.load("canny", low=300)


def test_listing_control_types_imports_no_network_library() -> None:
    heavy = "torch, transformers, controlnet_aux, diffusers, rtmlib"
    code = f"import sys, preprocess; preprocess.names(); print(set('{heavy}'.split(', ')) & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"
    assert not process.stderr
