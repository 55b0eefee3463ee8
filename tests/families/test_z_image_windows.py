"""Several windows of Z-Image against a literal window-by-window version; rings, rows, gradients, objectives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.families.base import AbstractFamily, WindowCondition
from synccontrol.io import images
from synccontrol.models import loader
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel, x0_hat
from synccontrol.sampling.objectives import FunctionObjective
from synccontrol.sampling.sync import Sync, SyncNetworks
from synccontrol.spec.settings import OBJECTIVES
from tests.families.checkpoints_flow import CELL, CHANNELS, WINDOW

PROMPT, NEGATIVE = "a red hill", "fog"
GUIDANCE, SCALE, SHIFT = 4.0, 0.8, 3.0  # as usual; of the control; of the tiny checkpoint's schedule
STEPS, SYNCED, WEIGHT = 5, 2, 300.0
STRIDE = 3  # cells; odd, so that windows start inside patches of others
TOLERANCE = 1e-5  # of the canvas's deviation; the schedule and the rotations are float32
OFF = SyncConfig(weight=0.0).complete()
MapMaker = Callable[..., Image.Image]


def distance(images: Tensor, anchor: Tensor) -> Tensor:
    """Return a squared distance, one per image."""
    return (images - anchor).square().mean((1, 2, 3))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def pipe(z_image: Path) -> Any:
    return loader.load(str(z_image), ["depth"], dtype=torch.float64, offline=True)


@pytest.fixture(scope="module")
def montage(pipe: Any) -> Montage:
    return Montage.from_pipe(pipe)


class Literal:
    """What the stock pipeline does with one image, as it is written there, in float64."""

    @torch.no_grad()
    def __init__(self, pipe: Any, crop: Image.Image) -> None:
        self.pipe = pipe
        config = pipe.vae.config
        (self.prompt,), (self.negative,) = pipe.encode_prompt(PROMPT, negative_prompt=NEGATIVE)
        pixels = pipe.image_processor.preprocess(crop).double()
        latents = (pipe.vae.encode(pixels).latent_dist.mode() - config.shift_factor) * config.scaling_factor
        rest = pipe.controlnet.config.control_in_dim - CHANNELS
        self.context = torch.cat([latents, torch.zeros(1, rest, WINDOW, WINDOW).double()], 1).unsqueeze(2)

    def velocity(self, z: Tensor, sigma: float) -> Tensor:
        t = ((1000 - torch.tensor([sigma * 1000])) / 1000).repeat(2)
        x = list(z.repeat(2, 1, 1, 1).unsqueeze(2).unbind(0))
        captions = [self.prompt, self.negative]
        residuals = self.pipe.controlnet(x, t, captions, self.context.repeat(2, 1, 1, 1, 1), conditioning_scale=SCALE)
        positive, negative = self.pipe.transformer(x, t, captions, controlnet_block_samples=residuals)[0]
        return -(positive + (GUIDANCE - 1) * (positive - negative)).squeeze(1)[None]

    def picture(self, x0: Tensor) -> Tensor:
        config = self.pipe.vae.config
        found: Tensor = self.pipe.vae.decode(x0 / config.scaling_factor + config.shift_factor, return_dict=False)[0]
        return found


def literal_montage(pipe: Any, control_map: Image.Image, x: Tensor, synced: int) -> Tensor:
    """Return the canvas of the published algorithm: windows are nudged and stepped one by one, then averaged."""
    width, side = x.shape[-1], WINDOW * CELL
    starts = [*range(0, width - WINDOW, STRIDE), width - WINDOW]
    spans = [slice(left, left + WINDOW) for left in starts]
    windows = [Literal(pipe, control_map.crop((CELL * left, 0, CELL * left + side, side))) for left in starts]
    even = np.linspace(1, 1 / STEPS, STEPS).astype(np.float32)
    sigmas = [*(SHIFT * even / (1 + (SHIFT - 1) * even)).tolist(), 0.0]
    anchor = len(starts) // 2
    for step, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        z_anchor = x[..., spans[anchor]]
        goal = windows[anchor].picture(z_anchor - sigma * windows[anchor].velocity(z_anchor, sigma)).detach()
        for j, (window, span) in enumerate(zip(windows, spans, strict=True)):
            z = x[..., span]
            if step < synced and j != anchor:
                variable = z.detach().requires_grad_()
                loss = distance(window.picture(variable - sigma * window.velocity(variable, sigma)), goal).sum()
                loss.backward()
                z = z - WEIGHT * variable.grad
            with torch.no_grad():
                total[..., span] += z + (following - sigma) * window.velocity(z, sigma)
            count[..., span] += 1
        x = (total / count).detach()
    return x


def synced(steps: int, **options: Any) -> SyncConfig:
    return SyncConfig(objective=distance, weight=WEIGHT, steps=steps, decay=1.0, **options).complete()


@pytest.mark.parametrize("steps", [0, SYNCED])
def test_joint_denoising_matches_the_literal_loop(
    z_image: Path, montage: Montage, make_map: MapMaker, steps: int
) -> None:
    width = 2 * WINDOW + 3
    x, control_map = noise(1, CHANNELS, WINDOW, width), make_map(width * CELL, WINDOW * CELL)
    literal = loader.load(str(z_image), ["depth"], dtype=torch.float64, offline=True)
    literal.controlnet.gradient_checkpointing = False
    theirs = literal_montage(literal, control_map, x, steps)

    def draw(sync: SyncConfig) -> Tensor:
        found: Tensor = montage(
            PROMPT,
            control_map,
            negative_prompt=NEGATIVE,
            latents=x,
            sampling=SamplingConfig(steps=STEPS, guidance_scale=GUIDANCE, control_scale=SCALE).complete(),
            windows=WindowConfig(stride=STRIDE, batch=3).complete(),
            sync=sync,
        ).latents
        return found

    assert (draw(synced(steps)) - theirs).abs().max() < TOLERANCE * theirs.std()
    if steps:
        assert (draw(OFF) - theirs).abs().max() > 100 * TOLERANCE * theirs.std()


@pytest.mark.parametrize("batch", [2, 5])
def test_the_batch_of_windows_changes_nothing(montage: Montage, make_map: MapMaker, batch: int) -> None:
    width = 3 * WINDOW

    def draw(batch: int) -> Tensor:
        found: Tensor = montage(
            PROMPT,
            make_map(width * CELL, WINDOW * CELL),
            latents=noise(1, CHANNELS, WINDOW, width),
            sampling=SamplingConfig(steps=2).complete(),
            windows=WindowConfig(stride=4, batch=batch).complete(),
            sync=OFF,
        ).latents
        return found

    alone = draw(1)
    assert (draw(batch) - alone).abs().max() < 1e-6 * alone.std()


def test_a_ring_turns_with_its_noise_and_map(montage: Montage) -> None:
    """Turned by whole strides, the canvas is the same image, turned: nothing marks where it was cut."""
    width, turn = 3 * WINDOW, 4
    control = np.random.default_rng(0).integers(0, 255, (WINDOW * CELL, width * CELL, 3)).astype(np.uint8)
    x = noise(1, CHANNELS, WINDOW, width)
    settings = {
        "sampling": SamplingConfig(steps=2).complete(),
        "windows": WindowConfig(stride=turn, loop=True).complete(),
        "sync": OFF,
    }
    here = montage(PROMPT, Image.fromarray(control), latents=x, **settings)
    turned = Image.fromarray(np.roll(control, turn * CELL, axis=1))
    there = montage(PROMPT, turned, latents=x.roll(turn, -1), **settings)
    assert (here.latents.roll(turn, -1) - there.latents).abs().max() < TOLERANCE * here.latents.std()
    assert here.image.size == (width * CELL, WINDOW * CELL)


def test_several_rows_of_windows(montage: Montage, make_map: MapMaker) -> None:
    height, width = 2 * WINDOW * CELL - 5, 2 * WINDOW * CELL + 3
    result = montage(
        PROMPT,
        make_map(width, height),
        sampling=SamplingConfig(steps=1).complete(),
        windows=WindowConfig(stride=5).complete(),
        sync=synced(1, gradient="x0"),
    )
    assert result.image.size == (width, height)
    assert result.latents.shape[-2:] == (2 * WINDOW, 2 * WINDOW + 1)


@pytest.mark.parametrize("gradient", ["full", "x0"])
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name.startswith("stlpips")])
def test_named_objectives_have_an_effect(montage: Montage, make_map: MapMaker, objective: str, gradient: str) -> None:
    sync = SyncConfig(objective=objective, gradient=gradient, step_size="rms", steps=1).complete()
    control_map, once = make_map(2 * WINDOW * CELL, WINDOW * CELL), SamplingConfig(steps=1).complete()
    nudged, still = (montage(PROMPT, control_map, sampling=once, sync=one).latents for one in (sync, OFF))
    assert nudged.isfinite().all()
    assert not torch.equal(nudged, still)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Three windows at one level, and everything that sync asks for."""

    z: Tensor
    level: NoiseLevel
    family: AbstractFamily
    predict: Predict

    def nudge(self, gradient: str) -> Tensor:
        """Return the windows moved by sync towards the one in the middle."""
        config = SyncConfig(objective=blurred, weight=1.0, decay=1.0, gradient=gradient).complete()
        networks = SyncNetworks(decode=self.family.decode, encode=self.family.encode, kind="flow_prediction")
        sync = Sync(config, FunctionObjective(blurred), 1, networks, BatchedPredictor(1, print))
        return sync.nudge(self.z, self.level, lambda z, windows: self.predict(z, self.level, windows))[0]

    def clean(self, z: Tensor, window: int) -> Tensor:
        """Return the clean estimate of one window."""
        return x0_hat(z, self.predict(z, self.level, [window]), self.level, "flow_prediction")


