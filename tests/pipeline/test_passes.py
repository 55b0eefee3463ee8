"""Pictures that are drawn rough or small first: what is where stays, and the cost and the settings are told."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HeunDiscreteScheduler, KDPM2DiscreteScheduler
from PIL import Image

from synccontrol import (
    ImageSpec,
    Img2ImgConfig,
    Montage,
    Region,
    SamplingConfig,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
)
from synccontrol.errors import ConfigError
from synccontrol.pipeline.stages import draft_sizes, plan_stages
from synccontrol.spec.settings import UPSCALE, Geometry
from tests.conftest import CELL, WINDOW

GEOMETRY = Geometry(window=(WINDOW, WINDOW), cell=CELL, channels=4)
FLAT, RING = WindowConfig(stride=4).complete(), WindowConfig(stride=4, loop=True).complete()
SPHERE = WindowConfig(stride=4, projection="equirectangular").complete()
STEPS = SamplingConfig(steps=4, guidance_scale=3.0).complete()
OFF = SyncConfig(weight=0.0).complete()


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
        ({"tall_canvas": UPSCALE}, (64, 200), FLAT, False, ((64, 200),)),
        ({"tall_canvas": UPSCALE}, (100, 400), FLAT, False, ((64, 256), (100, 400))),
        ({"tall_canvas": UPSCALE}, (200, 600), FLAT, False, ((64, 192), (128, 384), (200, 600))),
        ({"tall_canvas": UPSCALE, "upscale": 2}, (128, 400), FLAT, False, ((64, 200), (128, 400), (256, 800))),
        ({"tall_canvas": UPSCALE}, (128, 424), RING, False, ((64, 208), (128, 424))),
        ({"tall_canvas": UPSCALE}, (128, 256), SPHERE, False, ((128, 256),)),
        ({"tall_canvas": UPSCALE}, (128, 400), FLAT, True, ((128, 400),)),
        ({"tall_canvas": UPSCALE}, (400, 128), FLAT, False, ((400, 128),)),
    ],
)
def test_sizes_double_up_to_the_last(
    config: dict[str, Any], size: tuple[int, int], windows: WindowConfig, starts: bool, sizes: tuple[Any, ...]
) -> None:
    assert UpscaleConfig(**config).sizes(size, GEOMETRY, windows, starts) == sizes


def test_what_is_drawn_over_is_the_enlarged_picture_of_the_first_pass(
    montage: Montage, make_map: Callable[..., Image.Image]
) -> None:
    guide = make_map(160, 64)
    given: dict[str, Any] = {"sampling": STEPS, "windows": FLAT, "sync": OFF, "seed": 3}
    upscale = UpscaleConfig(upscale=2, upscale_strength=0.25)
    steps = list(montage.steps("x", guide, upscale=upscale, **given))
    assert [(step.index, step.steps) for step in steps] == [(i, 5) for i in range(5)]
    assert [step.result is None for step in steps] == [True] * 4 + [False]
    result = steps[-1].result
    assert result is not None and result.image.size == (320, 128)
    assert (result.config["width"], result.config["height"], result.config["upscale"]) == (160, 64, 2)
    assert ImageSpec.from_settings({**result.config, "control_map": []}).upscale == upscale
    first = montage("x", guide, **given).image.resize((320, 128), Image.Resampling.LANCZOS)
    by_hand = montage(
        "x",
        guide.resize((320, 128), Image.Resampling.LANCZOS),
        init_image=first,
        img2img=Img2ImgConfig(strength=0.25, color_match="kept"),
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
        sync=SyncConfig(weight=0.0, anchor=5).complete(),
        upscale=UpscaleConfig(tall_canvas=UPSCALE, upscale_strength=0.25),
    )
    assert result.image.size == (400, 128) and result.config["region"] == [str(region) for region in regions]
    assert any("200x64 is generated first and then upscaled" in note for note in result.notes)
    assert regions[0].relative(128, 400).box(64, 200) == (0, 0, 80, 64)


@pytest.mark.parametrize(
    ("size", "windows", "sizes"),
    [
        ((64, 64), FLAT, ()),
        ((64, 100), FLAT, ((64, 64),)),
        ((64, 256), FLAT, ((64, 64),)),
        ((64, 576), FLAT, ((64, 64), (64, 192))),
        ((64, 1024), FLAT, ((64, 64), (64, 256))),
        ((256, 128), FLAT, ((64, 64),)),
        ((256, 1024), FLAT, ((64, 64), (128, 256))),
        ((64, 800), RING, ((64, 64), (64, 224))),  # 226.3 px are no whole cells
        ((128, 256), SPHERE, ()),
    ],
)
def test_a_scaffold_grows_from_one_window(size: tuple[int, int], windows: WindowConfig, sizes: tuple[Any, ...]) -> None:
    assert draft_sizes(size, GEOMETRY, windows) == sizes


@pytest.mark.parametrize(("count", "few"), [(4, 4), (8, 6), (14, 7)])
def test_a_scaffold_is_all_of_the_canvas_in_one_window_stretched_and_drawn_over(
    montage: Montage, make_map: Callable[..., Image.Image], count: int, few: int
) -> None:
    guide = make_map(256, 64)
    sync = SyncConfig(weight=0.0, draft_strength=0.5, anchor=3).complete()
    given: dict[str, Any] = {"windows": FLAT, "seed": 3}
    own, rougher = ({"sampling": SamplingConfig(steps=steps, guidance_scale=3.0).complete()} for steps in (count, few))
    steps, total = list(montage.steps("x", guide, sync=sync, **own, **given)), few + count // 2
    assert [(step.index, step.steps) for step in steps] == [(i, total) for i in range(total)]
    work = 7 * (count // 2)  # of seven windows over the rough one
    assert [step.done for step in steps[: few + 1]] == pytest.approx(
        [*(i / (few + work) for i in range(1, few + 1)), (few + 7) / (few + work)]
    )
    assert steps[-1].done == 1.0
    assert {step.preview(64).size for step in steps} == {(256, 64)}
    result = steps[-1].result
    assert result is not None and result.image.size == (256, 64) and result.config["draft_strength"] == 0.5
    assert result.config["anchor"] == 3 and result.config["strength"] is None
    rough = montage("x", guide.resize((64, 64), Image.Resampling.LANCZOS), sync=OFF, **rougher, **given).image
    start, over = rough.resize((256, 64), Image.Resampling.LANCZOS), Img2ImgConfig(strength=0.5)
    by_hand = montage("x", guide, init_image=start, img2img=over, sync=OFF, **own, **given).image
    assert np.array_equal(np.asarray(result.image), np.asarray(by_hand))
    at_once = montage("x", guide, sync=OFF, **own, **given).image
    assert not np.array_equal(np.asarray(result.image), np.asarray(at_once))


def test_sync_acts_in_the_same_part_of_a_rough_picture() -> None:
    sync = SyncConfig(draft_strength=0.8, steps=3, adain=1.0, adain_steps=9).complete()
    picture = ImageSpec(
        prompt="x", height=64, width=1024, sampling=SamplingConfig(steps=18).complete(), windows=FLAT, sync=sync
    )
    first, stretched, own = plan_stages(picture, (64, 1024), GEOMETRY, has_init_image=False)
    for rough in (first, stretched):
        assert (rough.sampling.steps, rough.sync.steps, rough.sync.adain_steps, rough.is_draft) == (9, 2, 5, True)
    assert (own.sampling, own.sync, own.is_draft) == (picture.sampling, sync, False)
    assert [one.skipped for one in (first, stretched, own)] == [0, 2, 4]


def test_over_a_scaffold_sync_counts_from_the_first_step_that_is_drawn(montage: Montage) -> None:
    seen: list[int] = []

    def objective(images: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return (images - anchor).square().mean(dim=(1, 2, 3))

    sync = SyncConfig(weight=1.0, steps=1, draft_strength=0.5, objective=objective).complete()
    given: dict[str, Any] = {"height": 64, "width": 128, "sampling": STEPS, "windows": FLAT}
    montage("x", sync=sync, **given)
    assert len(seen) == 2  # of three windows two follow; the rough picture is one


def test_the_noise_that_is_given_is_that_of_the_canvas(montage: Montage) -> None:
    sync = SyncConfig(weight=0.0, draft_strength=0.5).complete()
    given: dict[str, Any] = {"height": 64, "width": 256, "sampling": STEPS, "windows": FLAT, "sync": sync}
    noise = torch.randn(1, 4, 8, 32, generator=torch.Generator().manual_seed(1))
    pictures = [np.asarray(montage("x", latents=one, **given).image) for one in (noise, -noise, None)]
    assert not any(np.array_equal(*pair) for pair in itertools.combinations(pictures, 2))
    with pytest.raises(ConfigError, match=r"latents have shape \(1, 4, 8, 8\); this canvas needs \(1, 4, 8, 32\)"):
        montage("x", latents=noise[..., :8], **given)


@pytest.mark.parametrize("windows", [1, 4])
def test_the_noise_over_a_rough_picture_is_made_stronger_and_that_of_the_rough_one_is_not(
    montage: Montage, windows: int
) -> None:
    size: dict[str, Any] = {"height": 64, "width": 64 * windows, "seed": 3}
    own: dict[str, Any] = {"sampling": STEPS, "windows": FLAT, "prompt": "x"}
    drawn = montage(**size, **own, sync=SyncConfig(weight=0.0, draft_strength=0.5, draft_noise=1.25).complete())
    assert drawn.config["draft_noise"] == 1.25
    rough = montage(**{**size, "width": 64}, **own, sync=OFF).image
    if windows > 1:  # else there is no scaffold, and nothing for its noise to be laid over
        noise = torch.randn(1, 4, 8, 8 * windows, generator=torch.Generator().manual_seed(3))
        start = rough.resize((64 * windows, 64), Image.Resampling.LANCZOS)
        over: dict[str, Any] = {"init_image": start, "img2img": Img2ImgConfig(strength=0.5), "latents": 1.25 * noise}
        rough = montage(**size, **own, **over, sync=OFF).image
    assert np.array_equal(np.asarray(drawn.image), np.asarray(rough))


@pytest.mark.parametrize(
    "given",
    [
        {"regions": [Region.parse("0-100%: a hill")]},
        {"init_image": Image.new("RGB", (256, 64), "red"), "img2img": Img2ImgConfig(strength=0.5)},
        {"height": 128, "windows": SPHERE},
    ],
)
def test_regions_spheres_and_other_pictures_have_no_scaffold(montage: Montage, given: dict[str, Any]) -> None:
    given = {"height": 64, "width": 256, "sampling": STEPS, "windows": FLAT, **given}
    on, off = (
        montage("x", sync=SyncConfig(weight=0.0, draft_strength=one).complete(), **given).image for one in (0.5, 0.0)
    )
    assert np.array_equal(np.asarray(on), np.asarray(off))


def test_a_tall_landscape_has_its_scaffold_first(montage: Montage) -> None:
    sync = SyncConfig(weight=0.0, draft_strength=0.5).complete()
    given: dict[str, Any] = {"sampling": STEPS, "windows": FLAT, "sync": sync}
    upscale = UpscaleConfig(tall_canvas=UPSCALE, upscale_strength=0.25)
    steps = list(montage.steps("x", height=128, width=400, upscale=upscale, **given))
    assert [tuple(step.x_t.shape[2:]) for step in steps] == [(8, 8)] * 4 + [(8, 25)] * 2 + [(16, 50)]
    assert [step.render().size for step in steps] == [(200, 64)] * 6 + [(400, 128)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"upscale": 3},
        {"upscale_strength": 0.0},
        {"upscale_strength": 2.0},
        {"upscale_color_match": "no"},
        {"tall_canvas": "no"},
    ],
)
def test_values_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        UpscaleConfig(**wrong)


@pytest.mark.parametrize("steps", [1, 2, 7, 49])
def test_one_step_at_least_is_drawn_over(steps: int) -> None:
    assert steps - UpscaleConfig(upscale_strength=0.01).stage_img2img(steps).skipped(steps) == 1
    assert 10 - UpscaleConfig().stage_img2img(10).skipped(10) == 3


@pytest.mark.parametrize("scheduler", [HeunDiscreteScheduler, KDPM2DiscreteScheduler])
def test_steps_of_schedulers_that_look_twice_are_counted_as_they_come(
    scheduler: Any, make_pipe: Callable[..., Any]
) -> None:
    pipe = make_pipe(controls=0)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    seen = []
    pipe.unet.register_forward_hook(lambda module, arguments, output: seen.append(len(output[0])))
    steps = list(
        Montage.from_pipe(pipe).steps(
            "x",
            height=64,
            width=64,
            sampling=SamplingConfig(steps=4, guidance_scale=1.0).complete(),
            windows=FLAT,
            sync=OFF,
            upscale=UpscaleConfig(upscale=2, upscale_strength=0.5),
        )
    )
    first = 2 * 4 - 1  # the last step looks once
    over = 2 * 2 - 1  # half of the four steps
    assert [step.index for step in steps] == list(range(first + over))
    assert {step.steps for step in steps} == {first + over}
    assert len(seen) == first + over * 3  # 128 px in windows of 64, stride 32, four windows a call: 9 windows
    assert [step.result is not None for step in steps] == [False] * (first + over - 1) + [True]
