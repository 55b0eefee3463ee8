"""Pictures that start from another one: as much of it as the strength leaves, on any canvas, by the same sync."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import ComposeConfig, Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, InputError
from tests.conftest import WINDOW

STEPS = SamplingConfig(steps=4, guidance_scale=3.0)
OFF = SyncConfig(weight=0.0)
WINDOWS = WindowConfig(stride=WINDOW // 2)


@pytest.fixture(scope="module")
def montage(make_pipe: Callable[..., Any]) -> Montage:
    return Montage.from_pipe(make_pipe(controls=0))


@pytest.fixture(scope="module")
def tiny() -> Montage:
    return Montage.from_pretrained("tiny")  # its autoencoder gives back what it was given


def waves(width: int, height: int) -> Image.Image:
    """Returns a smooth picture, closed at its left and right."""
    y, x = np.mgrid[0:height, 0:width]
    turn = 2 * np.pi / width
    picture = np.stack([np.sin(turn * x), np.cos(2 * turn * x), np.sin(y / 40)], axis=-1)
    return Image.fromarray((127.5 + 80 * picture).astype(np.uint8))


def apart(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        ((500, 262), WindowConfig(stride=16)),
        ((512, 256), WindowConfig(stride=16, loop=True)),
        ((832, 416), WindowConfig(stride=16, projection="equirectangular")),
    ],
)
def test_the_less_is_drawn_anew_the_more_is_kept(tiny: Montage, size: tuple[int, int], windows: WindowConfig) -> None:
    start = waves(*size)

    def draw(strength: float) -> Image.Image:
        sampling = SamplingConfig(steps=4, guidance_scale=1.0, scheduler="ddim")
        compose = ComposeConfig(strength=strength)
        return tiny("noon", init_image=start, sampling=sampling, windows=windows, sync=OFF, compose=compose).image

    little = draw(0.25)
    assert little.size == size
    assert apart(little, start) < 15
    if windows.projection == "flat":
        assert apart(draw(1.0), start) > 2 * apart(little, start)


def test_sync_acts_where_its_steps_are_left(montage: Montage) -> None:
    start, given = waves(128, 64), {"sampling": STEPS, "windows": WINDOWS}

    def draw(strength: float, steps: int) -> Tensor:
        sync = SyncConfig(weight=0.0, adain=1.0, adain_steps=steps)
        return montage("x", init_image=start, sync=sync, compose=ComposeConfig(strength=strength), **given).latents

    assert torch.equal(draw(0.5, 2), draw(0.5, 0))  # of the four steps the first two are left out
    assert not torch.equal(draw(0.5, 3), draw(0.5, 0))
    assert torch.equal(draw(1.0, 4), draw(1.0, 9))


def test_what_is_left_of_sync() -> None:
    left = SyncConfig(weight=20.0, decay=0.5, steps=5, adain=1.0, adain_steps=1).later(2)
    assert (left.weight, left.steps, left.adain_steps) == (5.0, 3, 0)


def test_settings_say_how_it_started(montage: Montage) -> None:
    found = montage("x", init_image=waves(128, 64), sampling=STEPS, windows=WINDOWS, sync=OFF).config
    assert (found["width"], found["height"], found["strength"]) == (128, 64, 0.6)
    plain = montage("x", width=128, height=64, sampling=STEPS, windows=WINDOWS, sync=OFF).config
    assert plain["strength"] is None and plain["init_image"] is None


def test_what_makes_no_sense_is_one_line(montage: Montage) -> None:
    given: dict[str, Any] = {"init_image": waves(128, 64), "sampling": STEPS, "windows": WINDOWS}
    with pytest.raises(ConfigError, match=r"strength 0.2 leaves none of 4 steps; use at least 0.25"):
        montage("x", compose=ComposeConfig(strength=0.2), **given)
    with pytest.raises(InputError, match="the init image is 128x64, another aspect"):
        montage("x", width=192, height=64, **given)
    with pytest.raises(ConfigError, match="strength is 0"):
        ComposeConfig(strength=0.0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ComposeConfig(strength=1.5)
