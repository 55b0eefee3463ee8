"""Stable Diffusion XL: one window is the stock pipeline, many are a literal loop, and sync goes down its slope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig, families
from synccontrol.batch import memory_estimate
from synccontrol.canvas.flat import Layout
from synccontrol.errors import ModelError
from synccontrol.families.base import WindowCondition
from synccontrol.io import images
from synccontrol.models import loader
from synccontrol.sampling import objectives
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.noise_level import NoiseLevel, x0_hat
from synccontrol.sampling.sync import Sync, SyncNetworks
from synccontrol.spec.settings import Geometry
from tests.conftest import CELL, CHANNELS, WINDOW
from tests.families import tiny_sdxl
from tests.sampling.published import Published, Settings, map_tensor
from tests.sampling.published import views as places

PROMPT, NEGATIVE = "a red hill", "fog"
TOLERANCE = 1e-4  # of the latents' deviation, in float32
EXACT = 1e-8  # of the latents' deviation, in float64
STEPS = 6
SIZE = WINDOW * CELL  # pixels
STRIDE = WINDOW // 2  # cells
STOCK = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
LEVEL = NoiseLevel(index=0, signal=0.7, noise=0.51**0.5, t=500.0)
MapMaker = Callable[..., Image.Image]
NoiseMaker = Callable[..., Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny checkpoint."""
    return tiny_sdxl.save(tmp_path_factory.mktemp("sdxl"))


def stock(pipe: Any, noise: Tensor, scheduler: str = "ddim", **options: Any) -> Tensor:
    """Return the stock pipeline's final latents."""
    pipe.scheduler = getattr(diffusers, STOCK[scheduler]).from_config(pipe.scheduler.config)
    sizes = {"height": SIZE, "width": SIZE, "num_inference_steps": STEPS}
    told = {"guidance_scale": 7.5, "negative_prompt": NEGATIVE, **options}
    latents: Tensor = pipe(PROMPT, latents=noise, output_type="latent", **sizes, **told).images
    return latents


