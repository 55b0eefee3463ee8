"""Where networks run: offloading is diffusers' own, and only for a card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from synccontrol import Montage
from synccontrol.errors import ConfigError, ModelError
from synccontrol.models import devices
from tests.conftest import PipeFactory
from tests.families import checkpoints_flow


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Z-Image, whose ControlNets share parts with its transformer."""
    folder = tmp_path_factory.mktemp("z_image")
    checkpoints_flow.write_z_image(folder)
    return folder


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_on_the_cpu_is_rejected(checkpoint: Path, offload: str) -> None:
    with pytest.raises(ConfigError, match=f"offload {offload} frees a card, and the device is cpu"):
        Montage.from_pretrained(str(checkpoint), offload=offload, offline=True)
    with pytest.raises(ConfigError, match="unknown offload 'all'; known: none, model, sequential"):
        Montage.from_pretrained(str(checkpoint), offload="all", offline=True)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("cuda:0,cpu", "devices cuda:0,cpu are of several kinds"),
        ("cuda:1,cuda:1", "devices cuda:1,cuda:1 name one twice"),
        ("cuda,cuda:0", "devices cuda,cuda:0 name one twice"),
        ("cuda:0,cuda:2", "device 'cuda:2' is not there"),
        ("cuda:0,", "unknown device ''"),
        ("cuda:0,tpu", "unknown device 'tpu'"),
    ],
)
def test_invalid_device_lists_are_rejected(monkeypatch: pytest.MonkeyPatch, named: str, said: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises((ConfigError, ModelError), match=said):
        devices.parse_devices(named)


def test_valid_device_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.parse_devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    assert devices.parse_devices("cpu,cpu") == ["cpu", "cpu"]
    with pytest.raises(ConfigError, match="offload model frees one card, and the devices are cuda:0,cuda:1"):
        devices.parse_devices("cuda:0,cuda:1", "model")


@pytest.mark.parametrize("offload", devices.OFFLOADS)
def test_offloading_uses_the_methods_of_diffusers(
    make_pipe: PipeFactory, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    """No card is needed to see which of its methods is called, with which device."""
    called = []
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(
            StableDiffusionPipeline, name, lambda self, device, name=name: called.append((name, device))
        )
    pipe = make_pipe(0, torch.float32)
    assert devices.place_pipeline(pipe, "cpu" if offload == "none" else "cuda:1", offload) is pipe
    assert (
        called
        == {
            "none": [],
            "model": [("enable_model_cpu_offload", "cuda:1")],
            "sequential": [("enable_sequential_cpu_offload", "cuda:1")],
        }[offload]
    )


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_networks_that_share_parts_are_not_offloaded(z_image: Path, offload: str) -> None:
    pipe = Montage.from_pretrained(str(z_image), ["depth"], offline=True).denoiser.pipe
    with pytest.raises(ConfigError, match=f"offload {offload} is not for a ControlNet that shares parts"):
        devices.place_pipeline(pipe, "cuda", offload)
