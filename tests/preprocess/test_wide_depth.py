"""Depth of wide guides: one scale for tiles of any scale, no steps, closed rings, and real formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    DepthProConfig,
    DepthProForDepthEstimation,
    DepthProImageProcessor,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
    ZoeDepthImageProcessor,
)

import preprocess
from preprocess.control import Runtime
from preprocess.estimators.transformers_models import TransformersDepth
from preprocess.wide.views import slices
from preprocess.wide.wide_depth import OVERLAP, fit_tiles, long_depth

SIDE, LENGTH = 48, 240  # px
LOUD = 8.0  # factor on random decoders, so that their depth varies over the image


def truth(length: int = LENGTH, seed: int = 0) -> np.ndarray:
    """Return the nearness (SIDE, length) of a ring with hills under a flat sky."""
    rng = np.random.default_rng(seed)
    x, y = np.arange(length), np.arange(SIDE)[:, None]
    ridge = SIDE * (0.5 + 0.15 * sum(np.sin(2 * np.pi * (k * x / length + rng.random())) for k in (2, 5)))
    return ((y - ridge) / SIDE).clip(0, 1).astype(np.float32)


def painted(nearness: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) whose grey is the nearness."""
    return np.repeat(np.rint(255 * nearness).astype(np.uint8)[..., None], 3, axis=2)


class RandomScale:
    """Estimate the nearness of a painted image squashed to SIDE x SIDE, with a new scale and shift in every call."""

    def __init__(self, noise: float = 0.0, seed: int = 0, spoil: dict[int, float] | None = None) -> None:
        self.rng, self.noise, self.spoil = np.random.default_rng(seed), noise, spoil or {}
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        scale = self.spoil.get(len(self.calls), 1.0) * np.exp(self.rng.uniform(-2, 2))
        self.calls.append(image.shape)
        squashed = cv2.resize(image[..., 0].astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) / 255
        noisy = squashed + self.noise * self.rng.standard_normal(squashed.shape)
        return (scale * noisy + self.rng.uniform(-50, 50)).astype(np.float32)


def rmse(estimate: np.ndarray, true: np.ndarray) -> float:
    """Return the root mean square error after one scale and one shift."""
    design = np.stack([estimate.ravel(), np.ones(estimate.size)], axis=1).astype(float)
    best = np.linalg.lstsq(design, true.ravel(), rcond=None)[0]
    assert best[0] > 0
    return float(np.sqrt(np.mean((design @ best - true.ravel()) ** 2)))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    length=st.integers(1, 400), size=st.integers(1, 60), share=st.integers(0, 59), wrap=st.booleans(), data=st.data()
)
def test_slices_cover_the_length_with_the_smallest_count(
    length: int, size: int, share: int, wrap: bool, data: st.DataObject
) -> None:
    overlap = share % size
    starts = slices(length, size, overlap, wrap)
    if length <= size:
        assert starts == [0]
        return
    gaps = np.diff([*starts, length] if wrap else starts)
    assert starts[0] == 0 and (wrap or starts[-1] == length - size)
    assert gaps.max() <= size - overlap and np.ptp(gaps) <= 1
    if not wrap:  # with one slice fewer the overlap is too small
        assert (len(starts) - 2) * (size - overlap) < length - size


@settings(deadline=None, derandomize=True, max_examples=10)
@given(seed=st.integers(0, 1000), noise=st.sampled_from([0.0, 0.01]), wrap=st.booleans())
def test_tiles_of_any_scale_become_one_map(seed: int, noise: float, wrap: bool) -> None:
    true = truth(seed=seed)
    depth = long_depth(RandomScale(noise, seed), SIDE, wrap)(painted(true))
    assert depth.shape == true.shape
    assert rmse(depth, true) < 0.002 + noise
    assert rmse(cv2.resize(RandomScale(0, seed)(painted(true)), true.shape[::-1]), true) > 0.004


@pytest.mark.parametrize("tall", [False, True])
def test_tall_guides_are_estimated_upright(tall: bool) -> None:
    """Rows and columns must not be exchanged for the estimator."""

    def slanted(image: np.ndarray) -> np.ndarray:
        rows = np.linspace(0, 2, image.shape[0])[:, None]
        return (image[..., 0] / 255 + rows).astype(np.float32)

    true = truth()
    image = painted(true.T if tall else true)
    depth = long_depth(slanted, SIDE)(image)
    assert depth.shape == image.shape[:2]
    rows = np.tile(np.linspace(0, 2, SIDE)[:, None], LENGTH)
    if not tall:
        assert rmse(depth, true + rows) < 0.01
    else:  # rows of tiles do not determine rows of the whole; columns are correct and not slanted
        assert np.abs(np.diff(depth.mean(axis=0) - image[..., 0].mean(axis=0) / 255)).max() < 0.02


