"""Where networks run: offloading is diffusers' own, and only for a card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from synccontrol import Montage
from synccontrol.errors import ConfigError
from synccontrol.models import devices
from tests.conftest import PipeFactory
from tests.families import checkpoints_flow


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a tiny Z-Image, whose ControlNets share parts with its transformer."""
    folder = tmp_path_factory.mktemp("z_image")
    checkpoints_flow.write_z_image(folder)
    return folder


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_on_the_cpu_there_is_nothing_to_free(checkpoint: Path, offload: str) -> None:
    with pytest.raises(ConfigError, match=f"offload {offload} frees a card, and the device is cpu"):
        Montage.from_pretrained(str(checkpoint), offload=offload, offline=True)
    with pytest.raises(ConfigError, match="unknown offload 'all'; known: none, model, sequential"):
        Montage.from_pretrained(str(checkpoint), offload="all", offline=True)


@pytest.mark.parametrize("offload", devices.OFFLOADS)
def test_a_pipeline_is_settled_as_diffusers_does_it(
    make_pipe: PipeFactory, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    """No card is needed to see which of its methods is called, with which device."""
    called = []
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(
            StableDiffusionPipeline, name, lambda self, device, name=name: called.append((name, device))
        )
    pipe = make_pipe(0, torch.float32)
    assert devices.settle(pipe, "cpu" if offload == "none" else "cuda:1", offload) is pipe
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
        devices.settle(pipe, "cuda", offload)