def blurred(images: Tensor, anchor: Tensor) -> Tensor:
    """Return the squared distance of blurred images, one per image."""
    return (F.avg_pool2d(images, 2) - F.avg_pool2d(anchor, 2)).square().mean((1, 2, 3))


@pytest.fixture
def scene(montage: Montage, make_map: MapMaker) -> Iterator[Scene]:
    family, side = montage.denoiser, WINDOW * CELL
    crops = torch.cat([images.to_tensor(make_map(side, side, seed)) for seed in range(3)])
    views = [WindowCondition(window=window, prompt=PROMPT, negative_prompt=NEGATIVE) for window in range(3)]
    with family.session():
        sampling = SamplingConfig(guidance_scale=GUIDANCE).complete()
        predict = family.condition(views, [lambda some: crops[list(some)]], sampling, STEPS, print)
        z = noise(3, CHANNELS, WINDOW, WINDOW)
        yield Scene(z=z, level=NoiseLevel(index=1, signal=0.3, noise=0.7, t=700.0), family=family, predict=predict)


@pytest.mark.parametrize("gradient", ["full", "x0"])
@pytest.mark.parametrize("window", [0, 2])
def test_the_gradient_is_the_slope_of_the_loss(scene: Scene, gradient: str, window: int) -> None:
    found = (scene.z - scene.nudge(gradient))[window]
    at = scene.z[window : window + 1]
    clean = (lambda z: scene.clean(z, window)) if gradient == "full" else (lambda x0: x0)
    at = at if gradient == "full" else scene.clean(at, window).detach()
    step = 2e-3 if gradient == "full" else 1e-4  # rotations are float32, so that a small step drowns in rounding
    with torch.no_grad():
        target = scene.family.decode(scene.clean(scene.z[1:2], 1))
        for seed in range(3):
            direction = noise(1, CHANNELS, WINDOW, WINDOW, seed=100 + seed)
            ends = [blurred(scene.family.decode(clean(at + side * step * direction)), target) for side in (1, -1)]
            measured = float(ends[0] - ends[1]) / (2 * step)
            assert float((found * direction).sum()) == pytest.approx(measured, rel=1e-3)
