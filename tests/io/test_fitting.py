"""Guides of another size or aspect come onto the canvas as asked, and rings stay rings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.io import resize

sides = st.integers(20, 400)


def places(width: int, height: int) -> Image.Image:
    """Returns a picture whose red says how far right, and whose green how far down a pixel is, 0..255."""
    x = np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))
    y = np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], (height, width))
    return Image.fromarray((np.stack([x, y, x * 0], axis=-1) * 255).round().astype(np.uint8))


def test_fit_resizes_within_two_percent_and_refuses_beyond() -> None:
    guide = Image.new("RGB", (600, 100))
    assert resize.fit(guide, 256, 1530, "guide").size == (1530, 256)
    with pytest.raises(InputError, match="use width 1536 at height 256, or --fit crop, pad or stretch"):
        resize.fit(guide, 256, 1600, "guide")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(width=sides, height=sides, canvas_w=sides, canvas_h=sides, how=st.sampled_from(["crop", "pad", "stretch"]))
def test_every_fit_fills_the_canvas(width: int, height: int, canvas_w: int, canvas_h: int, how: str) -> None:
    guide = places(width, height)
    found = resize.plan(guide, canvas_h, canvas_w, "guide", how)
    shown = found.show(guide)
    assert found.pad(shown, None).size == found.pad(shown, (1, 2, 3)).size == (canvas_w, canvas_h)
    ratio = (canvas_w / canvas_h) / (width / height)
    assert bool(found.note) == (abs(ratio - 1) > resize.ASPECT_TOLERANCE)
    left, top, right, bottom = found.box
    scales = shown.width / (right - left), shown.height / (bottom - top)
    if how != "stretch" and found.note:  # the picture keeps its aspect, up to half a pixel of the canvas
        assert abs(scales[0] / scales[1] - 1) <= 0.6 / min(shown.size)


def test_crop_shows_the_middle() -> None:
    guide = places(600, 200)
    found = resize.plan(guide, 100, 100, "guide", "crop")
    shown = np.asarray(found.show(guide), dtype=float) / 255
    assert found.note == (
        "the guide is 600x200, another aspect than the canvas of 100x100: 67% of its width is cut off (--fit crop)"
    )
    assert np.allclose(shown[50, [0, 50, 99], 0], [1 / 3, 1 / 2, 2 / 3], atol=0.01)
    assert np.allclose(shown[[0, 50, 99], 50, 1], [0, 1 / 2, 1], atol=0.01)
    high = np.asarray(resize.plan(guide, 100, 600, "guide", "crop").show(guide), dtype=float) / 255
    assert np.allclose(high[[0, 50, 99], 300, 1], [1 / 4, 1 / 2, 3 / 4], atol=0.01)


def test_pad_grows_the_map_and_not_the_guide() -> None:
    guide = places(100, 100)
    found = resize.plan(guide, 100, 300, "guide", "pad")
    shown = found.show(guide)
    assert np.array_equal(np.asarray(shown), np.asarray(guide))
    assert "67% of the canvas's width lies outside of it" in found.note
    coloured, repeated = (np.asarray(found.pad(shown, outside)) for outside in ((9, 8, 7), None))
    for padded in (coloured, repeated):
        assert np.array_equal(padded[:, 100:200], np.asarray(guide))
    assert (coloured[:, :100] == (9, 8, 7)).all() and (coloured[:, 200:] == (9, 8, 7)).all()
    assert (repeated[:, :100] == np.asarray(guide)[:, :1]).all()
    assert (repeated[:, 200:] == np.asarray(guide)[:, -1:]).all()


def test_stretch_shows_all() -> None:
    guide = places(200, 200)
    found = resize.plan(guide, 100, 400, "guide", "stretch")
    shown = np.asarray(found.show(guide), dtype=float) / 255
    assert "4.00 times its width" in found.note
    assert np.allclose(shown[[0, 99], 0, 1], [0, 1], atol=0.01)
    assert np.allclose(shown[0, [0, 399], 0], [0, 1], atol=0.01)


@pytest.mark.parametrize(("how", "canvas"), [("crop", (100, 400)), ("pad", (100, 800))])
def test_a_ring_is_never_cut_open(how: str, canvas: tuple[int, int]) -> None:
    ring = Image.new("RGB", (600, 100))
    with pytest.raises(InputError, match="would not close"):
        resize.plan(ring, *canvas, "guide", how, loop=True)
    other = {"crop": "pad", "pad": "crop"}[how]
    assert resize.plan(ring, *canvas, "guide", other, loop=True).note


@pytest.mark.parametrize("size", [(300, 50), (1200, 200), (66, 11), (600, 100)])
@pytest.mark.parametrize("turn", [1, 7, 30])
def test_a_resized_ring_is_a_ring(size: tuple[int, int], turn: int) -> None:
    x = np.arange(600) * 2 * np.pi / 600
    waves = 127.5 + 60 * np.sin(3 * x + 1) + 60 * np.cos(20 * x)
    ring = np.broadcast_to(waves[None, :, None], (100, 600, 3)).round().astype(np.uint8)

    def resized(picture: np.ndarray, loop: bool) -> np.ndarray:
        fitted = resize.plan(Image.fromarray(picture), size[1], size[0], "guide", loop=loop)
        return np.asarray(fitted.show(Image.fromarray(picture)), dtype=float)

    step = 600 // np.gcd(600, size[0])  # px of the guide that are whole pixels of the canvas
    shift = step * turn
    expected = np.roll(resized(ring, True), shift * size[0] // 600, axis=1)
    assert np.array_equal(resized(np.roll(ring, shift, axis=1), True), expected)
    if size[0] > 600:
        rolled_open = np.roll(resized(ring, False), shift * size[0] // 600, axis=1)
        assert not np.array_equal(resized(np.roll(ring, shift, axis=1), False), rolled_open)


def test_a_cropped_ring_is_a_ring() -> None:
    ring = np.asarray(places(600, 200)).copy()
    ring[..., 0] = (127.5 + 100 * np.sin(np.arange(600) * 2 * np.pi / 600)).astype(np.uint8)
    found = resize.plan(Image.fromarray(ring), 50, 300, "guide", "crop", loop=True)
    shown = np.asarray(found.show(Image.fromarray(ring)), dtype=float)
    assert np.allclose(shown[[0, 25, 49], 0, 1] / 255, [1 / 4, 1 / 2, 3 / 4], atol=0.01)
    assert abs(shown[:, 0, 0] - shown[:, -1, 0]).max() <= np.abs(np.diff(shown[..., 0], axis=1)).max()
