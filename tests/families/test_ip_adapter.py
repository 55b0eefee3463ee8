"""IP-Adapters: one image for the whole canvas; one window is what the stock pipeline draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, ModelError
from synccontrol.models import loader
from tests.conftest import WINDOW, PipeFactory
from tests.families import tiny_additions, tiny_sdxl
from tests.families.test_loaded_pipelines import SIZE, montage, stock
from tests.families.test_sdxl import assert_different, assert_same
from tests.families.tiny_additions import SEEN


def load(pipe: Any, *full: bool, scale: float = 0.7) -> Any:
    """Return the pipeline with IP-Adapters, full ones or not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.register_modules(
            image_encoder=tiny_additions.image_encoder(),
            feature_extractor=CLIPImageProcessor(size=SEEN, crop_size=SEEN),
        )
        weights = [tiny_additions.ip_adapter(pipe.unet, one) for one in full or (False,)]
        pipe.load_ip_adapter(weights, subfolder="", weight_name=[""] * len(weights))
    pipe.set_ip_adapter_scale([scale] * len(weights))
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Stable Diffusion XL."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("ip_adapter"))


@pytest.fixture(params=["sd", "sdxl"])
def make(request: pytest.FixtureRequest, folder: Path, make_pipe: PipeFactory) -> Callable[[int], Any]:
    """Return a function: number of ControlNets -> pipeline."""
    if request.param == "sd":
        return lambda controls: make_pipe(controls, torch.float32)
    return lambda controls: tiny_sdxl.load(folder, controls)


@pytest.fixture
def noise(make_noise: Callable[..., Tensor]) -> Tensor:
    return make_noise(WINDOW, WINDOW, dtype=torch.float32)


@pytest.fixture
def picture(make_map: Callable[..., Image.Image]) -> Image.Image:
    return make_map(3 * SEEN, 2 * SEEN)


@pytest.mark.parametrize("full", [(False,), (True,), (False, True)], ids=str)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_one_window_is_the_stock_image(
    make: Callable[[int], Any], noise: Tensor, picture: Image.Image, guidance: float, full: tuple[bool, ...]
) -> None:
    plain = montage(make(0), noise, guidance_scale=guidance).latents
    pipe = load(make(0), *full)
    ours = montage(pipe, noise, told={"ip_image": picture}, guidance_scale=guidance).latents
    shown = picture if len(full) == 1 else [picture] * len(full)
    assert_same(ours, stock(pipe, noise, ip_adapter_image=shown, guidance_scale=guidance))
    assert_different(ours, plain)
    other = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    assert_different(montage(pipe, noise, told={"ip_image": other}, guidance_scale=guidance).latents, ours)


def test_it_works_with_a_controlnet_and_a_long_prompt(
    make: Callable[[int], Any], noise: Tensor, picture: Image.Image, make_map: Callable[..., Image.Image]
) -> None:
    pipe, control_map = load(make(1)), make_map(SIZE, SIZE)
    theirs = stock(pipe, noise, image=control_map, ip_adapter_image=picture)
    ours = montage(pipe, noise, told={"ip_image": picture, "control_map": control_map}).latents
    assert_same(ours, theirs)
    assert_different(montage(pipe, noise, "a hill. a lake", told={"ip_image": picture}).latents, ours)


def test_the_image_conditions_all_windows(make: Callable[[int], Any], picture: Image.Image) -> None:
    options = {"height": SIZE, "width": 2 * SIZE, "sampling": SamplingConfig(steps=2).complete()}
    windows, sync = (
        WindowConfig(stride=WINDOW // 2, batch=2).complete(),
        SyncConfig(weight=1.0, steps=1, objective=_distance).complete(),
    )
    drawn = []
    for scale in (0.0, 0.7):
        result = Montage.from_pipe(load(make(0), scale=scale))(
            "a hill", ip_image=picture, windows=windows, sync=sync, **options
        )
        drawn.append(result.latents)
        assert result.config["ip_image"] == "<picture>"
    moved = (drawn[1] - drawn[0]).abs().amax(dim=(0, 1, 2)).unflatten(0, (4, -1)).amax(dim=1)  # in every quarter
    assert (moved > 1e-3 * drawn[0].std()).all()


def _distance(images: Tensor, anchor: Tensor) -> Tensor:
    return ((images - anchor) ** 2).mean(dim=(1, 2, 3))


def test_missing_or_unusable_images_are_rejected(
    make: Callable[[int], Any], noise: Tensor, picture: Image.Image
) -> None:
    pipe = make(0)
    with pytest.raises(ConfigError, match="the model has no IP-Adapter"):
        montage(pipe, noise, told={"ip_image": picture})
    load(pipe)
    with pytest.raises(ConfigError, match="needs an image; give ip_image"):
        montage(pipe, noise)
    pipe.register_modules(image_encoder=None)
    with pytest.raises(ModelError, match="has no image encoder"):
        montage(pipe, noise, told={"ip_image": picture})
    pipe.unload_ip_adapter()
    montage(pipe, noise)


@pytest.mark.parametrize("checkpoint", ["z_image", "qwen_image"])
def test_flow_models_have_none(request: pytest.FixtureRequest, picture: Image.Image, checkpoint: str) -> None:
    pipe = loader.load(str(request.getfixturevalue(checkpoint)), [], offline=True)
    if hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = WINDOW  # of Qwen-Image, whose configuration does not say it
    with pytest.raises(ConfigError, match="takes no IP-Adapter"):
        Montage.from_pipe(pipe)("a hill", height=SIZE, width=SIZE, ip_image=picture)
