"""What diffusers offers to save memory or time, by its own names, on a pipeline that is then given to a montage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ModelError
from tests.conftest import CELL, WINDOW, PipeFactory
from tests.families import tiny_sdxl
from tests.families.test_sdxl import assert_different, assert_same

SIZE, CPU = WINDOW * CELL, torch.device("cpu")
OFFLOADED = {"onload_device": CPU, "offload_device": CPU}


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("memory"))


@pytest.fixture(params=["sd", "sdxl", "z_image", "qwen_image"])
def load(request: pytest.FixtureRequest, sdxl: Path, make_pipe: PipeFactory) -> Callable[[], Any]:
    """Return a function that loads a tiny pipeline with a ControlNet."""
    if request.param == "sd":
        return lambda: make_pipe(1, torch.float32)
    if request.param == "sdxl":
        return lambda: tiny_sdxl.load(sdxl)
    folder = request.getfixturevalue(request.param)
    return lambda: Montage.from_pretrained(str(folder), ["depth"], offline=True).denoiser.pipe


def networks(pipe: Any) -> list[nn.Module]:
    """Return the denoiser and its ControlNet."""
    return [pipe.components.get("unet") or pipe.components["transformer"], pipe.controlnet]


def distance(images: Tensor, anchor: Tensor) -> Tensor:
    return ((images - anchor) ** 2).mean(dim=(1, 2, 3))


def draw(pipe: Any, control_map: Image.Image, gradient: str = "full", weight: float = 1.0) -> Tensor:
    """Return the latents of three synced windows."""
    if hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = WINDOW  # of Qwen-Image, whose configuration does not say it
    return Montage.from_pipe(pipe)(
        "a hill",
        control_map,
        sampling=SamplingConfig(steps=2, guidance_scale=4.0).complete(),
        windows=WindowConfig(stride=WINDOW // 2, batch=2).complete(),
        sync=SyncConfig(weight=weight, steps=1, objective=distance, gradient=gradient).complete(),
    ).latents


@pytest.fixture
def control_map(make_map: Callable[..., Image.Image]) -> Image.Image:
    return make_map(2 * SIZE, SIZE)


def test_group_offloading(load: Callable[[], Any], control_map: Image.Image) -> None:
    expected, pipe = draw(load(), control_map), load()
    for network in networks(pipe):
        network.enable_group_offload(**OFFLOADED, offload_type="leaf_level")
    assert_same(draw(pipe, control_map), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's, with gradients
def test_compiled_blocks(load: Callable[[], Any], control_map: Image.Image) -> None:
    torch._dynamo.reset()
    expected, pipe = draw(load(), control_map), load()
    if type(pipe).__name__.startswith("ZImage"):
        pytest.skip("it compiles anew for every length of a caption and every batch, more often than allowed")
    networks(pipe)[0].compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    assert_same(draw(pipe, control_map), expected)


def test_layerwise_casting(load: Callable[[], Any], control_map: Image.Image) -> None:
    exact, pipe = draw(load(), control_map, "x0"), load()
    cast, rounded = {}, load()
    shared = 1 if "transformer" in pipe.components else 2  # parts of Z-Image's ControlNet are its transformer's
    for network, other in zip(networks(pipe)[:shared], networks(rounded)[:shared], strict=True):
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        for name, weight in network.named_parameters():
            if weight.dtype == torch.float8_e4m3fn:
                cast[name] = True
                other.get_parameter(name).data = weight.data.to(torch.float32)
    assert cast
    found = draw(pipe, control_map, "x0")
    assert_same(found, draw(rounded, control_map, "x0"))  # what comes of weights that are rounded to 8 bits
    assert_different(found, exact)
    with pytest.raises(ModelError, match="no gradient flows back through them; use gradient x0"):
        draw(pipe, control_map, "full")


def test_the_decoder_may_compute_again_what_its_gradient_needs(
    load: Callable[[], Any], control_map: Image.Image
) -> None:
    expected, pipe = draw(load(), control_map), load()
    if not pipe.vae._supports_gradient_checkpointing:
        pytest.skip("this autoencoder has no checkpointing")
    pipe.vae.enable_gradient_checkpointing()
    assert_same(draw(pipe, control_map), expected)
