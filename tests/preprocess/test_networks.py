"""The networks of controlnet_aux, from checkpoints of their own kinds with random weights, beside its own detectors."""

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
from preprocess.estimators.line_networks import decoded, edges, straight_lines
from preprocess.hub import muted

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

SIDE = 128  # px, a multiple of 64, so that the package's own detectors keep it
LOUD = 3.0  # factor on random weights that would say grey everywhere
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
WRAPPED = {"pidi": "state_dict", "bae": "model"}  # the entry of the file that holds the weights
CONTROL_OF = {"realistic": "lineart", "coarse": "lineart", "anime": "lineart", "mlsd": "mlsd", "bae": "normal"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Returns a function from a network's name to a folder with a random checkpoint of it, as it is published."""
    made: dict[str, str] = {}

    def make(name: str) -> str:
        if name not in made:
            torch.manual_seed(0)
            with muted():
                network = NETWORKS[name]()
            if name in ("hed", "pidi"):
                for weight in network.parameters():
                    weight.data.mul_(LOUD if weight.ndim == 4 and weight.shape[-1] == 1 else 1)
            weights = {key: value.half() for key, value in network.state_dict().items()}
            if name == "pidi":
                weights = {f"module.{key}": value for key, value in weights.items()}  # saved from DataParallel
            path = tmp_path_factory.mktemp(name) / CHECKPOINTS[name].file
            torch.save({WRAPPED[name]: weights} if name in WRAPPED else weights, path)
            made[name] = str(path.parent)
        return made[name]

    return make


def guide(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Returns smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def published(name: str, folder: str, picture: Image.Image) -> np.ndarray:
    """Returns what the package's own detector makes of a picture with sides it keeps."""
    file, side = CHECKPOINTS[name].file, min(picture.size)
    options: dict[str, Any] = {"detect_resolution": side, "output_type": "np"}
    if name != "teed":
        options["image_resolution"] = side
    with muted():
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
        found: np.ndarray = detector(np.asarray(picture), **options)
    return found


def pixels(image: Image.Image) -> np.ndarray:
    """Returns a picture's numbers (H, W, 3)."""
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["hed", "pidi", "teed", "realistic", "anime"])
def test_network_says_what_the_packages_own_detector_says(name: str, folder: Callable[[str], str]) -> None:
    picture = guide(256, 256) if name == "anime" else guide()
    found = preprocess.load(CONTROL_OF.get(name, "softedge"), folder(name), offline=True)(picture)
    expected = published(name, folder(name), picture).astype(int)
    assert expected.std() > 1
    assert np.abs(pixels(found) - expected).max() <= 1


def test_normals_are_those_of_the_packages_own_detector(
    folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.estimators.annotators.SHORTER_SIDE", 64)
    detect = preprocess.load("normal", folder("bae"), offline=True)
    expected = published("bae", folder("bae"), guide(64, 64)).astype(int)
    assert expected.std() > 1
    assert np.abs(pixels(detect(guide(64, 64))) - expected).max() <= 1
    assert detect(guide(201, 70)).size == (201, 70)


def test_straight_lines_are_those_of_the_package(folder: Callable[[str], str]) -> None:
    with muted():
        network = MLSDdetector.from_pretrained(folder("mlsd")).model
        expected = pred_lines(np.asarray(guide()), network, [SIDE, SIDE], score_thr=0.1, dist_thr=0)
    found = straight_lines(Source(runtime=OFFLINE, hint="", folder=folder("mlsd")))(np.asarray(guide()))
    assert len(found) == round(200 * SIDE**2 / 512**2)
    assert np.allclose(found, expected[: len(found)], atol=1e-3)


def test_a_wide_picture_gets_more_straight_lines(folder: Callable[[str], str]) -> None:
    estimate = straight_lines(Source(runtime=OFFLINE, hint="", folder=folder("mlsd")))
    assert len(estimate(np.asarray(guide(4 * SIDE, SIDE)))) == round(200 * 4 * SIDE**2 / 512**2)


def test_planted_line_is_decoded() -> None:
    middles, ends = torch.zeros(9, 20), torch.zeros(4, 9, 20)
    middles[4, 11], middles[4, 12], middles[7, 2] = 0.9, 0.8, 0.05  # a peak, its flank, and too faint a peak
    ends[:, 4, 11] = torch.tensor([-5.0, 1.0, 6.0, -2.0])
    assert decoded(middles, ends, count=50).tolist() == [[6.0, 5.0, 17.0, 2.0]]


@pytest.mark.parametrize("name", ["hed", "pidi", "teed", "coarse", "anime", "mlsd"])
def test_map_of_a_wide_guide_has_exactly_its_size(name: str, folder: Callable[[str], str]) -> None:
    found = preprocess.load(CONTROL_OF.get(name, "softedge"), folder(name), offline=True)(guide(307, 51))
    assert found.size == (307, 51) and found.mode == "RGB"


def test_edges_of_a_wide_guide_are_seen_at_its_own_scale(folder: Callable[[str], str]) -> None:
    estimate = edges("hed", Source(runtime=OFFLINE, hint="", folder=folder("hed")))
    square = np.asarray(guide(SIDE // 2, SIDE // 2))
    wide = estimate(np.concatenate([square, square[:, ::-1]] * 2, axis=1))
    assert np.abs(wide[:, : SIDE // 8] - estimate(square)[:, : SIDE // 8]).max() < 1e-2


def test_safe_edges_have_three_greys_and_scribbles_two(folder: Callable[[str], str]) -> None:
    soft = preprocess.load("softedge", folder("hed"), offline=True, safe=True)(guide())
    assert set(np.unique(soft)) == {0, 127, 255}
    assert set(np.unique(preprocess.load("scribble", folder("hed"), offline=True)(guide()))) == {0, 255}


@pytest.mark.parametrize("control", ["softedge", "scribble", "lineart", "mlsd"])
def test_folder_without_weights_says_which_file_is_missing(control: str, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"is no folder with \w+\.pth") as error:
        preprocess.load(control, str(tmp_path), offline=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_file_that_holds_no_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "5_model.pth").write_bytes(content)
    with pytest.raises(
        DetectorError, match=r"5_model.pth' does not hold the weights of 'teed' \(it is no file of weights\).*'sobel'"
    ) as error:
        preprocess.load("softedge", str(tmp_path), offline=True)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(folder: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS["hed"].file).symlink_to(Path(folder("teed")) / CHECKPOINTS["teed"].file)
    with pytest.raises(DetectorError, match="does not hold the weights of 'hed'"):
        preprocess.load("scribble", str(tmp_path), offline=True)
