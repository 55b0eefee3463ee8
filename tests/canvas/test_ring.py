"""Rings close in every control map: what is detected around the join is what is detected anywhere else."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import preprocess
from preprocess.wide.views import closed, closed_estimate, unwrapped, wrapped
from training.render import render

HEIGHT, WIDTH = 48, 160  # px, of the small rings
ESTIMATES = {"depth": 1.0, "pose": 1.0}  # mean difference of a rolled map, 0..255, that the bundled networks may have


def ring(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Returns a smooth random picture (H, W, 3) uint8 whose edges continue each other."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(np.pad(noise, ((0, 0), (30, 30), (0, 0)), mode="wrap"), (0, 0), 4)[:, 30:-30]
    return np.clip(128 + 600 * smooth, 0, 255).astype(np.uint8)


def blur(guide: Image.Image) -> Image.Image:
    """Stands for a local detector: a mean over 21x21 px that repeats the border, as convolutions may."""
    return Image.fromarray(cv2.blur(np.asarray(guide), (21, 21), borderType=cv2.BORDER_REPLICATE))


def shrunk_and_dark_at_the_ends(picture: np.ndarray) -> np.ndarray:
    """Stands for an estimator: half the picture's size, and wildly wrong where its picture ends."""
    grey = cv2.blur(picture.mean(axis=2).astype(np.float32), (21, 21), borderType=cv2.BORDER_REPLICATE)
    half = cv2.resize(grey, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)
    half[:, :3] = half[:, -3:] = -1000
    return half


def drifting(guide: Image.Image) -> Image.Image:
    """Stands for a detector that looks at everything at once: what it says depends on the place in the picture."""
    ramp = np.linspace(0, 60, guide.width)[None, :, None]
    return Image.fromarray((np.asarray(guide) * 0.5 + ramp).round().astype(np.uint8))


def roll(picture: Image.Image | np.ndarray, shift: int) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(picture), shift, axis=1))


def step(picture: Image.Image) -> float:
    """Returns the difference across the closing join over that of the columns inside."""
    values = np.asarray(picture, dtype=np.float64)
    across = np.abs(np.diff(values, axis=1)).mean()
    return float(np.abs(values[:, 0] - values[:, -1]).mean() / across)


def test_a_local_detector_sees_the_circle() -> None:
    picture = ring()
    kernel = np.zeros((HEIGHT, WIDTH))
    kernel[HEIGHT // 2 - 10 : HEIGHT // 2 + 11, WIDTH // 2 - 10 : WIDTH // 2 + 11] = 1 / 21**2
    spectrum = np.fft.fft2(np.fft.ifftshift(kernel))[..., None]
    circular = np.fft.ifft2(np.fft.fft2(picture, axes=(0, 1)) * spectrum, axes=(0, 1)).real
    inside = slice(10, -10)  # rows: the circle closes sideways only
    found = np.asarray(closed(blur)(Image.fromarray(picture)), dtype=float)
    assert np.abs(found - circular)[inside].max() <= 0.51
    open_ended = np.asarray(blur(Image.fromarray(picture)), dtype=float)
    assert np.abs(open_ended - circular)[inside].max() > 5


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shift=st.integers(-WIDTH, WIDTH), seed=st.integers(0, 99))
@pytest.mark.parametrize("detect", [blur, preprocess.load("canny", low=20, high=50)])
def test_rolling_the_guide_rolls_the_map(detect: Callable[[Image.Image], Image.Image], shift: int, seed: int) -> None:
    picture = ring(seed)
    expected = roll(closed(detect)(Image.fromarray(picture)), shift)
    assert np.array_equal(np.asarray(closed(detect)(roll(picture, shift))), np.asarray(expected))


@pytest.mark.parametrize("shift", [2, 40, -66])
def test_what_happens_at_open_ends_stays_out_of_the_ring(shift: int) -> None:
    estimate, picture = closed_estimate(shrunk_and_dark_at_the_ends), ring()
    found = estimate(picture)
    assert found.shape == (HEIGHT, WIDTH)
    assert found.min() > 0
    rolled = estimate(np.roll(picture, shift, axis=1))
    assert np.abs(rolled - np.roll(found, shift, axis=1)).max() < 1e-3


def test_a_detector_that_sees_places_closes_too() -> None:
    guide = Image.fromarray(ring())
    assert step(drifting(guide)) > 5
    assert step(closed(drifting)(guide)) < 1.5


@settings(deadline=None, derandomize=True, max_examples=100)
@given(width=st.integers(1, 40), part=st.floats(0, 1), channels=st.sampled_from([(), (3,)]))
def test_wrapping_and_unwrapping_is_nothing(width: int, part: float, channels: tuple[int, ...]) -> None:
    values = np.random.default_rng(width).random((5, width, *channels)).astype(np.float32)
    margin = round(part * width)
    seen = wrapped(values, margin)
    assert seen.shape[1] == width + 2 * margin
    assert all(np.array_equal(seen[:, x], values[:, (x - margin) % width]) for x in range(seen.shape[1]))
    assert np.array_equal(unwrapped(seen, margin), values)


def test_a_ring_higher_than_wide_closes() -> None:
    guide = Image.fromarray(ring(height=200, width=48))
    found = closed(blur)(guide)
    assert found.size == guide.size
    assert step(found) < 1.5 < step(blur(guide))


@pytest.mark.parametrize("control", ESTIMATES)
def test_the_bundled_detectors_roll_with_the_guide(control: str) -> None:
    scene = render(np.random.default_rng(5), height=256, width=512, tileable=True, people=6)
    shift = -round(float(scene.people[0, 1, 0]))  # once rolled, the join runs through the first person's neck
    differences = {}
    for loop in (True, False):
        detect = preprocess.load(control, loop=loop)
        expected = np.asarray(roll(detect(Image.fromarray(scene.image)), shift), dtype=float)
        found = np.asarray(detect(roll(scene.image, shift)), dtype=float)
        differences[loop] = np.abs(found - expected)[:, :64].mean()
    assert differences[True] < ESTIMATES[control]
    assert differences[False] > 2 * differences[True]
