"""The ControlNet for inpainting follows the image that is started from, as its stock pipeline does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Img2ImgConfig, Montage, SamplingConfig
from synccontrol.errors import ConfigError, InputError
from synccontrol.spec.settings import MODEL
from tests.conftest import CELL, CHANNELS, WINDOW, PipeFactory
from tests.families.test_img2img import NEGATIVE, OFF, PROMPT, STEPS, Case, sure, told
from tests.families.test_inpaint import assert_same, hole_mask

SIZE = WINDOW * CELL  # px
MapMaker = Callable[..., Image.Image]


def case_of(make_pipe: PipeFactory, controls: int) -> Case:
    return Case(sure(make_pipe(controls, torch.float32)), WINDOW, CELL, CHANNELS)


def condition(init: Image.Image, mask: Image.Image) -> Tensor:
    """Return the control image of lllyasviel/control_v11p_sd15_inpaint, as its card makes it."""
    image = np.array(init.convert("RGB")).astype(np.float32) / 255.0
    image[np.array(mask.convert("L")).astype(np.float32) / 255.0 > 0.5] = -1.0
    return torch.from_numpy(image[None].transpose(0, 3, 1, 2))


def ours(
    case: Case, controls: list[str], init: Image.Image, maps: Any, scheduler: str = MODEL
) -> tuple[Tensor, Tensor]:
    """Return the final latents, and which cells were drawn anew."""
    result = Montage.from_pipe(case.pipe, controls)(
        PROMPT,
        maps,
        negative_prompt=NEGATIVE,
        init_image=init,
        mask=hole_mask(case),
        latents=case.noise(),
        sampling=SamplingConfig(steps=STEPS, scheduler=scheduler, guidance_scale=4.0).complete(),
        sync=OFF,
        img2img=Img2ImgConfig(strength=0.5, mask_feather=0.0),
    )
    free = torch.from_numpy(np.asarray(hole_mask(case))[::CELL, ::CELL] > 0)
    return result.latents, free.expand_as(result.latents)


def theirs(case: Case, init: Image.Image, images: Any) -> Tensor:
    pipe = diffusers.StableDiffusionControlNetInpaintPipeline.from_pipe(case.pipe)
    given = {"image": init, "mask_image": hole_mask(case), "control_image": images, "guidance_scale": 4.0}
    scale = [1.0] * len(images) if isinstance(images, list) else 1.0
    latents: Tensor = pipe(PROMPT, **given, controlnet_conditioning_scale=scale, **told()).images
    return latents


def test_it_matches_the_stock_pipeline(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    case, init = case_of(make_pipe, 1), make_map(SIZE, SIZE, 1)
    shown = condition(init, hole_mask(case))
    found = ours(case, ["inpaint"], init, None)
    assert_same(found, theirs(case_of(make_pipe, 1), init, shown))
    black = ours(case, ["depth"], init, Image.fromarray((shown[0].clamp_min(0) * 255).byte().permute(1, 2, 0).numpy()))
    assert (black[0] - found[0]).abs().max() > 0.01  # a hole is darker than black


@pytest.mark.parametrize("controls", [["inpaint", "depth"], ["depth", "inpaint"]])
def test_it_combines_with_another_controlnet(make_pipe: PipeFactory, make_map: MapMaker, controls: list[str]) -> None:
    case, init, guide = case_of(make_pipe, 2), make_map(SIZE, SIZE, 1), make_map(SIZE, SIZE)
    depth = torch.from_numpy(np.asarray(guide).astype(np.float32) / 255).permute(2, 0, 1)[None]
    images = [condition(init, hole_mask(case)) if control == "inpaint" else depth for control in controls]
    assert_same(ours(case, controls, init, guide), theirs(case_of(make_pipe, 2), init, images))


def test_missing_inputs_are_named(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    one, two = (
        Montage.from_pipe(make_pipe(count), controls)
        for count, controls in ((1, ["inpaint"]), (2, ["depth", "inpaint"]))
    )
    with pytest.raises(ConfigError, match="follows the init image and its mask, and there is none"):
        one("x", height=SIZE, width=SIZE)
    with pytest.raises(InputError, match="1 control maps were given for 0 ControlNets beside that for inpaint"):
        one("x", make_map(SIZE, SIZE), init_image=make_map(SIZE, SIZE))
    with pytest.raises(InputError, match="0 control maps were given for 1 ControlNets beside that for inpaint"):
        two("x", init_image=make_map(SIZE, SIZE))
