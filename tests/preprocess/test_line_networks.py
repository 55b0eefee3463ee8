"""The networks of controlnet_aux with random weights, compared with the detectors of the package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import preprocess
from preprocess.control import Runtime
from preprocess.errors import DetectorError
from preprocess.estimators.annotators import controlnet_aux
from preprocess.estimators.checkpoints import CHECKPOINTS, Source
from preprocess.estimators.line_networks import decode_lines, edges, straight_lines
from preprocess.hub import suppress_output

with controlnet_aux():
    from controlnet_aux import (
        HEDdetector,
        LineartAnimeDetector,
        LineartDetector,
        MLSDdetector,
        NormalBaeDetector,
        PidiNetDetector,
        TEEDdetector,
    )
    from controlnet_aux.hed import ControlNetHED_Apache2
    from controlnet_aux.lineart import Generator
    from controlnet_aux.lineart_anime import UnetGenerator
    from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large
    from controlnet_aux.mlsd.utils import pred_lines
    from controlnet_aux.normalbae.nets.NNET import NNET
    from controlnet_aux.pidi.model import pidinet
    from controlnet_aux.teed.ted import TED

SIDE = 128  # px; a multiple of 64, which the detectors of the package preserve
LOUD = 3.0  # factor on random weights, so that the output varies
OFFLINE = Runtime(offline=True)
NORM = partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
BAE = SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)


NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "hed": ControlNetHED_Apache2,
    "pidi": pidinet,
    "teed": TED,
    "realistic": lambda: Generator(3, 1, 3),
    "coarse": lambda: Generator(3, 1, 3),
    "anime": lambda: UnetGenerator(3, 1, 8, 64, norm_layer=NORM),
    "mlsd": MobileV2_MLSD_Large,
    "bae": lambda: NNET(BAE),
}
WRAPPED = {"pidi": "state_dict", "bae": "model"}  # the entry of the file with the weights
CONTROL_OF = {"realistic": "lineart", "coarse": "lineart", "anime": "lineart", "mlsd": "mlsd", "bae": "normal"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that saves a random checkpoint of a network as published, and returns its folder."""
    folders: dict[str, str] = {}

    def make(name: str) -> str:
        if name not in folders:
            torch.manual_seed(0)
            with suppress_output():
                network = NETWORKS[name]()
            if name in ("hed", "pidi"):
                for weight in network.parameters():
                    weight.data.mul_(LOUD if weight.ndim == 4 and weight.shape[-1] == 1 else 1)
            weights = {key: value.half() for key, value in network.state_dict().items()}
            if name == "pidi":
                weights = {f"module.{key}": value for key, value in weights.items()}  # saved from DataParallel
            path = tmp_path_factory.mktemp(name) / CHECKPOINTS[name].file
            torch.save({WRAPPED[name]: weights} if name in WRAPPED else weights, path)
            folders[name] = str(path.parent)
        return folders[name]

    return make


