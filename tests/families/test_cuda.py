"""On a GPU as on the CPU: the same latents in float64, by every family, under every kind of sync and offloading.

Skipped where there is no GPU. That the CPU draws what is published is held by `tests/sampling/test_published.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.models import devices
from tests.conftest import CELL, WINDOW, PipeFactory
from tests.families import tiny_sdxl
from tests.sampling.published import Published, Settings, map_tensor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

# Of the latents' deviation, in float64. Embeddings of timesteps and rotations are in float32 always, and cards round
# sines and exponentials otherwise than processors do.
EXACT = {"sd": 1e-6, "sdxl": 1e-6, "z_image": 1e-4, "qwen_image": 1e-4}
SAME_CARD = 1e-8
HALF = 0.1  # likewise, float16 against float64, after a few steps
PROMPT, NEGATIVE = "a red hill", "fog"
HEIGHT, WIDTH, STRIDE = WINDOW * CELL, 5 * WINDOW * CELL // 2, WINDOW // 2
FAMILIES = ("sd", "sdxl", "z_image", "qwen_image")
MapMaker = Callable[..., Image.Image]


def compare(images: Tensor, anchor: Tensor) -> Tensor:
    return (images - anchor).square().mean((1, 2, 3))


SYNC: Mapping[str, SyncConfig] = {
    "full gradient": SyncConfig(weight=200.0, steps=2, objective=compare).complete(),
    "gradient at x0, once": SyncConfig(
        weight=20.0, steps=2, gradient="x0", step_size="rms", predict="once", objective=compare
    ).complete(),
    "statistics": SyncConfig(weight=0.0, adain=1.0, adain_steps=2, predict="once").complete(),
}
OFF = SyncConfig(weight=0.0).complete()


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def load(request: pytest.FixtureRequest, family: str, sdxl: Path, make_pipe: PipeFactory) -> Callable[[], Any]:
    """Return a function that loads a family's tiny pipeline with a ControlNet, in float64."""
    if family == "sd":
        return lambda: make_pipe(1)
    if family == "sdxl":
        return lambda: tiny_sdxl.load(sdxl, dtype=torch.float64)
    folder = str(request.getfixturevalue(family))
    return lambda: Montage.from_pretrained(folder, ["depth"], dtype=torch.float64, offline=True).denoiser.pipe


def draw(pipe: Any, control_map: Image.Image, sync: SyncConfig, scheduler: str = "model") -> Tensor:
    """Return the final latents, on the CPU in float64."""
    if hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = WINDOW  # of Qwen-Image, whose configuration does not say it
    result = Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        negative_prompt=NEGATIVE,
        seed=3,
        sampling=SamplingConfig(steps=4, guidance_scale=4.0, scheduler=scheduler).complete(),
        windows=WindowConfig(stride=STRIDE, batch=3).complete(),
        sync=sync,
    )
    return result.latents.double().cpu()


def apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two latents, as a fraction of their deviation."""
    return float((a - b).abs().max() / b.std())


@pytest.mark.parametrize("sync", SYNC.values(), ids=SYNC.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_gives_the_same_latents_as_the_cpu(
    load: Callable[[], Any], family: str, make_map: MapMaker, sync: SyncConfig
) -> None:
    guide, exact = make_map(WIDTH, HEIGHT), EXACT[family]
    expected = draw(load(), guide, sync)
    assert apart(draw(load().to("cuda"), guide, sync), expected) < exact
    assert apart(draw(load(), guide, OFF), expected) > 100 * exact


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "unipc", "euler_a"])
def test_every_scheduler_gives_the_same_latents_on_a_gpu(
    make_pipe: PipeFactory, make_map: MapMaker, scheduler: str
) -> None:
    guide, sync = make_map(WIDTH, HEIGHT), SYNC["full gradient"]
    expected = draw(make_pipe(1), guide, sync, scheduler)
    assert apart(draw(make_pipe(1).to("cuda"), guide, sync, scheduler), expected) < EXACT["sd"]


def test_a_gpu_matches_the_published_algorithm(
    make_pipe: PipeFactory, make_map: MapMaker, make_noise: Callable[..., Tensor]
) -> None:
    guide, pipe, noise = make_map(WIDTH, HEIGHT), make_pipe(1).to("cuda"), make_noise(WINDOW, WIDTH // CELL)
    result = Montage.from_pipe(pipe)(
        PROMPT,
        guide,
        negative_prompt=NEGATIVE,
        latents=noise,
        sampling=SamplingConfig(steps=4, scheduler="ddim").complete(),
        windows=WindowConfig(stride=STRIDE, batch=3).complete(),
        sync=SyncConfig(weight=2000.0, steps=2, objective=compare).complete(),
    )
    for part in (pipe.unet, pipe.controlnet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    settings = Settings(steps=4, stride=STRIDE, sync_weight=2000.0, sync_steps=2, clamp=False)
    published = Published(pipe, PROMPT, NEGATIVE, settings, compare)
    expected = published.run(noise.to("cuda"), map_tensor(guide, torch.float64).to("cuda"))
    assert apart(result.latents.cpu(), expected.cpu()) < SAME_CARD


@pytest.mark.parametrize("sync", SYNC.values(), ids=SYNC.keys())
def test_half_precision_is_near(make_pipe: PipeFactory, make_map: MapMaker, sync: SyncConfig) -> None:
    guide = make_map(WIDTH, HEIGHT)
    drawn = draw(make_pipe(1, torch.float16).to("cuda"), guide, sync)
    assert apart(drawn, draw(make_pipe(1), guide, sync)) < HALF


@pytest.mark.parametrize("how", [devices.MODEL, devices.SEQUENTIAL])
@pytest.mark.parametrize("sync", SYNC.values(), ids=SYNC.keys())
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "z_image"])  # it shares parts
def test_offloading_changes_nothing(
    load: Callable[[], Any], family: str, make_map: MapMaker, sync: SyncConfig, how: str
) -> None:
    guide = make_map(WIDTH, HEIGHT)
    offloaded = devices.place_pipeline(load(), "cuda", how)
    assert apart(draw(offloaded, guide, sync), draw(load(), guide, sync)) < EXACT[family]
