"""The same seed is the same image: whatever the window batch, and whatever else draws random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from tests.conftest import CELL, WINDOW, PipeFactory

WIDTH = (2 * WINDOW + 3) * CELL  # pixels
HEIGHT = WINDOW * CELL  # pixels
STRIDE = 3  # cells
TOLERANCE = 1e-3  # of the latents' deviation, in float32 with sync on
MapMaker = Callable[..., Image.Image]
NoiseMaker = Callable[..., Tensor]


def draw(make_pipe: PipeFactory, make_map: MapMaker, *, batch: int = 4, scheduler: str = "ddim", **options: Any) -> Any:
    """Return a float32 montage of several windows, drawn with sync on."""
    return Montage.from_pipe(make_pipe(1, torch.float32))(
        "a red hill",
        make_map(WIDTH, HEIGHT),
        height=HEIGHT,
        width=WIDTH,
        sampling=SamplingConfig(steps=4, scheduler=scheduler).complete(),
        windows=WindowConfig(stride=STRIDE, batch=batch).complete(),
        sync=SyncConfig(
            weight=200.0, steps=2, objective=lambda images, anchor: (images - anchor).square().mean((1, 2, 3))
        ).complete(),
        **options,
    )


def apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two latents, as a fraction of their deviation."""
    return float((a - b).abs().max() / b.std())


@pytest.mark.parametrize("scheduler", ["ddim", "euler_a"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_window_batch_does_not_change_the_image(
    make_pipe: PipeFactory, make_map: MapMaker, scheduler: str, batch: int
) -> None:
    reference = draw(make_pipe, make_map, batch=4, scheduler=scheduler, seed=7)
    other = draw(make_pipe, make_map, batch=batch, scheduler=scheduler, seed=7)
    assert apart(other.latents, reference.latents) < TOLERANCE
    assert other.seed == 7


def test_another_seed_gives_another_image(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    first, second = (draw(make_pipe, make_map, seed=seed) for seed in (0, 1))
    assert apart(first.latents, second.latents) > 1
    assert first.image.tobytes() != second.image.tobytes()


@pytest.mark.parametrize("scheduler", ["ddim", "euler_a"])
def test_all_noise_comes_from_the_seeded_generator(make_pipe: PipeFactory, make_map: MapMaker, scheduler: str) -> None:
    torch.manual_seed(1)
    first = draw(make_pipe, make_map, scheduler=scheduler, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = draw(make_pipe, make_map, scheduler=scheduler, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.latents, second.latents)
    assert first.image.tobytes() == second.image.tobytes()


def test_latents_replace_the_seed(make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker) -> None:
    noise, other = (make_noise(WINDOW, 2 * WINDOW + 3, seed, torch.float32) for seed in (0, 1))
    kept = noise.clone()
    first, second = (draw(make_pipe, make_map, latents=noise, seed=seed) for seed in (0, 1))
    assert torch.equal(noise, kept)
    assert torch.equal(first.latents, second.latents)
    assert apart(draw(make_pipe, make_map, latents=other, seed=0).latents, first.latents) > 1


def test_a_montage_object_reproduces_an_image(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    montage = Montage.from_pipe(make_pipe(1, torch.float32))
    wide, narrow = make_map(WIDTH, HEIGHT), make_map(HEIGHT, HEIGHT, 1)
    options: dict[str, Any] = {
        "height": HEIGHT,
        "sampling": SamplingConfig(steps=3).complete(),
        "windows": WindowConfig(stride=STRIDE).complete(),
        "sync": SyncConfig(weight=0.0).complete(),
    }
    first = montage("a red hill", wide, width=WIDTH, **options)
    montage("a blue sea", narrow, width=HEIGHT, **options)
    again = montage("a red hill", wide, width=WIDTH, **options)
    assert torch.equal(first.latents, again.latents)