def guide(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Return smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def published(name: str, folder: str, image: Image.Image) -> np.ndarray:
    """Return the result of the package's detector for an image whose size it preserves."""
    file, side = CHECKPOINTS[name].file, min(image.size)
    options: dict[str, Any] = {"detect_resolution": side, "output_type": "np"}
    if name != "teed":
        options["image_resolution"] = side
    with suppress_output():
        if name in ("realistic", "coarse"):
            detector = LineartDetector.from_pretrained(folder, filename=file, coarse_filename=file)
        else:
            kinds = {
                "hed": HEDdetector,
                "pidi": PidiNetDetector,
                "teed": TEEDdetector,
                "anime": LineartAnimeDetector,
                "bae": NormalBaeDetector,
            }
            detector = kinds[name].from_pretrained(folder, filename=file)
        options |= {"safe_steps": 0} if name == "teed" else {}
        result: np.ndarray = detector(np.asarray(image), **options)
    return result


def pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels (H, W, 3) of an image."""
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["hed", "pidi", "teed", "realistic", "anime"])
def test_networks_equal_the_detectors_of_the_package(name: str, folder: Callable[[str], str]) -> None:
    image = guide(256, 256) if name == "anime" else guide()
    control_map = preprocess.load(CONTROL_OF.get(name, "softedge"), folder(name), offline=True)(image)
    expected = published(name, folder(name), image).astype(int)
    assert expected.std() > 1
    assert np.abs(pixels(control_map) - expected).max() <= 1


def test_normals_equal_those_of_the_package(folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.estimators.annotators.SHORTER_SIDE", 64)
    detect = preprocess.load("normal", folder("bae"), offline=True)
    expected = published("bae", folder("bae"), guide(64, 64)).astype(int)
    assert expected.std() > 1
    assert np.abs(pixels(detect(guide(64, 64))) - expected).max() <= 1
    assert detect(guide(201, 70)).size == (201, 70)


def test_straight_lines_equal_those_of_the_package(folder: Callable[[str], str]) -> None:
    with suppress_output():
        network = MLSDdetector.from_pretrained(folder("mlsd")).model
        expected = pred_lines(np.asarray(guide()), network, [SIDE, SIDE], score_thr=0.1, dist_thr=0)
    lines = straight_lines(Source(runtime=OFFLINE, hint="", folder=folder("mlsd")))(np.asarray(guide()))
    assert len(lines) == round(200 * SIDE**2 / 512**2)
    assert np.allclose(lines, expected[: len(lines)], atol=1e-3)


def test_wide_images_have_more_straight_lines(folder: Callable[[str], str]) -> None:
    estimate = straight_lines(Source(runtime=OFFLINE, hint="", folder=folder("mlsd")))
    assert len(estimate(np.asarray(guide(4 * SIDE, SIDE)))) == round(200 * 4 * SIDE**2 / 512**2)


def test_a_known_line_is_decoded() -> None:
    middles, ends = torch.zeros(9, 20), torch.zeros(4, 9, 20)
    middles[4, 11], middles[4, 12], middles[7, 2] = (
        0.9,
        0.8,
        0.05,
    )  # a peak, its neighbour, and a peak below the threshold
    ends[:, 4, 11] = torch.tensor([-5.0, 1.0, 6.0, -2.0])
    assert decode_lines(middles, ends, count=50).tolist() == [[6.0, 5.0, 17.0, 2.0]]


@pytest.mark.parametrize("name", ["hed", "pidi", "teed", "coarse", "anime", "mlsd"])
def test_maps_have_the_size_of_a_wide_guide(name: str, folder: Callable[[str], str]) -> None:
    control_map = preprocess.load(CONTROL_OF.get(name, "softedge"), folder(name), offline=True)(guide(307, 51))
    assert control_map.size == (307, 51) and control_map.mode == "RGB"


def test_wide_guides_are_not_scaled_down(folder: Callable[[str], str]) -> None:
    estimate = edges("hed", Source(runtime=OFFLINE, hint="", folder=folder("hed")))
    square = np.asarray(guide(SIDE // 2, SIDE // 2))
    wide = estimate(np.concatenate([square, square[:, ::-1]] * 2, axis=1))
    assert np.abs(wide[:, : SIDE // 8] - estimate(square)[:, : SIDE // 8]).max() < 1e-2


def test_safe_edges_have_three_levels_and_scribbles_two(folder: Callable[[str], str]) -> None:
    soft = preprocess.load("softedge", folder("hed"), offline=True, safe=True)(guide())
    assert set(np.unique(soft)) == {0, 127, 255}
    assert set(np.unique(preprocess.load("scribble", folder("hed"), offline=True)(guide()))) == {0, 255}


@pytest.mark.parametrize("control", ["softedge", "scribble", "lineart", "mlsd"])
def test_a_folder_without_weights_is_an_error(control: str, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"is no folder with \w+\.pth") as error:
        preprocess.load(control, str(tmp_path), offline=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_an_invalid_weights_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "5_model.pth").write_bytes(content)
    with pytest.raises(
        DetectorError, match=r"5_model.pth' does not hold the weights of 'teed' \(it is no file of weights\).*'sobel'"
    ) as error:
        preprocess.load("softedge", str(tmp_path), offline=True)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_an_error(folder: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS["hed"].file).symlink_to(Path(folder("teed")) / CHECKPOINTS["teed"].file)
    with pytest.raises(DetectorError, match="does not hold the weights of 'hed'"):
        preprocess.load("scribble", str(tmp_path), offline=True)
