"""UNets made for inpainting: one window is the stock pipeline, which shows them a mask and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from synccontrol import Img2ImgConfig, Montage, Region, Result, SamplingConfig, WindowConfig
from synccontrol.models import loader
from tests.conftest import CELL, CHANNELS, WINDOW, PipeFactory
from tests.families import tiny_sdxl
from tests.families.test_img2img import NEGATIVE, OFF, PROMPT, STEPS, STOCK, Case, assert_same, sure, told
from tests.families.test_inpaint import hole_mask

SIZE = WINDOW * CELL  # px
MapMaker = Callable[..., Image.Image]


def taught(pipe: Any, channels: int = 2 * CHANNELS + 1) -> Any:
    """Return a pipeline whose UNet takes so many channels."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet = UNet2DConditionModel.from_config(pipe.unet.config, in_channels=channels)
    weights = {key: weight for key, weight in pipe.unet.state_dict().items() if not key.startswith("conv_in")}
    unet.load_state_dict(weights, strict=False)
    pipe.unet = unet.to(pipe.unet.dtype).eval()
    return pipe


def sd(make_pipe: PipeFactory, controls: int = 0) -> Case:
    return Case(sure(taught(make_pipe(controls, torch.float32))), WINDOW, CELL, CHANNELS)


def ours(case: Case, init: Image.Image, control_map: Image.Image | None, strength: float, scheduler: str) -> Tensor:
    """Return the final latents of one window: first as the networks left them, whatever is pasted then."""
    latents = case.noise()
    if strength == 1:  # then stock pipelines draw noise alone first
        latents = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    montage = Montage.from_pipe(case.pipe)
    found = list(
        montage.steps(
            PROMPT,
            control_map,
            negative_prompt=NEGATIVE,
            init_image=init,
            mask=hole_mask(case),
            latents=latents,
            sampling=SamplingConfig(steps=STEPS, scheduler=scheduler, guidance_scale=4.0).complete(),
            sync=OFF,
            img2img=Img2ImgConfig(strength=strength, mask_feather=0.0),
        )
    )[-1]
    assert found.result is not None
    kept = np.asarray(hole_mask(case)) == 0
    assert np.array_equal(np.asarray(found.result.image)[kept], np.asarray(init)[kept])
    return found.x_t


def theirs(pipe: Any, case: Case, init: Image.Image, guide: Image.Image | None, strength: float) -> Tensor:
    control = {} if guide is None else {"control_image": guide, "controlnet_conditioning_scale": 1.0}
    given = {"image": init, "mask_image": hole_mask(case), "guidance_scale": 4.0, **control}
    latents: Tensor = pipe(PROMPT, **given, height=case.size, width=case.size, **told(strength=strength)).images
    return latents


@pytest.mark.parametrize(("scheduler", "strength"), [*((name, 0.5) for name in STOCK), ("euler", 1.0)])
def test_stable_diffusion(make_pipe: PipeFactory, make_map: MapMaker, scheduler: str, strength: float) -> None:
    case, init = sd(make_pipe), make_map(SIZE, SIZE, 1)
    pipe = diffusers.StableDiffusionInpaintPipeline.from_pipe(sd(make_pipe).pipe)
    pipe.scheduler = getattr(diffusers, STOCK[scheduler]).from_config(pipe.scheduler.config)
    assert_same(ours(case, init, None, strength, scheduler), theirs(pipe, case, init, None, strength))


