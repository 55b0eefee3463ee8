"""The gradient that sync follows, against finite differences; and sync that must do nothing, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError, NonFiniteError
from synccontrol.families.base import AbstractFamily, WindowCondition
from synccontrol.io import images
from synccontrol.sampling import objectives
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel, x0_hat
from synccontrol.sampling.schedulers import SchedulerRun
from synccontrol.sampling.sync import Sync, SyncNetworks
from tests.conftest import CELL, WINDOW, PipeFactory

WINDOWS, ANCHOR = 3, 1
INDEX = 3  # the denoising step that is looked at
STEPS = 8
DIRECTIONS = 3  # finite differences per window
STEP = 1e-4  # of the finite differences, in latent units
TOLERANCE = 1e-6  # relative, of one directional derivative
MapMaker = Callable[..., Image.Image]
NoiseMaker = Callable[..., Tensor]


def smooth(images: Tensor, anchor: Tensor) -> Tensor:
    """Return the squared distance of blurred images, one per window."""
    return (F.avg_pool2d(images, 2) - F.avg_pool2d(anchor, 2)).square().mean((1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Three windows of the tiny checkpoint at one step, and everything that sync asks for."""

    z: Tensor
    level: NoiseLevel
    family: AbstractFamily
    predict: Predict

    def nudge(
        self, weight: float, *, anchor: int | Tensor = ANCHOR, **options: Any
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the windows moved by sync, with the smooth objective, and the predictions that stay valid."""
        parts = {key: options.pop(key) for key in ("offloaded", "half") if key in options}
        batches = BatchedPredictor(options.pop("batch", 1), print)
        config = SyncConfig(weight=weight, decay=1.0, **{"objective": smooth, **options}).complete()
        objective = objectives.load(config.objective)
        networks = SyncNetworks(decode=self.family.decode, encode=self.family.encode, kind="epsilon", **parts)
        sync = Sync(config, objective, anchor, networks, batches)
        return sync.nudge(self.z, self.level, self.predict_now)

    def predict_now(self, z: Tensor, windows: Any) -> Tensor:
        """Return the predictions at the scene's step."""
        return self.predict(z, self.level, windows)

    def clean(self, z: Tensor, window: int) -> Tensor:
        """Return the clean estimate of one window."""
        return x0_hat(z, self.predict_now(z, [window]), self.level, "epsilon")

    def target(self) -> Tensor:
        """Return the anchor's image."""
        return self.family.decode(self.clean(self.z[ANCHOR : ANCHOR + 1], ANCHOR))


@pytest.fixture(scope="module")
def scene(make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker) -> Iterator[Scene]:
    """Return windows of noise under the real networks, with control and guidance."""
    family = Montage.from_pipe(make_pipe(1)).denoiser
    solver = SchedulerRun(family.pipe.scheduler, "ddim", STEPS, device=torch.device("cpu"), generator=torch.Generator())
    side = WINDOW * CELL
    crops = torch.cat([images.to_tensor(make_map(side, side, seed)) for seed in range(WINDOWS)])
    views = [WindowCondition(window=window, prompt="a red hill", negative_prompt="fog") for window in range(WINDOWS)]
    with family.session():
        predict = family.condition(views, [lambda some: crops[list(some)]], SamplingConfig().complete(), STEPS, print)
        yield Scene(
            z=torch.cat([make_noise(WINDOW, WINDOW, seed) for seed in range(WINDOWS)]),
            level=solver.levels[INDEX],
            family=family,
            predict=predict,
        )


def slope(loss: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> float:
    """Return the central difference of a loss along a direction."""
    return float((loss(at + STEP * direction) - loss(at - STEP * direction)).sum()) / (2 * STEP)


@pytest.mark.parametrize("options", [{}, {"batch": 2, "offloaded": True}, {"predict": "once"}], ids=str)
def test_full_gradient_is_the_slope_of_the_loss(scene: Scene, make_noise: NoiseMaker, options: dict[str, Any]) -> None:
    gradients = scene.z - scene.nudge(1.0, gradient="full", **options)[0]
    target = scene.target()
    for window in (0, 2):
        at = scene.z[window : window + 1]
        for seed in range(DIRECTIONS):
            direction = make_noise(WINDOW, WINDOW, 100 + seed)
            measured = slope(lambda z, j=window: smooth(scene.family.decode(scene.clean(z, j)), target), at, direction)
            predicted = float((gradients[window] * direction).sum())
            assert predicted == pytest.approx(measured, rel=TOLERANCE, abs=1e-12)


def test_x0_gradient_is_the_slope_at_the_clean_estimate(scene: Scene, make_noise: NoiseMaker) -> None:
    gradients = scene.z - scene.nudge(1.0, gradient="x0")[0]
    target = scene.target()
    for window in (0, 2):
        at = scene.clean(scene.z[window : window + 1], window)
        direction = make_noise(WINDOW, WINDOW, 100)
        measured = slope(lambda x0: smooth(scene.family.decode(x0), target), at, direction)
        predicted = float((gradients[window] * direction).sum())
        assert predicted == pytest.approx(measured, rel=TOLERANCE, abs=1e-12)


@pytest.mark.parametrize("objective", ["stlpips", smooth], ids=["stlpips", "smooth"])
def test_a_small_move_lowers_the_loss(scene: Scene, objective: Any) -> None:
    losses = objectives.load(objective).for_anchor(scene.target())
    moved = scene.nudge(300.0, objective=objective, step_size="rms")[0]
    small = scene.z + 1e-4 * (moved - scene.z)
    for window in (0, 2):
        before, after = (
            losses(scene.family.decode(scene.clean(z[window : window + 1], window))) for z in (scene.z, small)
        )
        assert after < before


def test_the_anchor_does_not_move_and_its_prediction_is_returned(scene: Scene) -> None:
    z, known = scene.nudge(1000.0, batch=2)
    assert torch.equal(z[ANCHOR], scene.z[ANCHOR])
    assert not torch.equal(z[0], scene.z[0])
    assert set(known) == {ANCHOR}
    assert torch.equal(known[ANCHOR], scene.predict_now(scene.z[ANCHOR : ANCHOR + 1], [ANCHOR])[0])


@pytest.mark.parametrize("gradient", ["full", "x0"])
def test_predict_once_returns_the_predictions_of_all_windows(scene: Scene, gradient: str) -> None:
    z, known = scene.nudge(1000.0, gradient=gradient, predict="once", batch=2)
    assert torch.allclose(z, scene.nudge(1000.0, gradient=gradient)[0], atol=1e-12)
    before = scene.predict_now(scene.z, range(WINDOWS))
    assert torch.allclose(torch.stack([known[window] for window in range(WINDOWS)]), before, atol=1e-12)
    assert not torch.allclose(scene.predict_now(z, range(WINDOWS))[0], before[0], atol=1e-4)


def test_an_objective_must_return_one_loss_per_image(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="one loss per image") as caught:
        scene.nudge(1.0, objective=lambda images, anchor: (images - anchor).square().mean())
    assert "\n" not in str(caught.value)


def test_gradient_overflow_lowers_the_scale(scene: Scene) -> None:
    """A loss of 1e36, times the first scale of float16, is beyond float32: a smaller scale gives the same direction."""

    def loud(images: Tensor, anchor: Tensor, volume: float = 1e36) -> Tensor:
        return (smooth(images, anchor).float() * volume).to(images.dtype)

    quiet, scaled = (
        scene.nudge(20.0, gradient="x0", step_size="rms", objective=objective, half=True)[0]
        for objective in (smooth, loud)
    )
    assert torch.allclose(quiet, scaled, rtol=1e-3, atol=1e-6)
    with pytest.raises(NonFiniteError, match="not finite"):
        scene.nudge(1.0, objective=partial(loud, volume=1e39), half=True)


def test_an_anchor_image_moves_every_window(scene: Scene) -> None:
    nudged, known = scene.nudge(1000.0, anchor=scene.target().flip(-1))
    assert not known
    assert all(not torch.equal(moved, z) for moved, z in zip(nudged, scene.z, strict=True))


def test_rms_steps_of_weight_20_move_by_6_hundredths(scene: Scene) -> None:
    moves = scene.nudge(20.0, step_size="rms")[0] - scene.z
    sizes = moves.square().mean((1, 2, 3)).sqrt()
    assert sizes[[0, 2]].tolist() == pytest.approx([0.06, 0.06])


def test_the_weight_scales_the_move(scene: Scene) -> None:
    one, ten = (scene.nudge(weight)[0] - scene.z for weight in (1.0, 10.0))
    assert torch.allclose(10 * one, ten, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def draw(make_pipe: PipeFactory, make_map: MapMaker) -> Callable[[SyncConfig], Tensor]:
    """Return a function from sync settings to the final float32 latents of a wide canvas."""
    montage = Montage.from_pipe(make_pipe(1, torch.float32))
    control_map = make_map(2 * WINDOW * CELL, WINDOW * CELL)

    def run(sync: SyncConfig) -> Tensor:
        return montage(
            "a red hill",
            control_map,
            sampling=SamplingConfig(steps=5).complete(),
            windows=WindowConfig(stride=4).complete(),
            sync=sync,
        ).latents

    return run


@pytest.mark.parametrize("off", [{"weight": 0.0, "steps": 5}, {"weight": 2000.0, "steps": 0}])
def test_sync_off_is_off_bit_for_bit(draw: Callable[[SyncConfig], Tensor], off: dict[str, Any]) -> None:
    plain = draw(SyncConfig(weight=0.0).complete())
    assert torch.equal(draw(SyncConfig(objective=smooth, **off).complete()), plain)
    assert not torch.equal(draw(SyncConfig(objective=smooth, weight=2000.0).complete()), plain)


def test_every_and_steps_select_the_steps(draw: Callable[[SyncConfig], Tensor]) -> None:
    def synced(**options: Any) -> Tensor:
        return draw(SyncConfig(weight=2000.0, objective=smooth, **options).complete())

    assert torch.equal(synced(steps=1), synced(steps=2, every=2))
    assert torch.equal(synced(steps=3, every=2), synced(steps=4, every=2))
    assert not torch.equal(synced(steps=2, every=1), synced(steps=2, every=2))
    assert not torch.equal(synced(steps=3, every=2), synced(steps=2, every=2))
