"""One window that starts from an image is the stock image-to-image pipeline, for every family.

Stock pipelines draw the latents of the image, and then the noise, from one generator; here the autoencoder is made
sure of what it encodes, and our noise is what they draw second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Img2ImgConfig, Montage, SamplingConfig, SyncConfig
from synccontrol.families.qwen_image import unpack
from synccontrol.models import loader
from tests.conftest import CELL, CHANNELS, WINDOW, PipeFactory
from tests.families import checkpoints_flow, tiny_sdxl
from tests.families.test_stock_parity import STOCK

PROMPT, NEGATIVE = "a red hill", "fog"
STEPS, STRENGTH = 8, 0.5
TOLERANCE = 1e-4  # of the latents' deviation
OFF = SyncConfig(weight=0.0).complete()
MapMaker = Callable[..., Image.Image]


@dataclasses.dataclass(frozen=True)
class Case:
    """A family's tiny pipeline, the sizes of a window, and what stock pipelines are told in its words."""

    pipe: Any
    window: int  # cells
    cell: int  # px
    channels: int

    @property
    def size(self) -> int:
        return self.window * self.cell

    def noise(self) -> Tensor:
        """Return what a stock pipeline draws from generator 0 after the latents of the image."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.channels, self.window, self.window)
        return [torch.randn(shape, generator=generator) for _ in range(2)][1]


def sure(pipe: Any) -> Any:
    """Make the autoencoder's posterior as good as a point."""
    convolution = pipe.vae.quant_conv or pipe.vae.encoder.conv_out
    half = convolution.weight.shape[0] // 2
    convolution.weight.data[half:] = 0.0
    convolution.bias.data[half:] = -60.0
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ours(case: Case, init: Image.Image, control_map: Image.Image | None, scheduler: str, **sampling: Any) -> Tensor:
    options = {"steps": STEPS, "scheduler": scheduler, "guidance_scale": 4.0, **sampling}
    return Montage.from_pipe(case.pipe)(
        PROMPT,
        control_map,
        negative_prompt=NEGATIVE,
        init_image=init,
        latents=case.noise(),
        sampling=SamplingConfig(**options).complete(),
        sync=OFF,
        img2img=Img2ImgConfig(strength=STRENGTH),
    ).latents


def assert_same(found: Tensor, theirs: Tensor) -> None:
    assert theirs.isfinite().all()
    assert (found - theirs).abs().max() < TOLERANCE * theirs.std()


def told(**options: Any) -> dict[str, Any]:
    """Return the arguments of every stock pipeline."""
    return {
        "negative_prompt": NEGATIVE,
        "strength": STRENGTH,
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
        **options,
    }


@pytest.mark.parametrize("scheduler", STOCK)
@pytest.mark.parametrize("controls", [0, 1])
def test_stable_diffusion(make_pipe: PipeFactory, make_map: MapMaker, controls: int, scheduler: str) -> None:
    case = Case(sure(make_pipe(controls, torch.float32)), WINDOW, CELL, CHANNELS)
    init, guide = make_map(case.size, case.size, 1), make_map(case.size, case.size)
    kind = ["StableDiffusionImg2ImgPipeline", "StableDiffusionControlNetImg2ImgPipeline"][controls]
    pipe = getattr(diffusers, kind).from_pipe(sure(make_pipe(controls, torch.float32)))
    pipe.scheduler = getattr(diffusers, STOCK[scheduler]).from_config(pipe.scheduler.config)
    control = (
        {"control_image": guide, "control_guidance_end": 0.5, "controlnet_conditioning_scale": 1.0} if controls else {}
    )
    theirs = pipe(PROMPT, image=init, guidance_scale=4.0, **control, **told()).images
    assert_same(ours(case, init, guide if controls else None, scheduler, control_end=0.5 if controls else 1.0), theirs)


@pytest.mark.parametrize("controls", [0, 1])
def test_stable_diffusion_xl(tmp_path: Path, make_map: MapMaker, controls: int) -> None:
    folder = tiny_sdxl.save(tmp_path)
    case = Case(sure(tiny_sdxl.load(folder, controls)), WINDOW, CELL, CHANNELS)
    init, guide = make_map(case.size, case.size, 1), make_map(case.size, case.size)
    kind = ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLControlNetImg2ImgPipeline"][controls]
    pipe = getattr(diffusers, kind).from_pipe(sure(tiny_sdxl.load(folder, controls)))
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    control = {"control_image": guide, "controlnet_conditioning_scale": 1.0} if controls else {}
    theirs = pipe(PROMPT, image=init, guidance_scale=4.0, **control, **told()).images
    assert_same(ours(case, init, guide if controls else None, "euler"), theirs)


def test_z_image(z_image: Path, make_map: MapMaker) -> None:
    flow = checkpoints_flow

    def load() -> Any:
        return sure(loader.load(str(z_image), [], dtype=torch.float32, offline=True))

    case = Case(load(), flow.WINDOW, flow.CELL, flow.CHANNELS)
    init = make_map(case.size, case.size, 1)
    sigmas = np.linspace(1.0, 1 / STEPS, STEPS).tolist()
    pipe = diffusers.ZImageImg2ImgPipeline.from_pipe(load())
    size = {"height": case.size, "width": case.size, "sigmas": sigmas}
    theirs = pipe(PROMPT, image=init, guidance_scale=3.0, **size, **told()).images
    assert_same(ours(case, init, None, "model"), theirs)


def qwen(folder: Path) -> Any:
    """Return a tiny Qwen-Image; its native size is no setting, so it is told."""
    pipe = sure(loader.load(str(folder), [], dtype=torch.float32, offline=True))
    pipe.default_sample_size = checkpoints_flow.WINDOW
    return pipe


def test_qwen_image(qwen_image: Path, make_map: MapMaker) -> None:
    flow = checkpoints_flow
    case = Case(qwen(qwen_image), flow.WINDOW, flow.CELL, flow.CHANNELS)
    init = make_map(case.size, case.size, 1)
    pipe = diffusers.QwenImageImg2ImgPipeline.from_pipe(qwen(qwen_image))
    theirs = pipe(PROMPT, image=init, true_cfg_scale=4.0, height=case.size, width=case.size, **told()).images
    assert_same(ours(case, init, None, "model"), unpack(theirs, case.window, case.window))
