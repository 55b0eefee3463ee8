"""Control maps of 360-degree rings close: detection around the seam is like detection anywhere else."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import preprocess
from preprocess.wide.views import close_ring, close_ring_estimate, unwrap_ring, wrap_ring
from training.render import render

HEIGHT, WIDTH = 48, 160  # px, size of the small rings
ESTIMATES = {"depth": 1.0, "pose": 1.0}  # largest mean difference of a rolled map of the bundled networks, 0..255


def ring(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a smooth random image (H, W, 3) uint8 whose edges continue each other."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(np.pad(noise, ((0, 0), (30, 30), (0, 0)), mode="wrap"), (0, 0), 4)[:, 30:-30]
    return np.clip(128 + 600 * smooth, 0, 255).astype(np.uint8)


def blur(guide: Image.Image) -> Image.Image:
    """A local detector: a mean over 21x21 px that repeats the border, like a convolution."""
    return Image.fromarray(cv2.blur(np.asarray(guide), (21, 21), borderType=cv2.BORDER_REPLICATE))


def half_size_with_wrong_ends(image: np.ndarray) -> np.ndarray:
    """An estimator that returns half the size of the image, with large errors at its ends."""
    grey = cv2.blur(image.mean(axis=2).astype(np.float32), (21, 21), borderType=cv2.BORDER_REPLICATE)
    half = cv2.resize(grey, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    half[:, :3] = half[:, -3:] = -1000
    return half


def position_dependent(guide: Image.Image) -> Image.Image:
    """A detector whose result depends on the position in the image."""
    ramp = np.linspace(0, 60, guide.width)[None, :, None]
    return Image.fromarray((np.asarray(guide) * 0.5 + ramp).round().astype(np.uint8))


def roll(image: Image.Image | np.ndarray, shift: int) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(image), shift, axis=1))


def step(image: Image.Image) -> float:
    """Return the difference across the seam, relative to that between other columns."""
    values = np.asarray(image, dtype=np.float64)
    across = np.abs(np.diff(values, axis=1)).mean()
    return float(np.abs(values[:, 0] - values[:, -1]).mean() / across)


def test_a_local_detector_equals_circular_convolution() -> None:
    image = ring()
    kernel = np.zeros((HEIGHT, WIDTH))
    kernel[HEIGHT // 2 - 10 : HEIGHT // 2 + 11, WIDTH // 2 - 10 : WIDTH // 2 + 11] = 1 / 21**2
    spectrum = np.fft.fft2(np.fft.ifftshift(kernel))[..., None]
    circular = np.fft.ifft2(np.fft.fft2(image, axes=(0, 1)) * spectrum, axes=(0, 1)).real
    inside = slice(10, -10)  # rows; the ring closes only sideways
    result = np.asarray(close_ring(blur)(Image.fromarray(image)), dtype=float)
    assert np.abs(result - circular)[inside].max() <= 0.51
    open_ended = np.asarray(blur(Image.fromarray(image)), dtype=float)
    assert np.abs(open_ended - circular)[inside].max() > 5


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shift=st.integers(-WIDTH, WIDTH), seed=st.integers(0, 99))
@pytest.mark.parametrize("detect", [blur, preprocess.load("canny", low=20, high=50)])
def test_rolling_the_guide_rolls_the_map(detect: Callable[[Image.Image], Image.Image], shift: int, seed: int) -> None:
    image = ring(seed)
    expected = roll(close_ring(detect)(Image.fromarray(image)), shift)
    assert np.array_equal(np.asarray(close_ring(detect)(roll(image, shift))), np.asarray(expected))


@pytest.mark.parametrize("shift", [2, 40, -66])
def test_errors_at_open_ends_stay_out_of_the_ring(shift: int) -> None:
    estimate, image = close_ring_estimate(half_size_with_wrong_ends), ring()
    result = estimate(image)
    assert result.shape == (HEIGHT, WIDTH)
    assert result.min() > 0
    rolled = estimate(np.roll(image, shift, axis=1))
    assert np.abs(rolled - np.roll(result, shift, axis=1)).max() < 1e-3


def test_a_position_dependent_detector_closes() -> None:
    guide = Image.fromarray(ring())
    assert step(position_dependent(guide)) > 5
    assert step(close_ring(position_dependent)(guide)) < 1.5


@settings(deadline=None, derandomize=True, max_examples=100)
@given(width=st.integers(1, 40), part=st.floats(0, 1), channels=st.sampled_from([(), (3,)]))
def test_unwrapping_reverses_wrapping(width: int, part: float, channels: tuple[int, ...]) -> None:
    values = np.random.default_rng(width).random((5, width, *channels)).astype(np.float32)
    margin = round(part * width)
    padded = wrap_ring(values, margin)
    assert padded.shape[1] == width + 2 * margin
    assert all(np.array_equal(padded[:, x], values[:, (x - margin) % width]) for x in range(padded.shape[1]))
    assert np.array_equal(unwrap_ring(padded, margin), values)


def test_tall_rings_close() -> None:
    guide = Image.fromarray(ring(height=200, width=48))
    result = close_ring(blur)(guide)
    assert result.size == guide.size
    assert step(result) < 1.5 < step(blur(guide))


@pytest.mark.parametrize("control", ESTIMATES)
def test_the_bundled_detectors_roll_with_the_guide(control: str) -> None:
    scene = render(np.random.default_rng(5), height=256, width=512, tileable=True, people=6)
    shift = -round(float(scene.people[0, 1, 0]))  # after rolling, the seam runs through the neck of the first person
    differences = {}
    for loop in (True, False):
        detect = preprocess.load(control, loop=loop)
        expected = np.asarray(roll(detect(Image.fromarray(scene.image)), shift), dtype=float)
        result = np.asarray(detect(roll(scene.image, shift)), dtype=float)
        differences[loop] = np.abs(result - expected)[:, :64].mean()
    assert differences[True] < ESTIMATES[control]
    assert differences[False] > 2 * differences[True]