def test_tall_guides_equal_transposed_wide_ones() -> None:
    depth = long_depth(RandomScale(), SIDE)(painted(truth().T))
    assert depth.shape == (LENGTH, SIDE)
    assert rmse(depth, truth().T) < 0.002


def test_tiles_are_square_and_square_guides_need_one_estimate() -> None:
    estimate = RandomScale()
    long_depth(estimate, SIDE)(painted(truth()))
    assert estimate.calls[0] == (SIDE, LENGTH, 3)
    assert set(estimate.calls[1:]) == {(SIDE, SIDE, 3)}
    assert len(estimate.calls) == 1 + len(slices(LENGTH, SIDE, int(SIDE * OVERLAP)))
    square = RandomScale()
    long_depth(square, SIDE)(painted(truth(SIDE * 3 // 2)))
    assert square.calls == [(SIDE, SIDE * 3 // 2, 3)]


def test_large_guides_are_scaled_to_the_training_size() -> None:
    estimate = RandomScale()
    large = cv2.resize(painted(truth()), (LENGTH * 20, SIDE * 20), interpolation=cv2.INTER_LINEAR)
    depth = long_depth(estimate, SIDE)(large)
    assert depth.shape == (SIDE, LENGTH)
    assert max(estimate.calls) == (SIDE, LENGTH, 3)
    assert rmse(depth, truth()) < 0.004


@pytest.mark.parametrize("height", [1, 2, 5, 15])
def test_guides_of_few_rows(height: int) -> None:
    image = painted(truth())[:height] + np.arange(height, dtype=np.uint8)[:, None, None]
    assert np.isfinite(depth := long_depth(RandomScale(0.01), SIDE)(image)).all()
    assert depth.shape == (height, LENGTH)


@pytest.mark.parametrize(("call", "factor"), [(4, 0.0), (4, -1.0), (1, -1.0), (7, np.nan)])
def test_tiles_without_scale_are_replaced_by_the_whole(call: int, factor: float) -> None:
    """One estimate is flat, or inverted: its neighbours and the whole replace it."""
    true = truth()
    depth = long_depth(RandomScale(0.01, spoil={call: factor}), SIDE)(painted(true))
    assert rmse(depth, true) < 0.03


def test_fits_are_exact_and_failed_tiles_come_from_the_whole() -> None:
    true = truth()
    columns = [np.arange(start, start + SIDE) for start in slices(LENGTH, SIDE, SIDE // 2)]
    tiles = [np.float32((3 + i) * true[:, tile_range] - 7 * i) for i, tile_range in enumerate(columns)]
    tiles[2] = np.random.default_rng(0).normal(size=tiles[2].shape).astype(np.float32)
    whole = 5 * true + 2
    for fit, tile_range in zip(fit_tiles(tiles, columns, whole), columns, strict=True):
        assert np.abs(fit - whole[:, tile_range]).max() < 1e-4


def test_an_error_in_one_estimate_does_not_change_the_scale() -> None:
    true = truth()
    columns = [np.arange(start, start + SIDE) for start in slices(LENGTH, SIDE, SIDE // 2)]
    whole = true.copy()
    whole[SIDE // 3 :, 100:110] = 1.5  # a near object that does not exist
    fits = fit_tiles([true[:, tile_range] for tile_range in columns], columns, whole)
    assert max(np.abs(tile - true[:, tile_range]).max() for tile, tile_range in zip(fits, columns, strict=True)) < 0.05


def test_a_flat_guide_has_flat_depth() -> None:
    depth = long_depth(RandomScale(), SIDE)(np.full((SIDE, LENGTH, 3), 77, np.uint8))
    assert np.ptp(depth) < 1e-3


def test_tile_borders_have_no_steps() -> None:
    """Differences across tile borders equal those of other columns, after subtracting the truth."""
    starts = slices(LENGTH, SIDE, int(SIDE * OVERLAP))
    borders = sorted({at for start in starts for at in (start, start + SIDE)} - {0, LENGTH})
    at_borders, elsewhere = [], []
    for seed in range(12):
        depth = long_depth(RandomScale(0.01, seed), SIDE)(painted(truth(seed=seed)))
        across = np.abs(np.diff(depth / depth.std() - truth(seed=seed) / truth(seed=seed).std(), axis=1)).mean(axis=0)
        at_borders.append(across[np.array(borders) - 1].mean())
        elsewhere.append(np.delete(across, np.array(borders) - 1).mean())
    assert np.mean(at_borders) / np.mean(elsewhere) < 1.1


def test_rings_close() -> None:
    true = truth(seed=5)
    depth = long_depth(RandomScale(), SIDE, wrap=True)(painted(true))
    away = depth / depth.std() - true / true.std()
    inside = np.abs(np.diff(away, axis=1)).mean(axis=0)
    assert np.abs(away[:, 0] - away[:, -1]).mean() < 2 * inside.mean()
    rolled = long_depth(RandomScale(seed=1), SIDE, wrap=True)(painted(np.roll(true, 77, axis=1)))
    assert rmse(np.roll(rolled, -77, axis=1), true) < 0.002


def test_a_tall_ring_closes_sideways() -> None:
    """Errors near the ends of rows do not appear, because no estimate ends at the ends of the ring."""

    def dark_ends(image: np.ndarray) -> np.ndarray:
        depth = image[..., 0].astype(np.float32)
        depth[:, :2] = depth[:, -2:] = -500
        return depth

    image = painted(cv2.resize(truth(2 * SIDE), (SIDE, 3 * SIDE), interpolation=cv2.INTER_AREA))
    assert np.ptp(long_depth(dark_ends, SIDE, wrap=True)(image)) < 256
    assert np.ptp(long_depth(dark_ends, SIDE)(image)) > 500


def loud(network: torch.nn.Module) -> torch.nn.Module:
    """Scale a decoder so that its random depth varies over the image; return the network."""
    for name, weight in network.named_parameters():
        if any(part in name for part in ("neck", "head", "fusion")):
            weight.data.mul_(LOUD)
    return network


def dpt(folder: Path) -> tuple[int, int]:
    """Write a tiny DPT on its own ViT, with an input of 64 x 64 px; return the size of its output."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    heads = {"fusion_hidden_size": 8, "neck_hidden_sizes": [4, 8, 8, 8], "backbone_out_indices": [0, 1, 2, 3]}
    config = DPTConfig(**sizes, **heads, image_size=64, patch_size=16, is_hybrid=False)
    loud(DPTForDepthEstimation(config)).save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return 64, 64


def depth_pro(folder: Path) -> tuple[int, int]:
    """Write a tiny DepthPro, with an input of 32 x 32 px; return the size of its output, four times larger."""
    vit = {"model_type": "dinov2", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    vit |= {"intermediate_size": 32, "patch_size": 4, "image_size": 16}
    scales = {"scaled_images_ratios": [0.5, 1], "scaled_images_overlap_ratios": [0.0, 0.2]}
    config = DepthProConfig(
        **scales,
        fusion_hidden_size=8,
        patch_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[8, 8],
        image_model_config=vit,
        patch_model_config=vit,
        fov_model_config=vit,
    )
    loud(DepthProForDepthEstimation(config)).save_pretrained(folder)
    DepthProImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return 128, 128


def zoe_depth(folder: Path) -> tuple[int, int]:
    """Write a tiny ZoeDepth, trained at 64 px, for any aspect ratio; return the size of its output for 200 x 60 px."""
    beit = {"model_type": "beit", "num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 2}
    beit |= {"intermediate_size": 32, "patch_size": 16, "image_size": 64, "out_indices": [1, 2, 3, 4]}
    config = ZoeDepthConfig(
        backbone_config=beit | {"reshape_hidden_states": False},
        neck_hidden_sizes=[4, 8, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=8,
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.1, "max_depth": 10.0, "name": "nyu"}],
    )
    loud(ZoeDepthForDepthEstimation(config)).save_pretrained(folder)
    ZoeDepthImageProcessor(size={"height": 64, "width": 96}, ensure_multiple_of=32).save_pretrained(folder)
    return 64, 224


@pytest.mark.parametrize("write", [dpt, depth_pro, zoe_depth])
def test_real_formats_run_on_wide_guides(write: Callable[[Path], tuple[int, int]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    answer = write(tmp_path)
    noise = np.tile(np.random.default_rng(0).integers(0, 256, (6, 20, 3), np.uint8), (1, 3, 1))
    ring = cv2.resize(noise, (600, 60), interpolation=cv2.INTER_CUBIC)[:, 200:400]
    guide = Image.fromarray(ring)
    estimate = TransformersDepth(str(tmp_path), Runtime(offline=True), "auto")
    assert estimate(ring).shape == answer
    for loop in (False, True):
        depth = preprocess.load("depth", str(tmp_path), offline=True, loop=loop)(guide)
        grey = np.asarray(depth.convert("L"), np.float32)
        assert depth.size == guide.size
        assert grey.min() < 50 and grey.max() > 200
