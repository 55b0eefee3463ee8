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
from synccontrol.families.base import WindowCondition
from synccontrol.models import loader
from synccontrol.sampling.noise_level import NoiseLevel
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
    """Return the stock pipeline's final latents."""
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
    """Return the final latents of a canvas of one window."""
    return Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        height=SIZE,
        width=SIZE,
        negative_prompt=NEGATIVE,
        latents=noise,
        sampling=SamplingConfig(steps=STEPS, scheduler=scheduler, **options).complete(),
        windows=WindowConfig(stride=WINDOW // 2).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    ).latents


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Raise unless two latents agree to the tolerance."""
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


def test_the_image_is_the_stock_image(make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker) -> None:
    control_map, noise = make_map(SIZE, SIZE), make_noise(WINDOW, WINDOW, dtype=torch.float32)
    theirs = make_pipe(1, torch.float32)(PROMPT, image=control_map, num_inference_steps=STEPS, latents=noise).images[0]
    ours = Montage.from_pipe(make_pipe(1, torch.float32))(
        PROMPT,
        control_map,
        height=SIZE,
        width=SIZE,
        latents=noise,
        sampling=SamplingConfig(steps=STEPS).complete(),
        windows=WindowConfig(stride=WINDOW // 2).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    ).image
    assert ours.size == theirs.size
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def test_guidance_that_ends_early_is_the_stock_pipeline_whose_guidance_is_turned_off(
    make_pipe: PipeFactory, make_noise: NoiseMaker
) -> None:
    """As the documentation of diffusers turns it off: by a callback after half of the steps."""
    noise = make_noise(WINDOW, WINDOW)

    def turn_off(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == STEPS // 2 - 1:
            pipe._guidance_scale = 0.0
            values["prompt_embeds"] = values["prompt_embeds"].chunk(2)[-1]
        return values

    options = {"callback_on_step_end": turn_off, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    theirs = stock(make_pipe(0), "dpmpp_2m", noise, **options)
    ours = montage(make_pipe(0), "dpmpp_2m", noise, None, guidance_end=0.5)
    assert_same(ours, theirs)
    assert (ours - montage(make_pipe(0), "dpmpp_2m", noise, None)).abs().max() > 10 * TOLERANCE * theirs.std()


@pytest.mark.parametrize("family", ["sd", "z_image"])
def test_outside_of_its_interval_a_prediction_is_unguided(
    request: pytest.FixtureRequest, make_pipe: PipeFactory, family: str
) -> None:
    pipe = make_pipe(0) if family == "sd" else loader.load(str(request.getfixturevalue("z_image")), [], offline=True)
    denoiser = Montage.from_pipe(pipe).denoiser
    geometry = denoiser.geometry
    z = torch.randn(1, geometry.channels, *geometry.window, generator=torch.Generator().manual_seed(0))
    views = [WindowCondition(window=0, prompt=PROMPT, negative_prompt=NEGATIVE)]

    def predicted(index: int, **options: float) -> Tensor:
        level = NoiseLevel(index=index, signal=0.7, noise=0.7, t=500.0)
        with denoiser.session(), torch.no_grad():
            return denoiser.condition(views, [], SamplingConfig(**options).complete(), 4, print)(z, level, [0])

    for index, guided in enumerate((False, True, True, False)):
        found = predicted(index, guidance_scale=5.0, guidance_start=0.25, guidance_end=0.75)
        assert torch.equal(found, predicted(index, guidance_scale=5.0 if guided else 1.0))
    assert not torch.equal(predicted(0, guidance_scale=5.0), predicted(0, guidance_scale=1.0))
