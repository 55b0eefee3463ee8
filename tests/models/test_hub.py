"""Models are found by preset, folder or id; what is not to be had says what would work."""

from pathlib import Path

import pytest
import torch

from synccontrol import Montage
from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints
from synccontrol.models import devices, loader
from synccontrol.spec.settings import Geometry


def test_a_folder_brings_its_own_controlnets(checkpoint: Path) -> None:
    montage = Montage.from_pretrained(str(checkpoint), controls=["canny"], dtype=torch.float64, offline=True)
    assert montage.denoiser.controls == 1
    assert montage.denoiser.dtype == torch.float64
    assert montage.defaults.windows.stride == 5  # five eighths of its window of 8 cells
    elsewhere = [str(checkpoint / "controlnet-depth")]
    assert (
        Montage.from_pretrained(str(checkpoint), ["mood"], controlnets=elsewhere, offline=True).denoiser.controls == 1
    )


@pytest.mark.parametrize(
    ("model", "controls", "error", "message"),
    [
        ("gpt", [], ModelError, "no preset \\(tiny, sd15, sd21, sd21-768, sdxl, z-image, "),
        ("tiny", ["smell"], ModelError, "it has canny, depth, pose"),
        ("nobody/nothing", [], ModelError, "without network use model tiny"),
        (".", [], ModelError, "no model_index.json"),
    ],
)
def test_loading_errors_name_a_remedy(model: str, controls: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Montage.from_pretrained(model, controls, offline=True)
    assert "\n" not in str(caught.value)


def test_one_controlnet_for_each_control(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="1 ControlNets are named for 2 controls"):
        Montage.from_pretrained("tiny", ["depth", "canny"], controlnets=[str(checkpoint / "controlnet-depth")])
    with pytest.raises(ConfigError, match="2 ControlNets are named for 1 controls"):
        Montage.from_pretrained("tiny", ["depth"], controlnets=["a/b", "a/c"])


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "cpu:1", "cuda:x"])
def test_devices_are_checked(device: str) -> None:
    with pytest.raises(ModelError, match="device"):
        devices.check_device(device)


def test_sizes_and_settings_need_no_weights(checkpoint: Path) -> None:
    assert loader.geometry(str(checkpoint), offline=True) == Geometry(window=(8, 8), cell=8, channels=4)
    assert loader.defaults(str(checkpoint), offline=True).windows.stride == 5
    assert loader.defaults("tiny").sampling.steps == 12
    assert loader.defaults("tiny", "paper").sampling.steps == 50
    with pytest.raises(ConfigError, match="unknown preset 'slow'; known: paper, default, fast, best"):
        loader.defaults("tiny", "slow")


def test_unsupported_pipeline_classes_are_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="no model family serves FluxPipeline"):
        loader.load(str(tmp_path), [], offline=True)


def test_errors_of_the_hub_are_errors_of_models() -> None:
    def load(local: bool) -> str:
        raise OSError("no file named config.json")

    with pytest.raises(ModelError, match=r"'\.' cannot be used: no file named config\.json; read something else"):
        checkpoints.fetch(load, ["."], False, "read something else")


def test_loading_is_silent(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loader.load(str(checkpoint), ["depth"], offline=True)
    assert capfd.readouterr() == ("", "")
