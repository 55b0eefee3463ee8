"""Depth of long guides: one scale whatever the estimator says of each tile, no steps, closed rings, real formats."""

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
from preprocess.wide.wide_depth import OVERLAP, fitted, long_depth

SIDE, LENGTH = 48, 240  # px
LOUD = 8.0  # factor on random decoders, so that their depth varies over the picture


def truth(length: int = LENGTH, seed: int = 0) -> np.ndarray:
    """Returns nearness (SIDE, length) of a ring: hills under a flat sky."""
    rng = np.random.default_rng(seed)
    x, y = np.arange(length), np.arange(SIDE)[:, None]
    ridge = SIDE * (0.5 + 0.15 * sum(np.sin(2 * np.pi * (k * x / length + rng.random())) for k in (2, 5)))
    return ((y - ridge) / SIDE).clip(0, 1).astype(np.float32)


def painted(nearness: np.ndarray) -> np.ndarray:
    """Returns the picture (H, W, 3) whose grey is the nearness."""
    return np.repeat(np.rint(255 * nearness).astype(np.uint8)[..., None], 3, axis=2)


class Fickle:
    """Reads the nearness off a painted picture squashed to SIDE x SIDE, in another scale and shift at every call."""

    def __init__(self, noise: float = 0.0, seed: int = 0, spoil: dict[int, float] | None = None) -> None:
        self.rng, self.noise, self.spoil = np.random.default_rng(seed), noise, spoil or {}
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        scale = self.spoil.get(len(self.calls), 1.0) * np.exp(self.rng.uniform(-2, 2))
        self.calls.append(picture.shape)
        seen = cv2.resize(picture[..., 0].astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) / 255
        noisy = seen + self.noise * self.rng.standard_normal(seen.shape)
        return (scale * noisy + self.rng.uniform(-50, 50)).astype(np.float32)