def montage(pipe: Any, noise: Tensor, maps: Any = None, negative_prompt: str = NEGATIVE, **sampling: Any) -> Tensor:
    """Return the final latents of a canvas of one window."""
    options = {"steps": STEPS, "scheduler": "ddim", **sampling}
    return Montage.from_pipe(pipe)(
        PROMPT,
        maps,
        height=SIZE,
        width=SIZE,
        negative_prompt=negative_prompt,
        latents=noise,
        sampling=SamplingConfig(**options).complete(),
        windows=WindowConfig(stride=STRIDE).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    ).latents


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raise unless two latents agree to the tolerance."""
    assert theirs.isfinite().all()
    assert (ours - theirs).abs().max() < tolerance * theirs.std()


def assert_different(ours: Tensor, theirs: Tensor) -> None:
    """Raise unless two latents differ so much that agreement elsewhere proves something."""
    assert (ours - theirs).abs().max() > 100 * TOLERANCE * theirs.std()


@pytest.mark.parametrize("scheduler", STOCK)
def test_one_window_is_the_stock_pipeline(
    folder: Path, make_map: MapMaker, make_noise: NoiseMaker, scheduler: str
) -> None:
    noise, control_map = make_noise(WINDOW, WINDOW, dtype=torch.float32), make_map(SIZE, SIZE)
    plain = montage(tiny_sdxl.load(folder, 0), noise, scheduler=scheduler)
    assert_same(plain, stock(tiny_sdxl.load(folder, 0), noise, scheduler))
    controlled = montage(tiny_sdxl.load(folder, 1), noise, control_map, scheduler=scheduler)
    assert_same(controlled, stock(tiny_sdxl.load(folder, 1), noise, scheduler, image=control_map))
    assert_different(controlled, plain)


@pytest.mark.parametrize("guess_mode", [False, True])
def test_two_controlnets_with_their_own_scales(
    folder: Path, make_map: MapMaker, make_noise: NoiseMaker, guess_mode: bool
) -> None:
    noise, maps = make_noise(WINDOW, WINDOW, dtype=torch.float32), [make_map(SIZE, SIZE, seed) for seed in (0, 1)]
    theirs = stock(
        tiny_sdxl.load(folder, 2),
        noise,
        "euler",
        image=maps,
        controlnet_conditioning_scale=[1.0, 0.4],
        control_guidance_end=0.7,
        guess_mode=guess_mode,
    )
    options = {"scheduler": "euler", "control_scale": (1.0, 0.4), "control_end": 0.7, "guess_mode": guess_mode}
    ours = montage(tiny_sdxl.load(folder, 2), noise, maps, **options)
    assert_same(ours, theirs)
    assert_different(montage(tiny_sdxl.load(folder, 2), noise, maps[::-1], **options), ours)


def test_without_guidance(folder: Path, make_noise: NoiseMaker) -> None:
    noise = make_noise(WINDOW, WINDOW, dtype=torch.float32)
    ours = montage(tiny_sdxl.load(folder, 0), noise, negative_prompt="", guidance_scale=1.0)
    assert_same(ours, stock(tiny_sdxl.load(folder, 0), noise, guidance_scale=1.0, negative_prompt=None))


@pytest.mark.parametrize("zeros", [True, False])
def test_an_empty_negative_prompt_is_none_and_a_space_is_an_empty_text(
    folder: Path, make_noise: NoiseMaker, zeros: bool
) -> None:
    noise = make_noise(WINDOW, WINDOW, dtype=torch.float32)
    pipe = tiny_sdxl.load(folder, 0)
    pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    none, empty = (stock(pipe, noise, negative_prompt=prompt) for prompt in (None, ""))
    assert_same(montage(pipe, noise, negative_prompt=""), none)
    assert_same(montage(pipe, noise, negative_prompt=" "), empty)
    if zeros:
        assert_different(none, empty)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_image_is_the_stock_image(
    folder: Path, make_map: MapMaker, make_noise: NoiseMaker, normalised: bool
) -> None:
    noise, control_map = make_noise(WINDOW, WINDOW, dtype=torch.float32), make_map(SIZE, SIZE)
    pipe = tiny_sdxl.load(folder, 1)
    if normalised:
        pipe.vae.register_to_config(latents_mean=[0.5, -1.0, 0.1, 0.3], latents_std=[2.0, 1.5, 0.5, 1.0])
    theirs = pipe(PROMPT, image=control_map, guidance_scale=7.5, num_inference_steps=STEPS, latents=noise).images[0]
    ours = Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        height=SIZE,
        width=SIZE,
        latents=noise,
        sampling=SamplingConfig(steps=STEPS).complete(),
        windows=WindowConfig(stride=STRIDE).complete(),
        sync=SyncConfig(weight=0.0).complete(),
    ).image
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def smooth(pictures: Tensor, anchor: Tensor) -> Tensor:
    """Return the squared distance of blurred images, one per window."""
    return 10 * (F.avg_pool2d(pictures, 4) - F.avg_pool2d(anchor, 4)).square().mean((1, 2, 3))


class Told:
    """A network that is told a size and pooled states with every prompt, whatever else it is called with."""

    def __init__(self, network: Any, pooled: Sequence[Tensor]) -> None:
        self.network, self.pooled, self.config = network, pooled, network.config

    def __call__(self, z: Tensor, *args: Any, **options: Any) -> Any:
        pooled = torch.cat(list(self.pooled[-len(z) :]))
        sizes = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]] * len(z), dtype=z.dtype)
        return self.network(z, *args, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}, **options)


class Literal(Published):
    """The published program with the networks and the encoded prompts of Stable Diffusion XL."""

    def __init__(self, pipe: Any, settings: Settings) -> None:
        with torch.no_grad():
            encoded = [pipe.encode_prompt(prompt, do_classifier_free_guidance=False) for prompt in (NEGATIVE, PROMPT)]
        pooled = [states[2] for states in encoded]
        self.pipe: Any = SimpleNamespace(
            unet=Told(pipe.unet, pooled),
            controlnet=Told(pipe.controlnet, pooled),
            vae=pipe.vae,
            scheduler=pipe.scheduler,
            vae_scale_factor=CELL,
        )
        self.settings, self.objective, self.guided = settings, smooth, True
        self.text, self.conditional = torch.cat([states[0] for states in encoded]), encoded[1][0]


PLAIN = Settings(steps=4, stride=STRIDE, clamp=False)
SYNCED = replace(PLAIN, sync_weight=2000.0, sync_steps=2)


@pytest.mark.parametrize(
    ("settings", "h", "w"),
    [
        (PLAIN, WINDOW, 5 * STRIDE),
        (replace(PLAIN, loop=True), WINDOW, 4 * STRIDE),
        (SYNCED, 4 * STRIDE, 3 * STRIDE),
        (replace(SYNCED, guess_mode=True), WINDOW, 2 * WINDOW + 3),
    ],
    ids=["plain", "loop", "two rows, sync", "guess mode, sync"],
)
def test_windows_denoised_together_are_the_literal_loop(
    folder: Path, make_map: MapMaker, make_noise: NoiseMaker, settings: Settings, h: int, w: int
) -> None:
    pipe = tiny_sdxl.load(folder, 1, torch.float64)
    noise, control_map = make_noise(h, w), make_map(w * CELL, h * CELL)
    theirs = Literal(pipe, settings).run(noise, map_tensor(control_map, torch.float64))
    ours = Montage.from_pipe(pipe)(
        PROMPT,
        control_map,
        height=h * CELL,
        width=w * CELL,
        negative_prompt=NEGATIVE,
        latents=noise,
        sampling=SamplingConfig(steps=settings.steps, scheduler="ddim", guess_mode=settings.guess_mode).complete(),
        windows=WindowConfig(stride=STRIDE, batch=2, loop=settings.loop).complete(),
        sync=SyncConfig(
            weight=settings.sync_weight,
            steps=settings.sync_steps,
            objective=smooth,
            anchor=len(places(h, w, WINDOW, settings)) // 2,  # "middle" where there is one row
        ).complete(),
    ).latents
    assert_same(ours, theirs, EXACT)


@pytest.mark.parametrize("gradient", ["full", "x0"])
def test_sync_follows_the_gradient(folder: Path, make_map: MapMaker, make_noise: NoiseMaker, gradient: str) -> None:
    family = families.wrap(tiny_sdxl.load(folder, 1, torch.float64))
    crops = torch.cat([images.to_tensor(make_map(SIZE, SIZE, seed)) for seed in (0, 1)])
    views = [WindowCondition(window=window, prompt=PROMPT, negative_prompt=NEGATIVE) for window in (0, 1)]
    z, direction = torch.cat([make_noise(WINDOW, WINDOW, seed) for seed in (0, 1)]), make_noise(WINDOW, WINDOW, 2)
    with family.session():
        predict = family.condition(views, [lambda some: crops[list(some)]], SamplingConfig().complete(), STEPS, print)
        networks = SyncNetworks(decode=family.decode, encode=family.encode, kind="epsilon")
        config = SyncConfig(weight=1.0, decay=1.0, gradient=gradient, objective=smooth).complete()
        sync = Sync(config, objectives.load(smooth), 0, networks, BatchedPredictor(1, print))
        moved = sync.nudge(z, LEVEL, lambda some, windows: predict(some, LEVEL, windows))[0]

        def clean(at: Tensor, window: int) -> Tensor:
            return x0_hat(at, predict(at, LEVEL, [window]), LEVEL, "epsilon")

        def loss(at: Tensor) -> float:
            pictures = family.decode(clean(at, 1) if gradient == "full" else at)
            return float(smooth(pictures, family.decode(clean(z[:1], 0))))

        with torch.no_grad():
            at, step = (z[1:] if gradient == "full" else clean(z[1:], 1)), 1e-4 * direction
            measured = (loss(at + step) - loss(at - step)) / 2e-4
    assert float(((z - moved)[1] * direction).sum()) == pytest.approx(measured, rel=1e-6, abs=1e-12)


def test_a_float16_autoencoder_is_upcast_for_a_session(folder: Path, make_noise: NoiseMaker) -> None:
    pipe = tiny_sdxl.load(folder, 0)
    x0 = make_noise(WINDOW, WINDOW, dtype=torch.float32).requires_grad_()
    pipe.vae.half()
    family = families.wrap(pipe)
    with family.session():
        assert pipe.vae.dtype == torch.float16
        pictures = family.decode(x0)
        with family.session():  # of the same thread: the same session
            family.decode(x0)
        assert pipe.vae.dtype == torch.float32
        (slope,) = torch.autograd.grad(pictures.square().sum(), x0)
    assert slope.isfinite().all() and slope.abs().max() > 0
    assert pictures.dtype == torch.float32
    assert {parameter.dtype for parameter in pipe.vae.parameters()} == {torch.float16}
    pipe.vae.register_to_config(force_upcast=False)
    with family.session():
        assert not torch.equal(family.decode(x0), pictures)
        assert pipe.vae.dtype == torch.float16


def test_two_threads_give_the_same_images_as_one(folder: Path, make_map: MapMaker, make_noise: NoiseMaker) -> None:
    pipe = tiny_sdxl.load(folder, 1)
    noise, control_map = make_noise(WINDOW, WINDOW, dtype=torch.float32), make_map(SIZE, SIZE)
    prompts = [NEGATIVE, "", "x"]
    alone = [montage(pipe, noise, control_map, prompt) for prompt in prompts]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda prompt: montage(pipe, noise, control_map, prompt), prompts))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_it_loads_by_name_and_its_memory_is_estimated(folder: Path) -> None:
    assert loader.geometry(str(folder), offline=True) == Geometry(window=(WINDOW, WINDOW), cell=CELL, channels=CHANNELS)
    real = loader.load(str(folder), ["depth", "canny"], offline=True)
    assert families.wrap(real).controls == 2
    layout = Layout(height=WINDOW, width=4 * WINDOW, window=(WINDOW, WINDOW), stride=STRIDE)
    found = {}
    for dtype in (torch.float32, torch.float16):
        with memory_estimate.fake_mode():
            family = families.wrap(loader.blank(str(folder), ["depth", "canny"], [], dtype, offline=True))
            options = (SamplingConfig().complete(), WindowConfig(batch=2).complete(), SyncConfig().complete(), None)
            found[dtype] = memory_estimate.estimate(family, layout, *options)
    modules = [part for part in real.components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
    assert found[torch.float32].weights == weights
    assert found[torch.float32].sync > 0
    assert found[torch.float16].decoding == pytest.approx(found[torch.float32].decoding, rel=0.05)  # in float32


def test_a_refiner_is_rejected(folder: Path) -> None:
    pipe = tiny_sdxl.load(folder, 0)
    pipe.register_modules(unet=tiny_sdxl.unet(time_ids=5))
    with pytest.raises(ModelError, match="refiner"):
        families.wrap(pipe)


def test_a_long_prompt_is_noted(folder: Path, make_noise: NoiseMaker) -> None:
    sizes = {"height": SIZE, "width": SIZE, "latents": make_noise(WINDOW, WINDOW, dtype=torch.float32)}
    sampling = SamplingConfig(steps=1, scheduler="ddim").complete()
    result = Montage.from_pipe(tiny_sdxl.load(folder, 0))("far too many letters", sampling=sampling, **sizes)
    assert any("the model reads 12 at once" in note for note in result.notes)
