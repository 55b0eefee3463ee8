"""The gradient that sync follows, against finite differences; and sync that must do nothing, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.files import images
from synccontrol.sampling import objectives
from synccontrol.sampling.solvers import Schedule
from synccontrol.sampling.sync import Nudged, nudge
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
    """Returns the squared distance of blurred pictures, one per window."""
    return (F.avg_pool2d(images, 2) - F.avg_pool2d(anchor, 2)).square().mean((1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Three windows of the tiny checkpoint at one step, and everything `nudge` asks for."""

    z: Tensor
    predict: Callable[[Tensor, Any], Tensor]
    x0_hat: Callable[[Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]

    def nudge(self, weight: float, *, anchor: int | Tensor = ANCHOR, **options: Any) -> Nudged:
        """Returns the windows moved by sync, with the smooth objective."""
        objective = objectives.load(options.pop("objective", smooth))
        return nudge(
            self.z,
            weight,
            predict=self.predict,
            x0_hat=self.x0_hat,
            decode=self.decode,
            objective=objective,
            anchor=anchor,
            **options,
        )

    def clean(self, z: Tensor, window: int) -> Tensor:
        """Returns the clean estimate of one window."""
        return self.x0_hat(z, self.predict(z, [window]))

    def target(self) -> Tensor:
        """Returns the anchor's picture."""
        return self.decode(self.clean(self.z[ANCHOR : ANCHOR + 1], ANCHOR))


@pytest.fixture(scope="module")
def scene(make_pipe: PipeFactory, make_map: MapMaker, make_noise: NoiseMaker) -> Iterator[Scene]:
    """Returns windows of noise under the real networks, with control and guidance."""
    denoiser = Montage.from_pipe(make_pipe(1)).denoiser
    sampling = SamplingConfig(steps=STEPS)
    schedule = Schedule(denoiser.pipe.scheduler, "ddim", STEPS, torch.device("cpu"), torch.Generator())
    side = WINDOW * CELL
    crops = torch.cat([images.to_tensor(make_map(side, side, seed)) for seed in range(WINDOWS)])
    with denoiser.running():
        predict = denoiser.encode("a red hill", "fog", [crops], sampling, schedule.timesteps)
        yield Scene(
            z=torch.cat([make_noise(WINDOW, WINDOW, seed) for seed in range(WINDOWS)]),
            predict=lambda z, windows: predict(z, INDEX, windows),
            x0_hat=lambda z, prediction: schedule.x0_hat(z, prediction, INDEX),
            decode=denoiser.decode,
        )


def slope(loss: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> float:
    """Returns the central difference of a loss along a direction."""
    return float((loss(at + STEP * direction) - loss(at - STEP * direction)).sum()) / (2 * STEP)


@pytest.mark.parametrize("batch", [1, 2])
def test_full_gradient_is_the_slope_of_the_loss(scene: Scene, make_noise: NoiseMaker, batch: int) -> None:
    gradients = scene.z - scene.nudge(1.0, gradient="full", batch=batch).z
    target = scene.target()
    for window in (0, 2):
        at = scene.z[window : window + 1]
        for seed in range(DIRECTIONS):
            direction = make_noise(WINDOW, WINDOW, 100 + seed)
            measured = slope(lambda z, j=window: smooth(scene.decode(scene.clean(z, j)), target), at, direction)
            predicted = float((gradients[window] * direction).sum())
            assert predicted == pytest.approx(measured, rel=TOLERANCE, abs=1e-12)


def test_x0_gradient_is_the_slope_at_the_clean_estimate(scene: Scene, make_noise: NoiseMaker) -> None:
    gradients = scene.z - scene.nudge(1.0, gradient="x0").z
    target = scene.target()
    for window in (0, 2):
        at = scene.clean(scene.z[window : window + 1], window)
        direction = make_noise(WINDOW, WINDOW, 100)
        measured = slope(lambda x0: smooth(scene.decode(x0), target), at, direction)
        predicted = float((gradients[window] * direction).sum())
        assert predicted == pytest.approx(measured, rel=TOLERANCE, abs=1e-12)


@pytest.mark.parametrize("objective", ["stlpips", smooth], ids=["stlpips", "smooth"])
def test_a_small_nudge_lowers_the_loss(scene: Scene, objective: Any) -> None:
    losses = objectives.load(objective).against(scene.target())
    moved = scene.nudge(300.0, objective=objective, step_size="rms").z
    small = scene.z + 1e-4 * (moved - scene.z)
    for window in (0, 2):
        before, after = (losses(scene.decode(scene.clean(z[window : window + 1], window))) for z in (scene.z, small))
        assert after < before


def test_the_anchor_stays_and_its_prediction_is_handed_on(scene: Scene) -> None:
    nudged = scene.nudge(1000.0, batch=2)
    assert torch.equal(nudged.z[ANCHOR], scene.z[ANCHOR])
    assert not torch.equal(nudged.z[0], scene.z[0])
    assert set(nudged.known) == {ANCHOR}
    assert torch.equal(nudged.known[ANCHOR], scene.predict(scene.z[ANCHOR : ANCHOR + 1], [ANCHOR])[0])


def test_an_anchor_image_moves_every_window(scene: Scene) -> None:
    nudged = scene.nudge(1000.0, anchor=scene.target().flip(-1))
    assert not nudged.known
    assert all(not torch.equal(moved, z) for moved, z in zip(nudged.z, scene.z, strict=True))


def test_rms_steps_of_weight_20_have_the_size_of_6_hundredths(scene: Scene) -> None:
    moves = scene.nudge(20.0, step_size="rms").z - scene.z
    sizes = moves.square().mean((1, 2, 3)).sqrt()
    assert sizes[[0, 2]].tolist() == pytest.approx([0.06, 0.06])


def test_the_weight_scales_the_move(scene: Scene) -> None:
    one, ten = (scene.nudge(weight).z - scene.z for weight in (1.0, 10.0))
    assert torch.allclose(10 * one, ten, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def draw(make_pipe: PipeFactory, make_map: MapMaker) -> Callable[[SyncConfig], Tensor]:
    """Returns a function from sync settings to the final float32 latents of a wide canvas."""
    montage = Montage.from_pipe(make_pipe(1, torch.float32))
    control_map = make_map(2 * WINDOW * CELL, WINDOW * CELL)

    def run(sync: SyncConfig) -> Tensor:
        return montage(
            "a red hill", control_map, sampling=SamplingConfig(steps=5), windows=WindowConfig(stride=4), sync=sync
        ).latents

    return run


@pytest.mark.parametrize("off", [{"weight": 0.0, "steps": 5}, {"weight": 2000.0, "steps": 0}])
def test_sync_off_is_off_bit_for_bit(draw: Callable[[SyncConfig], Tensor], off: dict[str, Any]) -> None:
    plain = draw(SyncConfig(weight=0.0))
    assert torch.equal(draw(SyncConfig(objective=smooth, **off)), plain)
    assert not torch.equal(draw(SyncConfig(objective=smooth, weight=2000.0)), plain)


def test_every_and_steps_choose_the_steps(draw: Callable[[SyncConfig], Tensor]) -> None:
    def synced(**options: Any) -> Tensor:
        return draw(SyncConfig(weight=2000.0, objective=smooth, **options))

    assert torch.equal(synced(steps=1), synced(steps=2, every=2))
    assert torch.equal(synced(steps=3, every=2), synced(steps=4, every=2))
    assert not torch.equal(synced(steps=2, every=1), synced(steps=2, every=2))
    assert not torch.equal(synced(steps=3, every=2), synced(steps=2, every=2))