def rmse(found: np.ndarray, true: np.ndarray) -> float:
    """Returns the root mean square error after one scale and one shift."""
    design = np.stack([found.ravel(), np.ones(found.size)], axis=1).astype(float)
    best = np.linalg.lstsq(design, true.ravel(), rcond=None)[0]
    assert best[0] > 0
    return float(np.sqrt(np.mean((design @ best - true.ravel()) ** 2)))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    length=st.integers(1, 400), size=st.integers(1, 60), share=st.integers(0, 59), wrap=st.booleans(), data=st.data()
)
def test_slices_cover_all_with_the_least_count(
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
    if not wrap:  # one slice fewer would overlap less
        assert (len(starts) - 2) * (size - overlap) < length - size


@settings(deadline=None, derandomize=True, max_examples=10)
@given(seed=st.integers(0, 1000), noise=st.sampled_from([0.0, 0.01]), wrap=st.booleans())
def test_tiles_of_any_scale_become_one_map(seed: int, noise: float, wrap: bool) -> None:
    true = truth(seed=seed)
    found = long_depth(Fickle(noise, seed), SIDE, wrap)(painted(true))
    assert found.shape == true.shape
    assert rmse(found, true) < 0.002 + noise
    assert rmse(cv2.resize(Fickle(0, seed)(painted(true)), true.shape[::-1]), true) > 0.004


@pytest.mark.parametrize("tall", [False, True])
def test_tall_guides_are_seen_upright(tall: bool) -> None:
    """What an estimator makes of rows and columns must not change places."""

    def slanted(picture: np.ndarray) -> np.ndarray:
        rows = np.linspace(0, 2, picture.shape[0])[:, None]
        return (picture[..., 0] / 255 + rows).astype(np.float32)

    true = truth()
    picture = painted(true.T if tall else true)
    found = long_depth(slanted, SIDE)(picture)
    assert found.shape == picture.shape[:2]
    rows = np.tile(np.linspace(0, 2, SIDE)[:, None], LENGTH)
    if not tall:
        assert rmse(found, true + rows) < 0.01
    else:  # rows of a tile say nothing of the rows of the whole; the columns are right, and not slanted
        assert np.abs(np.diff(found.mean(axis=0) - picture[..., 0].mean(axis=0) / 255)).max() < 0.02


def test_a_tall_guide_is_a_wide_one_turned() -> None:
    found = long_depth(Fickle(), SIDE)(painted(truth().T))
    assert found.shape == (LENGTH, SIDE)
    assert rmse(found, truth().T) < 0.002


def test_looks_are_square_and_a_guide_near_a_square_is_seen_once() -> None:
    estimate = Fickle()
    long_depth(estimate, SIDE)(painted(truth()))
    assert estimate.calls[0] == (SIDE, LENGTH, 3)
    assert set(estimate.calls[1:]) == {(SIDE, SIDE, 3)}
    assert len(estimate.calls) == 1 + len(slices(LENGTH, SIDE, int(SIDE * OVERLAP)))
    square = Fickle()
    long_depth(square, SIDE)(painted(truth(SIDE * 3 // 2)))
    assert square.calls == [(SIDE, SIDE * 3 // 2, 3)]


def test_large_guides_are_looked_at_in_the_size_of_training() -> None:
    estimate = Fickle()
    large = cv2.resize(painted(truth()), (LENGTH * 20, SIDE * 20), interpolation=cv2.INTER_LINEAR)
    found = long_depth(estimate, SIDE)(large)
    assert found.shape == (SIDE, LENGTH)
    assert max(estimate.calls) == (SIDE, LENGTH, 3)
    assert rmse(found, truth()) < 0.004


@pytest.mark.parametrize("height", [1, 2, 5, 15])
def test_guides_of_few_rows(height: int) -> None:
    picture = painted(truth())[:height] + np.arange(height, dtype=np.uint8)[:, None, None]
    assert np.isfinite(found := long_depth(Fickle(0.01), SIDE)(picture)).all()
    assert found.shape == (height, LENGTH)


@pytest.mark.parametrize(("spoilt", "factor"), [(4, 0.0), (4, -1.0), (1, -1.0), (7, np.nan)])
def test_a_tile_without_scale_gives_way_to_the_whole(spoilt: int, factor: float) -> None:
    """The fourth look is flat, or near and far are exchanged in it: its neighbours and the whole stand in for it."""
    true = truth()
    found = long_depth(Fickle(0.01, spoil={spoilt: factor}), SIDE)(painted(true))
    assert rmse(found, true) < 0.03


def test_fits_are_exact_and_whatever_fails_is_cut_from_the_whole() -> None:
    true = truth()
    columns = [np.arange(start, start + SIDE) for start in slices(LENGTH, SIDE, SIDE // 2)]
    tiles = [np.float32((3 + i) * true[:, inside] - 7 * i) for i, inside in enumerate(columns)]
    tiles[2] = np.random.default_rng(0).normal(size=tiles[2].shape).astype(np.float32)
    whole = 5 * true + 2
    for brought, inside in zip(fitted(tiles, columns, whole), columns, strict=True):
        assert np.abs(brought - whole[:, inside]).max() < 1e-4


def test_something_that_one_look_misjudges_does_not_bend_the_scale() -> None:
    true = truth()
    columns = [np.arange(start, start + SIDE) for start in slices(LENGTH, SIDE, SIDE // 2)]
    whole = true.copy()
    whole[SIDE // 3 :, 100:110] = 1.5  # a near thing that is not there
    brought = fitted([true[:, inside] for inside in columns], columns, whole)
    assert max(np.abs(tile - true[:, inside]).max() for tile, inside in zip(brought, columns, strict=True)) < 0.05


def test_a_flat_guide_is_flat() -> None:
    found = long_depth(Fickle(), SIDE)(np.full((SIDE, LENGTH, 3), 77, np.uint8))
    assert np.ptp(found) < 1e-3


def test_no_step_where_tiles_begin_and_end() -> None:
    """Differences across tile borders are those of other columns, after the truth's own are taken away."""
    starts = slices(LENGTH, SIDE, int(SIDE * OVERLAP))
    borders = sorted({at for start in starts for at in (start, start + SIDE)} - {0, LENGTH})
    at_borders, elsewhere = [], []
    for seed in range(12):
        found = long_depth(Fickle(0.01, seed), SIDE)(painted(truth(seed=seed)))
        across = np.abs(np.diff(found / found.std() - truth(seed=seed) / truth(seed=seed).std(), axis=1)).mean(axis=0)
        at_borders.append(across[np.array(borders) - 1].mean())
        elsewhere.append(np.delete(across, np.array(borders) - 1).mean())
    assert np.mean(at_borders) / np.mean(elsewhere) < 1.1


def test_rings_close() -> None:
    true = truth(seed=5)
    found = long_depth(Fickle(), SIDE, wrap=True)(painted(true))
    away = found / found.std() - true / true.std()
    inside = np.abs(np.diff(away, axis=1)).mean(axis=0)
    assert np.abs(away[:, 0] - away[:, -1]).mean() < 2 * inside.mean()
    rolled = long_depth(Fickle(seed=1), SIDE, wrap=True)(painted(np.roll(true, 77, axis=1)))
    assert rmse(np.roll(rolled, -77, axis=1), true) < 0.002


def test_a_tall_ring_closes_sideways() -> None:
    """An estimator that is wrong near the ends of its rows does not show it, for no look ends where the ring does."""

    def dark_ends(picture: np.ndarray) -> np.ndarray:
        found = picture[..., 0].astype(np.float32)
        found[:, :2] = found[:, -2:] = -500
        return found

    picture = painted(cv2.resize(truth(2 * SIDE), (SIDE, 3 * SIDE), interpolation=cv2.INTER_AREA))
    assert np.ptp(long_depth(dark_ends, SIDE, wrap=True)(picture)) < 256
    assert np.ptp(long_depth(dark_ends, SIDE)(picture)) > 500


def loud(network: torch.nn.Module) -> torch.nn.Module:
    """Returns the network with a decoder whose random depth varies over the picture."""
    for name, weight in network.named_parameters():
        if any(part in name for part in ("neck", "head", "fusion")):
            weight.data.mul_(LOUD)
    return network


def dpt(folder: Path) -> tuple[int, int]:
    """Writes a tiny DPT on its own ViT, which takes 64 x 64 px only; returns what it makes of that."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    heads = {"fusion_hidden_size": 8, "neck_hidden_sizes": [4, 8, 8, 8], "backbone_out_indices": [0, 1, 2, 3]}
    config = DPTConfig(**sizes, **heads, image_size=64, patch_size=16, is_hybrid=False)
    loud(DPTForDepthEstimation(config)).save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return 64, 64


def depth_pro(folder: Path) -> tuple[int, int]:
    """Writes a tiny DepthPro, which takes 32 x 32 px only; returns the size of its answer, four times larger."""
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
    """Writes a tiny ZoeDepth, trained at 64 px and taking any aspect; returns what it makes of 200 x 60 px."""
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
        found = preprocess.load("depth", str(tmp_path), offline=True, loop=loop)(guide)
        grey = np.asarray(found.convert("L"), np.float32)
        assert found.size == guide.size
        assert grey.min() < 50 and grey.max() > 200
