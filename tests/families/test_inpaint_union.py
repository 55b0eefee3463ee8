"""A union ControlNet of eight types follows the image that is started from, as its stock inpainting pipeline does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from synccontrol import Montage, families
from synccontrol.cli import main
from synccontrol.cli.terminal import DONE
from synccontrol.errors import ModelError
from synccontrol.families.base import MASKED_VALUE
from synccontrol.families.sdxl import BLACK, UNION_TYPES
from synccontrol.models import loader
from synccontrol.spec.image_spec import INPAINT
from tests.conftest import CELL, CHANNELS, WINDOW
from tests.families import tiny_sdxl
from tests.families.test_img2img import PROMPT, Case, sure, told
from tests.families.test_inpaint import assert_same, hole_mask
from tests.families.test_inpaint_controlnet import ours
from tests.families.tiny_sdxl import PROMAX, UNION, load_union

SIZE = WINDOW * CELL  # px
MapMaker = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny checkpoint with union ControlNets."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("sdxl-union"))


def case_of(folder: Path) -> Case:
    return Case(sure(load_union(folder, PROMAX)), WINDOW, CELL, CHANNELS)


def condition(init: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the control image of the promax edition, as the documentation of its pipeline makes it."""
    shown = np.array(init.convert("RGB"))
    shown[np.array(mask) > 0] = 0
    return Image.fromarray(shown)


def theirs(case: Case, init: Image.Image, images: list[Image.Image], modes: list[int]) -> Tensor:
    pipe = diffusers.StableDiffusionXLControlNetUnionInpaintPipeline.from_pipe(case.pipe)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    given = {"image": init, "mask_image": hole_mask(case), "control_image": images, "control_mode": modes}
    scale = {"guidance_scale": 4.0, "controlnet_conditioning_scale": [1.0] * len(modes)}
    latents: Tensor = pipe(PROMPT, height=SIZE, width=SIZE, **given, **scale, **told()).images
    return latents


def test_it_matches_the_stock_pipeline(folder: Path, make_map: MapMaker) -> None:
    init = make_map(SIZE, SIZE, 1)
    shown = condition(init, hole_mask(case_of(folder)))
    found = ours(case_of(folder), [INPAINT], init, None, "euler")
    assert_same(found, theirs(case_of(folder), init, [shown], [7]))
    other = ours(case_of(folder), ["tile"], init, shown, "euler")  # the same map under another number
    assert (other[0] - found[0]).abs().max() > 0.01


@pytest.mark.parametrize("controls", [[INPAINT, "depth"], ["depth", INPAINT]])
def test_it_combines_with_another_control_in_one_net(folder: Path, make_map: MapMaker, controls: list[str]) -> None:
    init, guide = make_map(SIZE, SIZE, 1), make_map(SIZE, SIZE)
    shown = {INPAINT: condition(init, hole_mask(case_of(folder))), "depth": guide}
    found = ours(case_of(folder), controls, init, guide, "euler")
    modes = [UNION_TYPES[control] for control in controls]
    assert_same(found, theirs(case_of(folder), init, [shown[control] for control in controls], modes))


def test_each_controlnet_has_its_masked_value(folder: Path) -> None:
    def holes(controls: list[str], nets: list[str]) -> list[float]:
        pipe = loader.load(str(folder), controls, [str(folder / net) for net in nets], offline=True)
        return [families.wrap(pipe, controls).masked_value(place) for place in range(len(controls))]

    assert holes(["depth", INPAINT], [PROMAX]) == [BLACK, BLACK]
    assert holes(["canny", INPAINT], ["controlnet-canny", PROMAX]) == [MASKED_VALUE, BLACK]
    assert holes([INPAINT, "depth"], ["controlnet-canny", UNION]) == [MASKED_VALUE, BLACK]


def test_a_union_of_six_types_does_not_support_inpainting(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"does not follow 'inpaint'; it follows pose.*of more types \(promax\)"):
        Montage.from_pipe(load_union(folder, UNION), [INPAINT])


def test_the_command_line_inpaints_with_it(folder: Path, make_map: MapMaker, tmp_path: Path) -> None:
    make_map(2 * SIZE, SIZE, 1).save(tmp_path / "init.png")
    Image.new("L", (2 * SIZE, SIZE), 255).save(tmp_path / "mask.png")
    flags = ["--model", str(folder), "--prompt", "x", "--control", INPAINT, "--controlnet", str(folder / PROMAX)]
    flags += ["--init-image", str(tmp_path / "init.png"), "--mask", str(tmp_path / "mask.png")]
    flags += ["--steps", "1", "--sync-weight", "0", "--offline", "--output", str(tmp_path / "out.png")]
    assert main.main(flags) == DONE
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (2 * SIZE, SIZE)
