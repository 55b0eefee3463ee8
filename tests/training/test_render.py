"""The renderer: exact depth, exact joints, tiles without a seam, the same scene for the same seed."""

import numpy as np
import pytest

from training.captions import caption
from training.render import BIOMES, TIMES, render

JOINTS_ON_THE_BODY = [1, 2, 5, 8, 9, 11, 12]  # neck, shoulders, hips, knees: well inside the figure


@pytest.mark.parametrize("biome", BIOMES)
def test_depth_is_black_in_the_sky_and_bright_at_the_feet(biome: str) -> None:
    scene = render(np.random.default_rng(3), biome=biome, people=0)
    assert scene.depth.min() >= 0 and scene.depth.max() <= 1
    assert np.all(scene.depth[0] == 0)
    assert scene.depth[-1].mean() > scene.depth[180].mean() > scene.depth[60].mean()


@pytest.mark.parametrize("seed", range(4))
def test_joints_lie_on_figures_that_are_nearer_than_what_is_behind_them(seed: int) -> None:
    alone = render(np.random.default_rng(seed), width=512, people=0, biome="grassland", time="noon")
    crowd = render(np.random.default_rng(seed), width=512, people=3, biome="grassland", time="noon")
    assert crowd.people.shape == (3, 18, 3)
    for person in crowd.people:
        x, y = np.floor(person[JOINTS_ON_THE_BODY, :2]).astype(int).T
        assert np.all(crowd.depth[y, x] > alone.depth[y, x])


@pytest.mark.parametrize("seed", range(5))
def test_tiles_meet_without_a_seam(seed: int) -> None:
    image = render(np.random.default_rng(seed), width=512, tileable=True, people=0).image.astype(float)
    steps = np.abs(np.diff(image, axis=1)).mean((0, 2))
    seam = np.abs(image[:, 0] - image[:, -1]).mean()
    assert seam <= steps.max()


def test_same_seed_same_scene() -> None:
    first, second = (render(np.random.default_rng(7), width=384) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.depth, second.depth)
    assert first.caption == second.caption


@pytest.mark.parametrize("people", [0, 1])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (192, 64), (256, 1000), (333, 500)])
def test_any_size(height: int, width: int, people: int) -> None:
    scene = render(np.random.default_rng(1), height=height, width=width, people=people)
    assert scene.image.shape == (height, width, 3)
    assert scene.depth.shape == (height, width)


def test_attributes_are_kept_and_named() -> None:
    scene = render(np.random.default_rng(0), time="night", biome="lake", clouds="clear", people=2)
    assert scene.attributes == {"time": "night", "biome": "lake", "clouds": "clear", "people": "two"}
    assert {render(np.random.default_rng(seed)).attributes["time"] for seed in range(40)} == set(TIMES)


def test_unknown_attribute_is_named() -> None:
    with pytest.raises(ValueError, match="no time='midnight'"):
        render(np.random.default_rng(0), time="midnight")


def test_some_captions_are_vague_and_most_are_not() -> None:
    rng = np.random.default_rng(0)
    attributes = {"time": "night", "biome": "city", "clouds": "clear", "people": "none"}
    words = [caption(rng, attributes) for _ in range(400)]
    named = sum(any(word in line for word in ("city", "town", "sky", "tall", "towers")) for line in words)
    assert 0.75 < named / len(words) < 0.97
    assert len(set(words)) > 200
