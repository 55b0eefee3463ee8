"""Colour matching and feathered masks."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from synccontrol.io import masks

SIDE = 64  # px; side of a window


def noise(height: int, width: int, seed: int, deviation: float) -> np.ndarray:
    """Return noise (H, W, 3) around mid-grey, blurred by a Gaussian."""
    raw = np.random.default_rng(seed).standard_normal((height, width, 3))
    soft = cv2.GaussianBlur(raw, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE) if deviation else raw
    return 128 + 30 * soft / soft.std()


def to_image(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("side", [SIDE, 4 * SIDE])
@pytest.mark.parametrize("size", [(64, 200), (601, 333)])
def test_low_frequencies_come_from_the_old_image_and_high_ones_from_the_new(size: tuple[int, int], side: int) -> None:
    old, new = to_image(noise(*size, 0, side / 8)), to_image(noise(*size, 1, side / 8) + noise(*size, 2, 0.0) / 4 - 32)
    matched = np.asarray(masks.match_colors(new, old, side, False), np.float64)
    difference = np.asarray(old, np.float64) - np.asarray(new)
    expected = np.asarray(new) + cv2.GaussianBlur(difference, (0, 0), side / 32, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(matched - expected.clip(0, 255)).mean() < 1
    assert np.abs(matched - np.asarray(new)).mean() > 10


def test_matching_removes_a_haze_and_preserves_detail() -> None:
    old = noise(96, 160, 3, SIDE / 8)
    detail = 20 * (np.indices((96, 160)).sum(axis=0)[..., None] % 2) - 10
    matched = np.asarray(masks.match_colors(to_image(old + detail - 25), to_image(old), SIDE, False), np.float64)
    inner = np.s_[8:-8, 8:-8]  # at the edges the padding of a checkerboard is stripes
    assert np.abs(matched - (old + detail))[inner].max() <= 2


def test_rings_have_no_seam() -> None:
    old, new = (np.asarray(to_image(noise(64, 192, seed, SIDE / 8))) for seed in (4, 5))

    def match_rolled(shift: int, closed: bool) -> np.ndarray:
        rolled = (Image.fromarray(np.roll(image, shift, axis=1)) for image in (new, old))
        return np.roll(np.asarray(masks.match_colors(*rolled, SIDE, closed)), -shift, axis=1)

    assert np.array_equal(match_rolled(0, True), match_rolled(80, True))
    assert not np.array_equal(match_rolled(0, False), match_rolled(80, False))


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("feather", [0, 1, 2, 7, 20])
def test_feathered_masks_equal_a_literal_minimum_filter(feather: int, closed: bool) -> None:
    mask = (np.random.default_rng(feather).random((40, 64)) < 0.9).astype(np.uint8) * 255
    reach, border = feather // 2, feather + 1
    padded = np.pad(
        np.pad(mask, ((border, border), (0, 0)), "edge"), ((0, 0), (border, border)), "wrap" if closed else "edge"
    )
    eroded = padded.copy()
    for y in range(reach, padded.shape[0] - reach):
        for x in range(reach, padded.shape[1] - reach):
            eroded[y, x] = padded[y - reach : y + reach + 1, x - reach : x + reach + 1].min()
    blurred = np.asarray(Image.fromarray(eroded).filter(ImageFilter.BoxBlur(reach))) if reach else eroded
    expected = np.minimum(blurred[border:-border, border:-border], mask).astype(np.float32) / 255
    assert np.array_equal(masks.feather_mask(Image.fromarray(mask), feather, closed), expected)


def test_feathering_avoids_the_quadratic_minimum_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFilter, "MinFilter", None)  # the filter of Pillow takes minutes for 128 px
    mask = Image.new("L", (512, 256))
    mask.paste(255, (100, 50, 400, 200))
    assert masks.feather_mask(mask, 64, False).max() == 1
