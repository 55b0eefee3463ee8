"""Models are found by preset, folder or id; what is not to be had says what would work."""

from pathlib import Path

import pytest
import torch

from synccontrol import Montage
from synccontrol.errors import ConfigError, ModelError
from synccontrol.models import presets


def test_the_bundled_model_is_what_its_preset_says() -> None:
    preset = presets.PRESETS["tiny"]
    montage = Montage.from_pretrained("tiny", controls=["depth", "canny", "pose"], offline=True)
    assert montage.denoiser.geometry == preset.geometry
    assert montage.denoiser.controls == 3
    assert montage.defaults == preset.defaults
    files = [path for path in presets.BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert max(path.stat().st_size for path in files) <= 20e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]


def test_a_folder_brings_its_own_controlnets(checkpoint: Path) -> None:
    montage = Montage.from_pretrained(str(checkpoint), controls=["canny"], dtype=torch.float64, offline=True)
    assert montage.denoiser.controls == 1
    assert montage.denoiser.dtype == torch.float64
    assert montage.defaults.windows.stride == 4  # half of its window of 8 cells
    elsewhere = [str(checkpoint / "controlnet-depth")]
    assert (
        Montage.from_pretrained(str(checkpoint), ["mood"], controlnets=elsewhere, offline=True).denoiser.controls == 1
    )


@pytest.mark.parametrize(
    ("model", "controls", "error", "message"),
    [
        ("gpt", [], ModelError, "no preset \\(tiny, sd15, sd21\\)"),
        ("tiny", ["smell"], ModelError, "it has canny, depth, pose"),
        ("nobody/nothing", [], ModelError, "without network use --model tiny"),
        (".", [], ModelError, "no model_index.json"),
    ],
)
def test_what_is_not_to_be_had_says_what_would_work(
    model: str, controls: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Montage.from_pretrained(model, controls, offline=True)
    assert "\n" not in str(caught.value)


def test_one_controlnet_for_each_control() -> None:
    with pytest.raises(ConfigError, match="1 ControlNets are named for 2 controls"):
        Montage.from_pretrained("tiny", ["depth", "canny"], controlnets=["a/b"])


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "cpu:1", "cuda:x"])
def test_devices_are_checked(device: str) -> None:
    with pytest.raises(ModelError, match="device"):
        presets.check_device(device)
