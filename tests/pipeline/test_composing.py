"""Pictures that start from another one: as much of it as the strength leaves, on any canvas, by the same sync."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Img2ImgConfig, Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, InputError
from synccontrol.io import masks
from tests.conftest import CELL, WINDOW

STEPS = SamplingConfig(steps=4, guidance_scale=3.0).complete()
OFF = SyncConfig(weight=0.0).complete()
WINDOWS = WindowConfig(stride=WINDOW // 2).complete()


@pytest.fixture(scope="module")
def montage(make_pipe: Callable[..., Any]) -> Montage:
    return Montage.from_pipe(make_pipe(controls=0))


@pytest.fixture(scope="module")
def tiny() -> Montage:
    return Montage.from_pretrained("tiny")  # its autoencoder gives back what it was given


def waves(width: int, height: int) -> Image.Image:
    """Returns a smooth picture, closed at its left and right."""
    y, x = np.mgrid[0:height, 0:width]
    turn = 2 * np.pi / width
    picture = np.stack([np.sin(turn * x), np.cos(2 * turn * x), np.sin(y / 40)], axis=-1)
    return Image.fromarray((127.5 + 80 * picture).astype(np.uint8))


def apart(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        ((500, 262), WindowConfig(stride=16).complete()),
        ((512, 256), WindowConfig(stride=16, loop=True).complete()),
        ((832, 416), WindowConfig(stride=16, projection="equirectangular").complete()),
    ],
)
def test_the_less_is_drawn_anew_the_more_is_kept(tiny: Montage, size: tuple[int, int], windows: WindowConfig) -> None:
    start = waves(*size)

    def draw(strength: float) -> Image.Image:
        sampling = SamplingConfig(steps=4, guidance_scale=1.0, scheduler="ddim").complete()
        img2img = Img2ImgConfig(strength=strength)
        return tiny("noon", init_image=start, sampling=sampling, windows=windows, sync=OFF, img2img=img2img).image

    little = draw(0.25)
    assert little.size == size
    assert apart(little, start) < 20
    if windows.projection == "flat":
        assert apart(draw(1.0), start) > 2 * apart(little, start)


def test_sync_acts_where_its_steps_are_left(montage: Montage) -> None:
    start, given = waves(128, 64), {"sampling": STEPS, "windows": WINDOWS}

    def draw(strength: float, steps: int) -> Tensor:
        sync = SyncConfig(weight=0.0, adain=1.0, adain_steps=steps).complete()
        return montage("x", init_image=start, sync=sync, img2img=Img2ImgConfig(strength=strength), **given).latents

    assert torch.equal(draw(0.5, 2), draw(0.5, 0))  # of the four steps the first two are left out
    assert not torch.equal(draw(0.5, 3), draw(0.5, 0))
    assert torch.equal(draw(1.0, 4), draw(1.0, 9))


def test_what_is_left_of_sync() -> None:
    whole = SyncConfig(weight=20.0, decay=0.5, steps=5, every=2, adain=1.0, adain_steps=3).complete()
    left = whole.later(1)
    for index in range(8):
        assert left.due(index) == whole.due(index + 1) and left.adain_due(index) == whole.adain_due(index + 1)
        assert left.weight_at(index) == whole.weight_at(index + 1)
    assert [index for index in range(8) if left.due(index)] == [1, 3]
    assert left.active and whole.later(3).perceptual and not whole.later(5).active


def test_settings_say_how_it_started(montage: Montage) -> None:
    found = montage("x", init_image=waves(128, 64), sampling=STEPS, windows=WINDOWS, sync=OFF).config
    assert (found["width"], found["height"], found["strength"]) == (128, 64, 0.6)
    plain = montage("x", width=128, height=64, sampling=STEPS, windows=WINDOWS, sync=OFF).config
    assert plain["strength"] is None and plain["init_image"] is None


def test_what_makes_no_sense_is_one_line(montage: Montage) -> None:
    given: dict[str, Any] = {"init_image": waves(128, 64), "sampling": STEPS, "windows": WINDOWS}
    with pytest.raises(ConfigError, match=r"strength 0.2 leaves none of 4 steps; use at least 0.25"):
        montage("x", img2img=Img2ImgConfig(strength=0.2), **given)
    with pytest.raises(InputError, match="the init image is 128x64, another aspect"):
        montage("x", width=192, height=64, **given)
    with pytest.raises(ConfigError, match="strength is 0"):
        Img2ImgConfig(strength=0.0)
    with pytest.raises(ConfigError, match="above 0, up to 1"):
        Img2ImgConfig(strength=1.5)


def masked(width: int, height: int, left: int, right: int) -> Image.Image:
    mask = np.zeros((height, width), np.uint8)
    mask[:, left:right] = 255
    return Image.fromarray(mask)


def test_outside_of_a_mask_not_one_pixel_changes_and_kept_windows_cost_nothing(montage: Montage) -> None:
    start, mask, asked = waves(500, 67), masked(500, 67, 100, 190), []
    hook = montage.denoiser.pipe.unet.register_forward_pre_hook(lambda *_: asked.append(1))
    windows = WindowConfig(stride=WINDOW // 2, batch=1).complete()
    given: dict[str, Any] = {"init_image": start, "sampling": STEPS, "windows": windows, "sync": OFF}
    found = np.asarray(montage("x", mask=mask, **given).image)
    partly = len(asked)
    montage("x", **given, img2img=Img2ImgConfig(strength=1.0))
    hook.remove()
    assert 0 < partly < (len(asked) - partly) / 2
    changed = (found != np.asarray(start)).any(-1)
    assert changed[:, 108:182].all() or changed[:, 108:182].mean() > 0.9
    assert not changed[np.asarray(mask) == 0].any()


def test_grey_and_soft_masks_pass_over(montage: Montage) -> None:
    hard, soft = (masks.feather_mask(masked(64, 64, 16, 48), width, False) for width in (0, 8))
    assert set(np.unique(hard)) == {0.0, 1.0} and hard[0, 16:48].all()
    assert soft[32, 15] == 0 and 0 < soft[32, 17] < soft[32, 20] < 1 == soft[32, 30]
    half = masks.feather_mask(masked(64, 64, 16, 48).point(lambda value: value // 2), 0, False)
    assert half.max() == pytest.approx(127 / 255)
    ring = masks.feather_mask(masked(64, 64, 0, 16), 8, True)
    assert ring[32, 0] < 0.5 and masks.feather_mask(masked(64, 64, 0, 16), 8, False)[32, 0] == 1


@pytest.mark.parametrize(("extend", "left"), [("right 64", 0), ("left 64", 64), ("both 64", 32)])
@pytest.mark.parametrize("loop", [False, True])
def test_a_picture_grows_and_stays(montage: Montage, extend: str, left: int, loop: bool) -> None:
    start = waves(160, 64)
    result = montage(
        "x",
        init_image=start,
        sampling=STEPS,
        windows=WindowConfig(stride=WINDOW // 2, loop=loop).complete(),
        sync=OFF,
        img2img=Img2ImgConfig(outpaint=extend),
    )
    assert result.image.size == (224, 64) and result.config["strength"] == 1.0
    overlap = WINDOW * CELL // 8
    kept = np.asarray(result.image)[:, left : left + 160][:, overlap:-overlap]
    assert np.array_equal(kept, np.asarray(start)[:, overlap:-overlap])
    right, far = (
        left + 160,
        left == 64 and not loop,
    )  # the picture's right end is the canvas's, and nothing is new there
    assert np.array_equal(np.asarray(result.image)[:, right - overlap : right], np.asarray(start)[:, -overlap:]) == far


def test_masks_and_extensions_that_make_no_sense_are_one_line(montage: Montage) -> None:
    given: dict[str, Any] = {"init_image": waves(128, 64), "sampling": STEPS, "windows": WINDOWS, "sync": OFF}
    with pytest.raises(InputError, match="the mask is all black"):
        montage("x", mask=masked(128, 64, 0, 0), **given)
    with pytest.raises(InputError, match="the mask is 100x64, another aspect"):
        montage("x", mask=masked(100, 64, 0, 9), **given)
    with pytest.raises(ConfigError, match="exclude each other"):
        montage("x", mask=masked(128, 64, 0, 64), img2img=Img2ImgConfig(outpaint="right 64"), **given)
    with pytest.raises(ConfigError, match="needs an init image"):
        montage("x", mask=masked(128, 64, 0, 64), width=128, height=64)
    with pytest.raises(ConfigError, match="img2img has settings for an init image, and there is none"):
        montage("x", img2img=Img2ImgConfig(strength=0.5), width=128, height=64)
    for wrong in ("up 64", "right", "right -3", "right 0"):
        with pytest.raises(ConfigError, match=r"side to outpaint|write a side and pixels"):
            Img2ImgConfig(outpaint=wrong)
