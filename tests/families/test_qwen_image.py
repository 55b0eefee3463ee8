"""One window of Qwen-Image is the stock pipeline's image; its windows, gradients and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig, QwenImageMultiControlNetModel, QwenImagePipeline
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.flat import Layout
from synccontrol.errors import ModelError
from synccontrol.families.base import WindowCondition
from synccontrol.families.qwen_image import MAX_PROMPT_TOKENS, pack, unpack
from synccontrol.io import images
from synccontrol.models import loader
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.noise_level import NoiseLevel, x0_hat
from synccontrol.sampling.objectives import FunctionObjective
from synccontrol.sampling.schedulers import SchedulerRun
from synccontrol.sampling.sync import Sync, SyncNetworks
from tests.families.checkpoints_flow import CELL, CHANNELS, WINDOW

PROMPT, NEGATIVE = "a red hill", "fog"
STEPS = 6
SIZE = WINDOW * CELL  # px
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # of the latents' deviation; rotations are in float32 always
OFF = SyncConfig(weight=0.0).complete()
MapMaker = Callable[..., Image.Image]


def load(folder: Path, control: bool, dtype: torch.dtype = torch.float64) -> Any:
    """Return a pipeline of the tiny checkpoint, loaded as any other; its native size is no setting, so it is told."""
    pipe = loader.load(str(folder), ["depth"] if control else [], dtype=dtype, offline=True)
    pipe.default_sample_size = WINDOW
    return pipe


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(pipe: Any, guidance: float, control_map: Image.Image | None, **options: Any) -> Any:
    """Return an image of one window."""
    return Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        height=SIZE,
        width=SIZE,
        negative_prompt=NEGATIVE,
        latents=noise(1, CHANNELS, WINDOW, WINDOW),
        sampling=SamplingConfig(steps=STEPS, guidance_scale=guidance, **options).complete(),
        sync=OFF,
    )


def distance(images: Tensor, anchor: Tensor) -> Tensor:
    """Return a squared distance, one per image."""
    return (images - anchor).square().mean((1, 2, 3))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("control", [False, True])
def test_one_window_is_the_stock_pipeline(
    qwen_image: Path, make_map: MapMaker, control: bool, guidance: float, dtype: torch.dtype
) -> None:
    control_map = make_map(SIZE, SIZE) if control else None
    extra = {"control_image": control_map, "controlnet_conditioning_scale": 0.8} if control else {}
    pipe = load(qwen_image, control, dtype)
    theirs = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        true_cfg_scale=guidance,
        latents=pack(noise(1, CHANNELS, WINDOW, WINDOW).to(dtype)),
        output_type="latent",
        **extra,
    ).images
    theirs = unpack(theirs, WINDOW, WINDOW)
    ours = draw(pipe, guidance, control_map, control_scale=0.8).latents
    assert (ours - theirs).abs().max() < TOLERANCE[dtype] * theirs.std()


def test_the_image_is_the_stock_image(qwen_image: Path, make_map: MapMaker) -> None:
    pipe, control_map = load(qwen_image, True, torch.float32), make_map(SIZE, SIZE)
    theirs = pipe(
        PROMPT,
        negative_prompt=NEGATIVE,
        control_image=control_map,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        true_cfg_scale=4.0,
        latents=pack(noise(1, CHANNELS, WINDOW, WINDOW).float()),
    ).images[0]
    ours = draw(pipe, 4.0, control_map).image
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def test_prompt_control_and_guidance_have_an_effect(qwen_image: Path, make_map: MapMaker) -> None:
    pipe, control_map = load(qwen_image, True), make_map(SIZE, SIZE)
    base = draw(pipe, 4.0, control_map).latents
    for other in (
        draw(pipe, 4.0, make_map(SIZE, SIZE, seed=1)),
        draw(pipe, 4.0, control_map, control_end=0.5),
        draw(pipe, 1.0, control_map),
        draw(pipe, 4.0, None),
    ):
        assert (other.latents - base).abs().max() > 1e-3 * base.std()


def test_tokens_match_the_pipeline() -> None:
    z = noise(2, CHANNELS, 4, 6)
    tokens = QwenImagePipeline._pack_latents(z, 2, CHANNELS, 4, 6)
    assert torch.equal(pack(z), tokens)
    assert torch.equal(unpack(tokens, 4, 6), z)


def test_the_schedule_shift_is_that_of_a_window(qwen_image: Path, make_map: MapMaker) -> None:
    """However wide the canvas is, the networks see the noise levels of an image as large as a window."""
    pipe, seen = load(qwen_image, False, torch.float32), []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _, args, options: seen.append(float(options["timestep"][0])), with_kwargs=True
    )
    settings = {"height": SIZE, "sampling": SamplingConfig(steps=3, guidance_scale=1.0).complete(), "sync": OFF}
    montage = Montage.from_pipe(pipe)
    for width in (SIZE, 4 * SIZE):
        montage(PROMPT, width=width, windows=WindowConfig(stride=WINDOW // 2, batch=16).complete(), **settings)
    hook.remove()
    assert seen[:3] == seen[3:]
    options = {"device": torch.device("cpu"), "generator": torch.Generator(), "mu": montage.denoiser.shift()}
    assert seen[:3] == pytest.approx(
        [level.noise for level in SchedulerRun(pipe.scheduler, "model", 3, **options).levels]
    )
    assert montage.denoiser.shift() == pytest.approx(0.5 + (16 - 8) * 0.4 / 56)


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "unipc"])
def test_every_flow_scheduler_works(qwen_image: Path, scheduler: str) -> None:
    pipe = load(qwen_image, False)
    truth, found = draw(pipe, 4.0, None).latents, draw(pipe, 4.0, None, scheduler=scheduler).latents
    assert (found - truth).square().mean().sqrt() < 0.2 * truth.std()


def test_windows_with_prompts_of_different_length_are_one_batch(qwen_image: Path) -> None:
    family = Montage.from_pipe(load(qwen_image, False)).denoiser
    prompts = ("a hill", "a very much longer prompt", NEGATIVE)
    views = [
        WindowCondition(window=window, prompt=prompt, negative_prompt=NEGATIVE) for window, prompt in enumerate(prompts)
    ]
    z, level = noise(3, CHANNELS, WINDOW, WINDOW), NoiseLevel(index=0, signal=0.3, noise=0.7, t=700.0)
    with family.session(), torch.no_grad():
        predict = family.condition(views, [], SamplingConfig().complete(), STEPS, print)
        together = predict(z, level, [0, 1, 2])
        alone = torch.cat([predict(z[view : view + 1], level, [view]) for view in range(3)])
    assert (together - alone).abs().max() < 1e-6 * alone.std()


def test_a_ring_of_several_rows_with_sync(qwen_image: Path, make_map: MapMaker) -> None:
    height, width = SIZE + 5, 3 * SIZE
    montage = Montage.from_pipe(load(qwen_image, True, torch.float32))

    def draw(sync: SyncConfig) -> Any:
        sampling, windows = SamplingConfig(steps=2).complete(), WindowConfig(stride=4, loop=True).complete()
        return montage(PROMPT, make_map(width, height), sampling=sampling, windows=windows, sync=sync)

    still = draw(OFF)
    assert still.image.size == (width, height)
    for gradient in ("x0", "full"):
        moved = draw(SyncConfig(objective=distance, weight=300.0, steps=1, gradient=gradient).complete())
        assert (moved.latents - still.latents).abs().max() > 1e-4


@pytest.mark.parametrize("gradient", ["full", "x0"])
def test_the_gradient_is_the_slope_of_the_loss(qwen_image: Path, make_map: MapMaker, gradient: str) -> None:
    family, kind = Montage.from_pipe(load(qwen_image, True)).denoiser, "flow_prediction"
    crops = images.to_tensor(make_map(SIZE, SIZE)).repeat(2, 1, 1, 1)
    views = [WindowCondition(window=window, prompt=PROMPT, negative_prompt=NEGATIVE) for window in range(2)]
    z, level = noise(2, CHANNELS, WINDOW, WINDOW), NoiseLevel(index=1, signal=0.3, noise=0.7, t=700.0)
    with family.session():
        predict = family.condition(views, [lambda some: crops[list(some)]], SamplingConfig().complete(), STEPS, print)
        config = SyncConfig(objective=distance, weight=1.0, decay=1.0, gradient=gradient).complete()
        sync = Sync(
            config,
            FunctionObjective(distance),
            0,
            SyncNetworks(decode=family.decode, encode=family.encode, kind=kind),
            BatchedPredictor(1, print),
        )
        found = (z - sync.nudge(z, level, lambda some, windows: predict(some, level, windows))[0])[1]

        def clean(z: Tensor, window: int = 1) -> Tensor:
            return x0_hat(z, predict(z, level, [window]), level, kind)

        with torch.no_grad():
            target = family.decode(clean(z[:1], 0))
            at, to_x0 = (z[1:], clean) if gradient == "full" else (clean(z[1:]), lambda x0: x0)
            step = 1e-5  # the random decoder bends within hundredths
            direction = noise(1, CHANNELS, WINDOW, WINDOW, seed=100) + 3 * found / found.std()  # steep enough to see
            ends = [distance(family.decode(to_x0(at + side * step * direction)), target) for side in (1, -1)]
    assert float((found * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-3)


@pytest.mark.parametrize("controls", [[], ["depth"]])
def test_its_memory_is_estimated(qwen_image: Path, controls: list[str]) -> None:
    layout = Layout(height=WINDOW, width=2 * WINDOW, window=(WINDOW, WINDOW), stride=4)
    with memory_estimate.fake_mode():
        pipe = loader.blank(str(qwen_image), controls, [], torch.float32, offline=True)
        pipe.default_sample_size = WINDOW
        sync = SyncConfig(gradient="full").complete()
        found = memory_estimate.estimate(
            families.wrap(pipe), layout, SamplingConfig().complete(), WindowConfig().complete(), sync, None
        )
    parts = load(qwen_image, bool(controls), torch.float32).components.values()
    real = [part for part in parts if isinstance(part, torch.nn.Module)]
    assert found.weights == sum(tensor.nbytes for module in real for tensor in module.state_dict().values())
    assert min(found.sampling, found.sync, found.decoding) > 0


def test_unsupported_settings_are_rejected(qwen_image: Path, make_map: MapMaker) -> None:
    with pytest.raises(ModelError, match="Qwen-Image takes one ControlNet, and 2 are named"):
        loader.load(str(qwen_image), ["depth", "depth"], offline=True)
    pipe = load(qwen_image, True)
    pipe.controlnet = QwenImageMultiControlNetModel([pipe.controlnet])
    with pytest.raises(ModelError, match="give it a single plain ControlNet"):
        Montage.from_pipe(pipe)
    pipe = load(qwen_image, False)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ModelError, match=r"call pipe\.transformer\.disable_cache"):
        draw(pipe, 4.0, None)
    pipe.transformer.disable_cache()
    assert draw(pipe, 4.0, None).notes == ()


def test_a_truncated_prompt_is_noted(qwen_image: Path) -> None:
    once = SamplingConfig(steps=2).complete()
    result = Montage.from_pipe(load(qwen_image, False))(
        "x" * MAX_PROMPT_TOKENS, height=SIZE, width=SIZE, sampling=once, sync=OFF
    )
    assert any("it ends after 'xxxx'" in note for note in result.notes)
