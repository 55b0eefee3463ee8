"""One window of which a part is repainted is the stock inpainting pipeline, for every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synccontrol import Img2ImgConfig, Montage, SamplingConfig
from synccontrol.families.qwen_image import unpack
from synccontrol.models import loader
from tests.conftest import CELL, CHANNELS, WINDOW, PipeFactory
from tests.families import checkpoints_flow as flow
from tests.families import tiny_sdxl
from tests.families.test_img2img import NEGATIVE, OFF, PROMPT, STEPS, STOCK, Case, qwen, sure, told

TOLERANCE = 1e-4  # of the latents' deviation
MapMaker = Callable[..., Image.Image]


def hole_mask(case: Case) -> Image.Image:
    """Return a mask that is white in whole cells: the right half without its last row."""
    cells = np.zeros((case.window, case.window), np.uint8)
    cells[:-1, case.window // 2 :] = 255
    return Image.fromarray(cells.repeat(case.cell, 0).repeat(case.cell, 1))


def ours(case: Case, init: Image.Image, control_map: Image.Image | None, scheduler: str) -> tuple[Tensor, Tensor]:
    """Return the final latents, and which cells were drawn anew."""
    result = Montage.from_pipe(case.pipe)(
        PROMPT,
        control_map,
        negative_prompt=NEGATIVE,
        init_image=init,
        mask=hole_mask(case),
        latents=case.noise(),
        sampling=SamplingConfig(steps=STEPS, scheduler=scheduler, guidance_scale=4.0).complete(),
        sync=OFF,
        img2img=Img2ImgConfig(strength=0.5, mask_feather=0.0),
    )
    kept = np.asarray(hole_mask(case)) == 0
    assert np.array_equal(np.asarray(result.image)[kept], np.asarray(init)[kept])
    assert not np.array_equal(np.asarray(result.image), np.asarray(init))
    free = torch.from_numpy(np.asarray(hole_mask(case))[:: case.cell, :: case.cell] > 0)
    return result.latents, free.expand_as(result.latents)


def assert_same(found: tuple[Tensor, Tensor], theirs: Tensor) -> None:
    """Raise unless what was drawn anew agrees; the kept part is pasted, where stock pipelines decode its latents."""
    latents, free = found
    assert theirs.isfinite().all()
    assert (latents - theirs)[free].abs().max() < TOLERANCE * theirs.std()
    assert (latents - theirs)[~free].abs().max() < 0.1 * theirs.std()


@pytest.mark.parametrize("scheduler", STOCK)
def test_stable_diffusion(make_pipe: PipeFactory, make_map: MapMaker, scheduler: str) -> None:
    case = Case(sure(make_pipe(0, torch.float32)), WINDOW, CELL, CHANNELS)
    init = make_map(case.size, case.size, 1)
    pipe = diffusers.StableDiffusionInpaintPipeline.from_pipe(sure(make_pipe(0, torch.float32)))
    pipe.scheduler = getattr(diffusers, STOCK[scheduler]).from_config(pipe.scheduler.config)
    size = {"height": case.size, "width": case.size}
    theirs = pipe(PROMPT, image=init, mask_image=hole_mask(case), guidance_scale=4.0, **size, **told()).images
    assert_same(ours(case, init, None, scheduler), theirs)


def test_stable_diffusion_with_a_controlnet(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    case = Case(sure(make_pipe(1, torch.float32)), WINDOW, CELL, CHANNELS)
    init, guide = make_map(case.size, case.size, 1), make_map(case.size, case.size)
    pipe = diffusers.StableDiffusionControlNetInpaintPipeline.from_pipe(sure(make_pipe(1, torch.float32)))
    control = {"control_image": guide, "controlnet_conditioning_scale": 1.0, "guidance_scale": 4.0}
    theirs = pipe(PROMPT, image=init, mask_image=hole_mask(case), **control, **told()).images
    assert_same(ours(case, init, guide, "model"), theirs)


def test_stable_diffusion_xl(tmp_path: Path, make_map: MapMaker) -> None:
    folder = tiny_sdxl.save(tmp_path)
    case = Case(sure(tiny_sdxl.load(folder, 0)), WINDOW, CELL, CHANNELS)
    init = make_map(case.size, case.size, 1)
    pipe = diffusers.StableDiffusionXLInpaintPipeline.from_pipe(sure(tiny_sdxl.load(folder, 0)))
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    size = {"height": case.size, "width": case.size}
    theirs = pipe(PROMPT, image=init, mask_image=hole_mask(case), guidance_scale=4.0, **size, **told()).images
    assert_same(ours(case, init, None, "euler"), theirs)


def test_z_image(z_image: Path, make_map: MapMaker) -> None:
    def load() -> Any:
        return sure(loader.load(str(z_image), [], dtype=torch.float32, offline=True))

    case = Case(load(), flow.WINDOW, flow.CELL, flow.CHANNELS)
    init = make_map(case.size, case.size, 1)
    pipe = diffusers.ZImageInpaintPipeline.from_pipe(load())
    size = {"height": case.size, "width": case.size, "sigmas": np.linspace(1.0, 1 / STEPS, STEPS).tolist()}
    theirs = pipe(PROMPT, image=init, mask_image=hole_mask(case), guidance_scale=3.0, **size, **told()).images
    assert_same(ours(case, init, None, "model"), theirs)


def test_qwen_image(qwen_image: Path, make_map: MapMaker) -> None:
    case = Case(qwen(qwen_image), flow.WINDOW, flow.CELL, flow.CHANNELS)
    init = make_map(case.size, case.size, 1)
    pipe = diffusers.QwenImageInpaintPipeline.from_pipe(qwen(qwen_image))
    size = {"height": case.size, "width": case.size}
    theirs = pipe(PROMPT, image=init, mask_image=hole_mask(case), true_cfg_scale=4.0, **size, **told()).images
    assert_same(ours(case, init, None, "model"), unpack(theirs, case.window, case.window))
