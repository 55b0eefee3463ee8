"""Normals from depth: planes in closed form, the meaning of colours, outlines, and rings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import preprocess
from preprocess.controls.normal import FAR, FOCAL, normal_map, normals_from
from tests.preprocess.test_depth import depth_anything
from tests.preprocess.test_depth import guide as noise_guide

HEIGHT = 96


def unit(normals: np.ndarray) -> np.ndarray:
    """Return normals of length 1."""
    normalised: np.ndarray = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    return normalised


def below(height: int = HEIGHT) -> np.ndarray:
    """Return the offset of every row from the centre (H, 1), px."""
    return (np.arange(height) - (height - 1) / 2)[:, None]


@given(st.floats(0, 80), st.floats(0.5, 20))
def test_a_tilted_plane_has_its_normal(tilt: float, distance: float) -> None:
    up, towards = np.sin(np.radians(tilt)), np.cos(np.radians(tilt))
    nearness = (up * below() / (FOCAL * HEIGHT) + towards) / distance
    nearness = np.repeat(nearness, 40, axis=1).astype(np.float32)
    is_visible = nearness > 0.05 / distance
    result = unit(normals_from(nearness.clip(0)))[5:-5]
    expected = unit(np.array([0, up, towards]))
    assert np.abs(result[is_visible[5:-5]] - expected).max() < 0.05 + 2 * FAR


def test_walls_have_the_normal_of_their_side() -> None:
    rises = np.tile(
        np.linspace(0.2, 0.8, 200, dtype=np.float32), (HEIGHT, 1)
    )  # nearer on the right, so the wall faces left
    result = unit(normals_from(rises))[20:-20, 20:-20]
    assert (result[..., 0] > 0.3).all() and np.abs(result[..., 1]).max() < 0.05
    assert np.allclose(unit(normals_from(rises[:, ::-1]))[20:-20, 20:-20, 0], -result[:, ::-1, 0], atol=1e-3)


def test_outlines_do_not_distort_the_normals_inside() -> None:
    nearness = np.full((HEIGHT, 160), 0.2, np.float32)
    nearness[:, 60:100] = 0.9
    result = unit(normals_from(nearness))
    assert (result[:, 62:98, 2] > 0.98).all() and (result[:, :58, 2] > 0.98).all()
    assert (result[..., 2] > 0.98).mean() > 0.95


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_flat_surfaces_face_the_viewer_and_are_blue(value: float) -> None:
    result = np.asarray(normal_map(normals_from(np.full((48, 80), value, np.float32)), (160, 96)))
    assert result.shape == (96, 160, 3)
    assert (np.abs(result.astype(int) - [128, 128, 255]) <= 1).all()


def test_colours_are_left_up_towards() -> None:
    for normal, colour in (([1, 0, 0], [255, 128, 128]), ([0, 2, 0], [128, 255, 128]), ([0, 0, 5], [128, 128, 255])):
        result = np.asarray(normal_map(np.tile(np.array(normal, np.float32), (4, 6, 1)), (6, 4))).astype(int)
        assert np.abs(result - colour).max() <= 1


def test_normals_are_independent_of_the_column() -> None:
    nearness = np.random.default_rng(0).random((HEIGHT, 30)).astype(np.float32)
    twice = unit(normals_from(np.concatenate([nearness] * 4, axis=1)))
    assert np.allclose(twice[:, 30:60], twice[:, 60:90], atol=1e-4)


def test_normals_of_any_depth_model_of_transformers(tmp_path: Path) -> None:
    folder = depth_anything(tmp_path, "relative")
    detect = preprocess.load("normal", folder, offline=True)
    result = np.asarray(detect(noise_guide())).astype(float)
    assert result.shape == (97, 301, 3)
    assert np.abs(np.linalg.norm(result / 127.5 - 1, axis=2) - 1).max() < 0.02
    assert result.std(axis=(0, 1)).min() > 1


def test_the_ground_faces_up_and_the_sky_faces_the_viewer() -> None:
    guide = Image.open("examples/guides/people.png").convert("RGB").crop((0, 0, 512, 256))
    result = np.asarray(preprocess.load("normal", "tiny", offline=True)(guide)).astype(int)
    assert np.abs(result[:60] - [128, 128, 255]).mean() < 15
    assert result[150:200, :, 1].mean() > 160 and abs(result[150:200, :, 0].mean() - 128) < 15
