"""Depth maps: near is white for distance and nearness models, in real transformers formats; missing weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    GLPNConfig,
    GLPNForDepthEstimation,
    GLPNImageProcessor,
)

import preprocess
from preprocess.control import Runtime
from preprocess.errors import DetectorError, OptionError
from preprocess.estimators.transformers_models import TransformersDepth, gives_distance, invert_distance

PATCH, NATIVE = 14, 56  # px
LOUD = 8.0  # factor on the random decoder, so that its depth varies over the image
OFFLINE = Runtime(offline=True)


def depth_anything(folder: Path, kind: str) -> str:
    """Return a folder with a tiny random Depth Anything, inverse depth or metric, and its processor."""
    torch.manual_seed(0)
    backbone = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": NATIVE,
        "patch_size": PATCH,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
        "reshape_hidden_states": False,
    }
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[4, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20,
    )
    network = DepthAnythingForDepthEstimation(config)
    for name, weight in network.named_parameters():
        if "neck" in name or "head" in name:
            weight.data.mul_(LOUD)
    network.save_pretrained(folder)
    size = {"height": NATIVE, "width": NATIVE}
    DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=PATCH).save_pretrained(folder)
    return str(folder)


def guide(width: int = 301, height: int = 97) -> Image.Image:
    """Return smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 18, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def raw(folder: str, output: str, width: int = 301) -> np.ndarray:
    """Return the values of the estimator in `folder`, with the given meaning."""
    return TransformersDepth(folder, OFFLINE, output)(np.asarray(guide(width)))


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_near_is_white_for_inverse_depth_and_for_metres(kind: str, tmp_path: Path) -> None:
    folder = depth_anything(tmp_path, kind)
    values = raw(folder, "nearness", width=140)
    depth_map = preprocess.load("depth", folder, offline=True)(guide(140))
    assert depth_map.size == guide(140).size and depth_map.mode == "RGB"
    grey = np.asarray(depth_map.convert("L").resize(values.shape[::-1]), np.float32)
    order = np.corrcoef(grey.ravel(), values.ravel())[0, 1]
    assert order > 0.9 if kind == "relative" else order < -0.9
    assert grey.min() < 50 and grey.max() > 200


def test_the_output_option_overrides_the_model_type(tmp_path: Path) -> None:
    folder = depth_anything(tmp_path, "relative")
    assert np.allclose(raw(folder, "distance"), invert_distance(raw(folder, "nearness")))
    assert np.allclose(raw(folder, "auto"), raw(folder, "nearness"))
    with pytest.raises(OptionError, match="depth output 'near' is not known"):
        preprocess.load("depth", folder, output="near")


def test_wide_guides_are_scaled_by_height(tmp_path: Path) -> None:
    estimator = TransformersDepth(depth_anything(tmp_path, "relative"), OFFLINE, "auto")
    assert estimator(np.zeros((256, 1536, 3), np.uint8)).shape == (NATIVE, 6 * NATIVE)
    assert estimator(np.zeros((100, 100, 3), np.uint8)).shape == (NATIVE, NATIVE)


def test_dpt_with_its_own_vit_has_a_square_input(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    config = DPTConfig(
        **sizes,
        image_size=64,
        patch_size=16,
        fusion_hidden_size=8,
        neck_hidden_sizes=[4, 8, 8, 8],
        backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=False,
    )
    DPTForDepthEstimation(config).save_pretrained(tmp_path)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    assert not gives_distance(config, "dpt")
    assert preprocess.load("depth", str(tmp_path), offline=True)(guide()).size == guide().size


def test_glpn_returns_metres_at_the_size_of_the_guide(tmp_path: Path) -> None:
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    config = GLPNConfig(**sizes, decoder_hidden_size=8)
    GLPNForDepthEstimation(config).save_pretrained(tmp_path)
    GLPNImageProcessor().save_pretrained(tmp_path)
    assert gives_distance(config, "glpn")
    assert TransformersDepth(str(tmp_path), OFFLINE, "auto")(np.zeros((97, 301, 3), np.uint8)).shape == (96, 288)


@pytest.mark.parametrize(
    ("kind", "distance"), [("depth_pro", False), ("zoedepth", True), ("glpn", True), ("tipsv2_dpt", True)]
)
def test_the_meaning_of_values_by_model_type(kind: str, distance: bool) -> None:
    config = type("Config", (), {"model_type": kind})
    assert gives_distance(config, "model") is distance


def test_an_unknown_model_type_needs_the_output_option() -> None:
    with pytest.raises(DetectorError, match=r"'owner/canopy' is a chmv2 model.*output='nearness'"):
        gives_distance(type("Config", (), {"model_type": "chmv2"}), "owner/canopy")


def test_single_near_pixels_do_not_set_the_scale() -> None:
    distance = np.full((50, 50), 10, np.float32)
    distance[:, :25] = 5
    distance[0, 0] = 1e-6
    nearness = invert_distance(distance)
    assert nearness.max() == pytest.approx(1 / 5) and nearness.min() == pytest.approx(1 / 10)
    assert np.isfinite(invert_distance(np.zeros((4, 4), np.float32))).all()


@pytest.mark.parametrize(
    ("control", "model"),
    [("depth", "depth-anything"), ("depth", "zoe"), ("depth", "owner/model"), ("depth", "midas"), ("pose", "openpose")],
)
def test_missing_weights_are_reported(
    control: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DetectorError, match="has not been downloaded and downloads are off") as error:
        preprocess.load(control, model, offline=True)
    assert "'tiny' needs no download" in str(error.value) and "\n" not in str(error.value)
    assert isinstance(error.value, RuntimeError)
    assert capfd.readouterr() == ("", "")


def test_missing_and_invalid_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no folder"):
        preprocess.load("depth", "./no/such/folder", offline=True)
    with pytest.raises(DetectorError, match=r"cannot be used.*'tiny' needs no download"):
        preprocess.load("depth", str(tmp_path), offline=True)


def test_an_unreachable_hub_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DetectorError, match=r"owner/model.*hub cannot be reached.*'tiny' needs no download"):
        preprocess.load("depth", "owner/model")


def test_a_missing_rtmlib_is_reported() -> None:
    pytest.importorskip("preprocess.estimators.rtm")
    with pytest.raises(DetectorError, match=r"pip install|has not been downloaded"):
        preprocess.load("pose", "rtmlib", offline=True)
