"""Pictures that are drawn small first and then larger: what is where stays, and the cost and the settings are told."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synccontrol import ComposeConfig, EnlargeConfig, Montage, Picture, Region, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.config import Geometry
from synccontrol.enlarge import UPSCALE
from synccontrol.errors import ConfigError
from tests.conftest import CELL, WINDOW

GEOMETRY = Geometry(window=(WINDOW, WINDOW), cell=CELL, channels=4)
FLAT, RING = WindowConfig(stride=4), WindowConfig(stride=4, loop=True)
SPHERE = WindowConfig(stride=4, projection="equirectangular")
STEPS = SamplingConfig(steps=4, guidance_scale=3.0)
OFF = SyncConfig(weight=0.0)


@pytest.fixture(scope="module")
def montage(make_pipe: Callable[..., Any]) -> Montage:
    return Montage.from_pipe(make_pipe(controls=1))


@pytest.mark.parametrize(
    ("config", "size", "windows", "starts", "sizes"),
    [
        ({}, (64, 200), FLAT, False, ((64, 200),)),
        ({"upscale": 2}, (64, 200), FLAT, False, ((64, 200), (128, 400))),
        ({"upscale": 4}, (64, 200), FLAT, False, ((64, 200), (128, 400), (256, 800))),
        ({}, (128, 400), FLAT, False, ((128, 400),)),
        ({"tall": UPSCALE}, (64, 200), FLAT, False, ((64, 200),)),
        ({"tall": UPSCALE}, (100, 400), FLAT, False, ((64, 256), (100, 400))),
        ({"tall": UPSCALE}, (200, 600), FLAT, False, ((64, 192), (128, 384), (200, 600))),
        ({"tall": UPSCALE, "upscale": 2}, (128, 400), FLAT, False, ((64, 200), (128, 400), (256, 800))),
        ({"tall": UPSCALE}, (128, 424), RING, False, ((64, 208), (128, 424))),
        ({"tall": UPSCALE}, (128, 256), SPHERE, False, ((128, 256),)),
        ({"tall": UPSCALE}, (128, 400), FLAT, True, ((128, 400),)),
        ({"tall": UPSCALE}, (400, 128), FLAT, False, ((400, 128),)),
    ],
)
def test_sizes_double_up_to_the_last(
    config: dict[str, Any], size: tuple[int, int], windows: WindowConfig, starts: bool, sizes: tuple[Any, ...]
) -> None:
    assert EnlargeConfig(**config).sizes(size, GEOMETRY, windows, starts) == sizes


def test_what_is_drawn_over_is_the_enlarged_picture_of_the_first_pass(
    montage: Montage, make_map: Callable[..., Image.Image]
) -> None:
    guide = make_map(160, 64)
    given: dict[str, Any] = {"sampling": STEPS, "windows": FLAT, "sync": OFF, "seed": 3}
    enlarge = EnlargeConfig(upscale=2, upscale_strength=0.25)
    steps = list(montage.steps("x", guide, enlarge=enlarge, **given))
    assert [(step.index, step.steps) for step in steps] == [(i, 5) for i in range(5)]
    assert [step.result is None for step in steps] == [True] * 4 + [False]
    result = steps[-1].result
    assert result is not None and result.image.size == (320, 128)
    assert (result.config["width"], result.config["height"], result.config["upscale"]) == (160, 64, 2)
    assert Picture.from_settings({**result.config, "control_map": []}).enlarge == enlarge
    first = montage("x", guide, **given).image.resize((320, 128), Image.Resampling.LANCZOS)
    by_hand = montage(
        "x",
        guide.resize((320, 128), Image.Resampling.LANCZOS),
        init_image=first,
        compose=ComposeConfig(strength=0.25, colours="kept"),
        **given,
    ).image
    assert np.array_equal(np.asarray(result.image), np.asarray(by_hand))


def test_a_tall_landscape_is_one_row_first_and_its_regions_stay(montage: Montage) -> None:
    regions = [Region.parse("0-160: a red hill"), Region.parse("160-400: a blue sea")]
    result = montage(
        "",
        height=128,
        width=400,
        regions=regions,
        sampling=STEPS,
        windows=FLAT,
        sync=SyncConfig(weight=0.0, anchor=5),
        enlarge=EnlargeConfig(tall=UPSCALE, upscale_strength=0.25),
    )
    assert result.image.size == (400, 128) and result.config["region"] == [str(region) for region in regions]
    assert any("200x64 is drawn first and then upscaled" in note for note in result.notes)
    assert regions[0].relative(128, 400).box(64, 200) == (0, 0, 80, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"upscale": 3},
        {"upscale_strength": 0.0},
        {"upscale_strength": 2.0},
        {"upscale_colours": "no"},
        {"tall": "no"},
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EnlargeConfig(**wrong)


@pytest.mark.parametrize("steps", [1, 2, 7, 49])
def test_one_step_at_least_is_drawn_over(steps: int) -> None:
    assert steps - EnlargeConfig(upscale_strength=0.01).over(steps).skipped(steps) == 1
    assert 10 - EnlargeConfig().over(10).skipped(10) == 3
