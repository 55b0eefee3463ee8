"""One window without sync is the stock diffusers pipeline, under every deterministic scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from tests.conftest import CELL, WINDOW, PipeFactory

PROMPT, NEGATIVE = "a red hill", "fog"
TOLERANCE = 1e-4  # of the latents' deviation
STEPS = 8
SIZE = WINDOW * CELL  # pixels
STOCK = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
MapMaker = Callable[..., Image.Image]
NoiseMaker = Callable[..., Tensor]


def stock(pipe: Any, scheduler: str, noise: Tensor, **options: Any) -> Tensor:
    """Returns the stock pipeline's final latents."""
    pipe.scheduler = getattr(diffusers, STOCK[scheduler]).from_config(pipe.scheduler.config)
    return pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        latents=noise,
        output_type="latent",
        **options,
    ).images


def montage(pipe: Any, scheduler: str, noise: Tensor, control_map: Any, **options: Any) -> Tensor:
    """Returns the final latents of a canvas of one window."""
    return Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        height=SIZE,
        width=SIZE,
        negative_prompt=NEGATIVE,
        latents=noise,
        sampling=SamplingConfig(steps=STEPS, scheduler=scheduler, **options),
        windows=WindowConfig(stride=WINDOW // 2),
        sync=SyncConfig(weight=0.0),
    ).latents


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Raises unless two latents agree to the tolerance."""
    assert theirs.isfinite().all()
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.std()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", STOCK)
def test_one_window_is_the_controlnet_pipeline(
    make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker, scheduler: str, prediction_type: str
) -> None:
    control_map, noise = make_map(SIZE, SIZE), make_noise(WINDOW, WINDOW)
    theirs = stock(make_pipe(prediction_type=prediction_type), scheduler, noise, image=control_map)
    ours = montage(make_pipe(prediction_type=prediction_type), scheduler, noise, control_map)
    assert_same(ours, theirs)


@pytest.mark.parametrize("scheduler", STOCK)
def test_one_window_is_the_text_pipeline(make_pipe: PipeFactory, make_noise: NoiseMaker, scheduler: str) -> None:
    noise = make_noise(WINDOW, WINDOW)
    assert_same(montage(make_pipe(0), scheduler, noise, None), stock(make_pipe(0), scheduler, noise))


@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_two_controlnets_with_their_own_scales(
    make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker, scheduler: str, guess_mode: bool
) -> None:
    maps, noise = [make_map(SIZE, SIZE, seed) for seed in (0, 1)], make_noise(WINDOW, WINDOW)
    scales = (1.0, 0.4)
    theirs = stock(
        make_pipe(2),
        scheduler,
        noise,
        image=maps,
        controlnet_conditioning_scale=list(scales),
        control_guidance_start=0.2,
        control_guidance_end=0.8,
        guess_mode=guess_mode,
    )
    options = {"control_scale": scales, "control_start": 0.2, "control_end": 0.8, "guess_mode": guess_mode}
    ours = montage(make_pipe(2), scheduler, noise, maps, **options)
    assert_same(ours, theirs)
    swapped = montage(make_pipe(2), scheduler, noise, maps[::-1], **options)
    assert (swapped - ours).abs().max() > 100 * TOLERANCE * ours.std()


def test_the_picture_is_the_stock_picture(make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker) -> None:
    control_map, noise = make_map(SIZE, SIZE), make_noise(WINDOW, WINDOW, dtype=torch.float32)
    theirs = make_pipe(1, torch.float32)(PROMPT, image=control_map, num_inference_steps=STEPS, latents=noise).images[0]
    ours = Montage.from_pipe(make_pipe(1, torch.float32))(
        PROMPT,
        control_map,
        height=SIZE,
        width=SIZE,
        latents=noise,
        sampling=SamplingConfig(steps=STEPS),
        windows=WindowConfig(stride=WINDOW // 2),
        sync=SyncConfig(weight=0.0),
    ).image
    assert ours.size == theirs.size
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1