def test_stable_diffusion_with_a_controlnet(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    case, init, guide = sd(make_pipe, 1), make_map(SIZE, SIZE, 1), make_map(SIZE, SIZE)
    pipe = diffusers.StableDiffusionControlNetInpaintPipeline.from_pipe(sd(make_pipe, 1).pipe)
    wanted = theirs(pipe, case, init, guide, 1.0)
    assert_same(ours(case, init, guide, 1.0, "model"), wanted)
    assert_same(ours(Case(pipe, WINDOW, CELL, CHANNELS), init, guide, 1.0, "model"), wanted)  # wrapped as it is


@pytest.mark.parametrize("controls", [0, 1])
def test_stable_diffusion_xl(tmp_path: Path, make_map: MapMaker, controls: int) -> None:
    folder = tiny_sdxl.save(tmp_path)
    case = Case(sure(taught(tiny_sdxl.load(folder, controls))), WINDOW, CELL, CHANNELS)
    init, guide = make_map(SIZE, SIZE, 1), make_map(SIZE, SIZE) if controls else None
    kind = ["StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetInpaintPipeline"][controls]
    pipe = getattr(diffusers, kind).from_pipe(sure(taught(tiny_sdxl.load(folder, controls))))
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert_same(ours(case, init, guide, 1.0, "euler"), theirs(pipe, case, init, guide, 1.0))


def wide(montage: Montage, picture: Image.Image, **options: Any) -> Result:
    sampling = SamplingConfig(steps=2, guidance_scale=3.0).complete()
    return montage(
        "a hill",
        init_image=picture,
        sampling=sampling,
        windows=WindowConfig(stride=WINDOW // 2).complete(),
        sync=OFF,
        **options,
    )


def test_a_published_folder_inpaints_and_outpaints_wide_images(
    make_pipe: PipeFactory, make_map: MapMaker, tmp_path: Path
) -> None:
    """Windows see their own part of the mask, with regions too; of what is kept not one pixel changes."""
    diffusers.StableDiffusionInpaintPipeline.from_pipe(sd(make_pipe).pipe).save_pretrained(tmp_path)
    loader.blank(str(tmp_path), [], [], torch.float32, offline=True)
    montage, picture = Montage.from_pretrained(str(tmp_path), offline=True), make_map(3 * SIZE, SIZE, 1)
    assert montage.denoiser.geometry.channels == CHANNELS
    mask = np.zeros((SIZE, 3 * SIZE), np.uint8)
    mask[10:, 2 * SIZE - 5 :] = 255
    sides = [Region(area="0-70%", prompt="a sea"), Region(area="70-100%", prompt="a tree")]
    for regions in ((), sides):
        found = wide(montage, picture, mask=Image.fromarray(mask), regions=regions)
        assert not any("no mask" in note for note in found.notes)
        assert np.array_equal(np.asarray(found.image)[mask == 0], np.asarray(picture)[mask == 0])
        assert (np.asarray(found.image)[:, -SIZE:] != np.asarray(picture)[:, -SIZE:]).any()
    grown = wide(montage, picture, img2img=Img2ImgConfig(outpaint=f"right {SIZE}")).image
    assert grown.width == 4 * SIZE
    assert np.array_equal(np.asarray(grown)[:, : 2 * SIZE], np.asarray(picture)[:, : 2 * SIZE])


def test_the_unmasked_part_has_an_effect(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    """The hole is drawn from noise alone, so all that tells two images apart is what lies around it."""
    case, montage = sd(make_pipe), Montage.from_pipe(sd(make_pipe).pipe)
    one, other = (wide(montage, make_map(SIZE, SIZE, seed), mask=hole_mask(case)) for seed in (1, 2))
    new = np.asarray(hole_mask(case)) > 0
    assert (np.asarray(one.image)[new] != np.asarray(other.image)[new]).any()


def test_without_a_mask_the_whole_image_is_generated_with_a_note(make_pipe: PipeFactory, make_map: MapMaker) -> None:
    case, montage = sd(make_pipe), Montage.from_pipe(sd(make_pipe).pipe)
    sampling = SamplingConfig(steps=2, guidance_scale=3.0).complete()
    options = {"sampling": sampling, "sync": OFF, "latents": case.noise()}
    plain = montage("a hill", height=SIZE, width=SIZE, **options)
    assert len(plain.notes) == 1 and "there is no mask: the whole image is generated" in plain.notes[0]
    white = montage("a hill", init_image=make_map(SIZE, SIZE), mask=Image.new("L", (SIZE, SIZE), 255), **options)
    assert white.notes == () and torch.allclose(white.latents, plain.latents, atol=1e-4)
