"""Fitting guides of another size or aspect ratio onto the canvas, and rings that stay closed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.io import resize

sides = st.integers(20, 400)


def gradient(width: int, height: int) -> Image.Image:
    """Return an image whose red is the horizontal and whose green is the vertical position, 0..255."""
    x = np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))
    y = np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], (height, width))
    return Image.fromarray((np.stack([x, y, x * 0], axis=-1) * 255).round().astype(np.uint8))


def test_fit_accepts_aspect_ratios_within_two_percent() -> None:
    guide = Image.new("RGB", (600, 100))
    assert resize.fit(guide, 256, 1530, "guide").size == (1530, 256)
    with pytest.raises(InputError, match=r"use width 1536 at height 256, or (--)?fit crop, pad or stretch"):
        resize.fit(guide, 256, 1600, "guide")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(width=sides, height=sides, canvas_w=sides, canvas_h=sides, how=st.sampled_from(["crop", "pad", "stretch"]))
def test_every_fit_fills_the_canvas(width: int, height: int, canvas_w: int, canvas_h: int, how: str) -> None:
    guide = gradient(width, height)
    fitting = resize.plan(guide, canvas_h, canvas_w, "guide", how)
    resized = fitting.apply(guide)
    assert fitting.pad(resized, None).size == fitting.pad(resized, (1, 2, 3)).size == (canvas_w, canvas_h)
    ratio = (canvas_w / canvas_h) / (width / height)
    assert bool(fitting.note) == (abs(ratio - 1) > resize.ASPECT_TOLERANCE)
    left, top, right, bottom = fitting.box
    scales = resized.width / (right - left), resized.height / (bottom - top)
    if how != "stretch" and fitting.note:  # the aspect ratio is preserved up to half a pixel of the canvas
        assert abs(scales[0] / scales[1] - 1) <= 0.6 / min(resized.size)


def test_crop_takes_the_middle() -> None:
    guide = gradient(600, 200)
    fitting = resize.plan(guide, 100, 100, "guide", "crop")
    cropped = np.asarray(fitting.apply(guide), dtype=float) / 255
    assert fitting.note == (
        "the guide is 600x200, another aspect than the canvas of 100x100: 67% of its width is cut off (--fit crop)"
    )
    assert np.allclose(cropped[50, [0, 50, 99], 0], [1 / 3, 1 / 2, 2 / 3], atol=0.01)
    assert np.allclose(cropped[[0, 50, 99], 50, 1], [0, 1 / 2, 1], atol=0.01)
    tall_crop = np.asarray(resize.plan(guide, 100, 600, "guide", "crop").apply(guide), dtype=float) / 255
    assert np.allclose(tall_crop[[0, 50, 99], 300, 1], [1 / 4, 1 / 2, 3 / 4], atol=0.01)


def test_pad_extends_the_map_and_not_the_guide() -> None:
    guide = gradient(100, 100)
    fitting = resize.plan(guide, 100, 300, "guide", "pad")
    resized = fitting.apply(guide)
    assert np.array_equal(np.asarray(resized), np.asarray(guide))
    assert "67% of the canvas's width lies outside of it" in fitting.note
    coloured, repeated = (np.asarray(fitting.pad(resized, fill)) for fill in ((9, 8, 7), None))
    for padded in (coloured, repeated):
        assert np.array_equal(padded[:, 100:200], np.asarray(guide))
    assert (coloured[:, :100] == (9, 8, 7)).all() and (coloured[:, 200:] == (9, 8, 7)).all()
    assert (repeated[:, :100] == np.asarray(guide)[:, :1]).all()
    assert (repeated[:, 200:] == np.asarray(guide)[:, -1:]).all()


def test_stretch_uses_the_whole_guide() -> None:
    guide = gradient(200, 200)
    fitting = resize.plan(guide, 100, 400, "guide", "stretch")
    stretched = np.asarray(fitting.apply(guide), dtype=float) / 255
    assert "4.00 times its width" in fitting.note
    assert np.allclose(stretched[[0, 99], 0, 1], [0, 1], atol=0.01)
    assert np.allclose(stretched[0, [0, 399], 0], [0, 1], atol=0.01)


@pytest.mark.parametrize(("how", "canvas"), [("crop", (100, 400)), ("pad", (100, 800))])
def test_rings_are_never_cut_or_left_open(how: str, canvas: tuple[int, int]) -> None:
    ring = Image.new("RGB", (600, 100))
    with pytest.raises(InputError, match="would not close"):
        resize.plan(ring, *canvas, "guide", how, loop=True)
    alternative = {"crop": "pad", "pad": "crop"}[how]
    assert resize.plan(ring, *canvas, "guide", alternative, loop=True).note


@pytest.mark.parametrize("size", [(300, 50), (1200, 200), (66, 11), (600, 100)])
@pytest.mark.parametrize("turn", [1, 7, 30])
def test_resized_rings_stay_closed(size: tuple[int, int], turn: int) -> None:
    x = np.arange(600) * 2 * np.pi / 600
    waves = 127.5 + 60 * np.sin(3 * x + 1) + 60 * np.cos(20 * x)
    ring = np.broadcast_to(waves[None, :, None], (100, 600, 3)).round().astype(np.uint8)

    def resized(pixels: np.ndarray, loop: bool) -> np.ndarray:
        fitting = resize.plan(Image.fromarray(pixels), size[1], size[0], "guide", loop=loop)
        return np.asarray(fitting.apply(Image.fromarray(pixels)), dtype=float)

    step = 600 // np.gcd(600, size[0])  # px of the guide that map to whole pixels of the canvas
    shift = step * turn
    expected = np.roll(resized(ring, True), shift * size[0] // 600, axis=1)
    assert np.array_equal(resized(np.roll(ring, shift, axis=1), True), expected)
    if size[0] > 600:
        rolled_open = np.roll(resized(ring, False), shift * size[0] // 600, axis=1)
        assert not np.array_equal(resized(np.roll(ring, shift, axis=1), False), rolled_open)


def test_cropped_rings_stay_closed() -> None:
    ring = np.asarray(gradient(600, 200)).copy()
    ring[..., 0] = (127.5 + 100 * np.sin(np.arange(600) * 2 * np.pi / 600)).astype(np.uint8)
    fitting = resize.plan(Image.fromarray(ring), 50, 300, "guide", "crop", loop=True)
    cropped = np.asarray(fitting.apply(Image.fromarray(ring)), dtype=float)
    assert np.allclose(cropped[[0, 25, 49], 0, 1] / 255, [1 / 4, 1 / 2, 3 / 4], atol=0.01)
    assert abs(cropped[:, 0, 0] - cropped[:, -1, 0]).max() <= np.abs(np.diff(cropped[..., 0], axis=1)).max()
