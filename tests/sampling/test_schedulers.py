"""Every scheduler on a wide canvas: one step for the whole canvas, one history, one draw of noise, one sync weight."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from tests.conftest import CELL, CHANNELS, WINDOW, PipeFactory

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
TOLERANCE = 1e-5  # of the latents' deviation: Euler and DPM++ compute in float32 whatever they are given
WIDTH = 3 * WINDOW + 2  # cells
STRIDE = 3  # cells
STEPS = 7
SEED = 5
MEAN, DEVIATION = 0.7, 0.5  # of the data that the analytic network denoises


class GaussianUNet(UNet2DConditionModel):
    """The exact denoiser of independent Gaussian cells: it looks at one cell at a time, so windows cannot matter."""

    def forward(self, sample: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor]:
        """Return E[eps | x_t] of data N(MEAN, DEVIATION^2) in variance-preserving coordinates."""
        alpha = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
        a = alpha[torch.as_tensor(timestep).flatten()[0].long()].to(sample.dtype)
        gain = a.sqrt() * DEVIATION**2 / (a * DEVIATION**2 + 1 - a)
        x0 = MEAN + gain * (sample - a.sqrt() * MEAN)
        return ((sample - a.sqrt() * x0) / (1 - a).sqrt(),)


@pytest.fixture
def gaussian_pipe(make_pipe: PipeFactory) -> Any:
    """Return a text-only pipeline whose network is the analytic one."""
    pipe = make_pipe(0)
    pipe.unet = GaussianUNet.from_config(pipe.unet.config).to(torch.float64)
    return pipe


def plain_loop(pipe: Any, scheduler: str) -> Tensor:
    """Return what the scheduler makes of the whole canvas at once, by diffusers alone."""
    solver = getattr(diffusers, SCHEDULERS[scheduler]).from_config(pipe.scheduler.config)
    solver.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn((1, CHANNELS, WINDOW, WIDTH), generator=generator).to(torch.float64) * solver.init_noise_sigma
    noisy, dtype = ({"generator": generator}, torch.float32) if scheduler == "euler_a" else ({}, x.dtype)
    for t in solver.timesteps:
        (eps,) = pipe.unet(solver.scale_model_input(x, t), t)
        x = solver.step(eps.to(dtype), t, x.to(dtype), **noisy).prev_sample.to(torch.float64)
    return x


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_overlapping_windows_match_the_plain_scheduler_loop(gaussian_pipe: Any, scheduler: str) -> None:
    expected = plain_loop(gaussian_pipe, scheduler)
    result = Montage.from_pipe(gaussian_pipe)(
        "",
        None,
        height=WINDOW * CELL,
        width=WIDTH * CELL,
        seed=SEED,
        sampling=SamplingConfig(steps=STEPS, scheduler=scheduler).complete(),
        windows=WindowConfig(stride=STRIDE).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    )
    assert (result.latents - expected).abs().max() < TOLERANCE * expected.std()


def test_ancestral_noise_is_not_averaged_away(gaussian_pipe: Any) -> None:
    montage = Montage.from_pipe(gaussian_pipe)
    drawn = [
        montage(
            "",
            None,
            height=WINDOW * CELL,
            width=6 * WINDOW * CELL,
            seed=seed,
            sampling=SamplingConfig(steps=STEPS, scheduler="euler_a").complete(),
            windows=WindowConfig(stride=STRIDE).complete(),
            sync=SyncConfig(weight=0.0).complete(),
        ).latents
        for seed in range(4)
    ]
    canvas = torch.cat(drawn)
    covered_once = torch.cat([canvas[..., :STRIDE], canvas[..., -STRIDE:]], dim=-1)
    covered_often = canvas[..., WINDOW:-WINDOW]
    assert float(covered_often.std()) == pytest.approx(float(covered_once.std()), rel=0.1)


def synced(pipe: Any, scheduler: str, noise: Tensor, spacing: str, steps: int, weight: float) -> Tensor:
    """Return the final latents of a montage of a random network, synchronised in its first step or two."""
    # Ending at sigma 0, as all other solvers do, and at the same timesteps.
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, set_alpha_to_one=True, timestep_spacing=spacing)
    return Montage.from_pipe(pipe)(
        "a red hill",
        None,
        height=WINDOW * CELL,
        width=WIDTH * CELL,
        latents=noise,
        sampling=SamplingConfig(steps=steps, scheduler=scheduler).complete(),
        windows=WindowConfig(stride=STRIDE).complete(),
        sync=SyncConfig(
            weight=weight, steps=2, objective=lambda images, anchor: (images - anchor).square().mean((1, 2, 3))
        ).complete(),
    ).latents


@pytest.mark.parametrize(
    ("scheduler", "spacing", "steps"),
    [("euler", "leading", STEPS), ("dpmpp_2m", "trailing", 2), ("unipc", "trailing", 1)],
)
def test_a_sync_weight_means_the_same_under_every_scheduler(
    make_pipe: PipeFactory, make_noise: Callable[..., Tensor], scheduler: str, spacing: str, steps: int
) -> None:
    """Euler at any number of steps, and the others while they are first order, are DDIM in other coordinates."""
    noise, weight = make_noise(WINDOW, WIDTH), 3000.0
    expected = synced(make_pipe(0), "ddim", noise, spacing, steps, weight)
    unsynced = synced(make_pipe(0), "ddim", noise, spacing, steps, 0.0)
    assert (expected - unsynced).abs().max() > 0.05 * expected.std()
    ours = synced(make_pipe(0), scheduler, noise, spacing, steps, weight)
    assert (ours - expected).abs().max() < 100 * TOLERANCE * expected.std()


def brightness(images: Tensor, anchor: Tensor) -> Tensor:
    """Return how bright images are, one per window: sync darkens them."""
    return images.mean((1, 2, 3))


@pytest.fixture(scope="module")
def darkened() -> Callable[[str], float]:
    """Return by how much nudges in every step darken an image of the bundled model under a scheduler."""
    montage = Montage.from_pretrained("tiny")
    anchor = Image.new("RGB", (256, 256))

    @cache
    def draw(scheduler: str) -> float:
        means = []
        for weight in (0.0, 4.0):
            sync = SyncConfig(
                objective=brightness, anchor=anchor, weight=weight, steps=8, decay=1.0, gradient="x0", step_size="rms"
            ).complete()
            result = montage(
                "the sea by day",
                height=256,
                width=320,
                sampling=SamplingConfig(steps=8, guidance_scale=1.0, scheduler=scheduler).complete(),
                windows=WindowConfig(stride=8, weights="ramp").complete(),
                sync=sync,
            )
            means.append(np.asarray(result.image).mean())
        return float(means[0] - means[1])

    return draw


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "unipc"])
def test_sync_moves_reach_the_image_under_every_scheduler(darkened: Callable[[str], float], scheduler: str) -> None:
    assert darkened("ddim") > 2  # of 255
    assert darkened(scheduler) == pytest.approx(darkened("ddim"), rel=0.2)
