"""Pictures put together: what was drawn takes on the colours that another picture has in the large."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from synccontrol.io import masks

SIDE = 64  # px, of a window


def noise(height: int, width: int, seed: int, deviation: float) -> np.ndarray:
    """Returns grey levels (H, W, 3) around the middle, of parts as large as a Gaussian."""
    raw = np.random.default_rng(seed).standard_normal((height, width, 3))
    soft = cv2.GaussianBlur(raw, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE) if deviation else raw
    return 128 + 30 * soft / soft.std()


def picture(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("side", [SIDE, 4 * SIDE])
@pytest.mark.parametrize("size", [(64, 200), (601, 333)])
def test_low_frequencies_are_the_old_pictures_and_high_ones_the_new(size: tuple[int, int], side: int) -> None:
    old, new = picture(noise(*size, 0, side / 8)), picture(noise(*size, 1, side / 8) + noise(*size, 2, 0.0) / 4 - 32)
    found = np.asarray(masks.match_colors(new, old, side, False), np.float64)
    lack = np.asarray(old, np.float64) - np.asarray(new)
    literal = np.asarray(new) + cv2.GaussianBlur(lack, (0, 0), side / 32, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(found - literal.clip(0, 255)).mean() < 1
    assert np.abs(found - np.asarray(new)).mean() > 10


def test_a_haze_goes_and_detail_stays() -> None:
    old = noise(96, 160, 3, SIDE / 8)
    detail = 20 * (np.indices((96, 160)).sum(axis=0)[..., None] % 2) - 10
    found = np.asarray(masks.match_colors(picture(old + detail - 25), picture(old), SIDE, False), np.float64)
    inside = np.s_[8:-8, 8:-8]  # at the edges a checkerboard goes on as stripes
    assert np.abs(found - (old + detail))[inside].max() <= 2


def test_a_ring_has_no_join() -> None:
    old, new = (np.asarray(picture(noise(64, 192, seed, SIDE / 8))) for seed in (4, 5))

    def tinted(shift: int, closed: bool) -> np.ndarray:
        rolled = (Image.fromarray(np.roll(one, shift, axis=1)) for one in (new, old))
        return np.roll(np.asarray(masks.match_colors(*rolled, SIDE, closed)), -shift, axis=1)

    assert np.array_equal(tinted(0, True), tinted(80, True))
    assert not np.array_equal(tinted(0, False), tinted(80, False))


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("soft", [0, 1, 2, 7, 20])
def test_soft_masks_equal_a_literal_minimum_filter(soft: int, closed: bool) -> None:
    mask = (np.random.default_rng(soft).random((40, 64)) < 0.9).astype(np.uint8) * 255
    reach, around = soft // 2, soft + 1
    padded = np.pad(
        np.pad(mask, ((around, around), (0, 0)), "edge"), ((0, 0), (around, around)), "wrap" if closed else "edge"
    )
    eroded = padded.copy()
    for y in range(reach, padded.shape[0] - reach):
        for x in range(reach, padded.shape[1] - reach):
            eroded[y, x] = padded[y - reach : y + reach + 1, x - reach : x + reach + 1].min()
    blurred = np.asarray(Image.fromarray(eroded).filter(ImageFilter.BoxBlur(reach))) if reach else eroded
    expected = np.minimum(blurred[around:-around, around:-around], mask).astype(np.float32) / 255
    assert np.array_equal(masks.feather_mask(Image.fromarray(mask), soft, closed), expected)


def test_soft_masks_are_eroded_without_a_filter_that_grows_with_the_square_of_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFilter, "MinFilter", None)  # Pillow's takes minutes for 128 px
    mask = Image.new("L", (512, 256))
    mask.paste(255, (100, 50, 400, 200))
    assert masks.feather_mask(mask, 64, False).max() == 1
