"""Windows that take on the anchor's statistics: the estimate moves, the noise stays, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import ConfigError
from synccontrol.sampling import objectives
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.noise_level import PREDICTION_TYPES, NoiseLevel, prediction_for, x0_hat
from synccontrol.sampling.sync import Sync, SyncNetworks
from synccontrol.spec.settings import ONCE
from tests.conftest import CELL, WINDOW, PipeFactory

WINDOWS, ANCHOR, CHANNELS = 4, 2, 3
LEVEL = NoiseLevel(index=1, signal=0.28, noise=0.96, t=900.0)


def windows(seed: int) -> Tensor:
    """Return windows (4, 3, 6, 6), each with a mean and deviation of its own."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(WINDOWS, CHANNELS, 6, 6, generator=generator, dtype=torch.float64)
    own = torch.rand(2, WINDOWS, CHANNELS, 1, 1, generator=generator, dtype=torch.float64)
    return draw * (0.5 + own[0]) + own[1]


def nudged(
    kind: str, anchor: int | Tensor = ANCHOR, **options: Any
) -> tuple[Tensor, Tensor, Tensor, dict[int, Tensor]]:
    """Return z before and after, the estimates before, and the predictions that stay valid."""
    z, x0 = windows(0), windows(1)

    def predict(some: Tensor, indices: Any) -> Tensor:
        return torch.stack([prediction_for(z[j], x0[j], LEVEL, kind) for j in indices])

    networks = SyncNetworks(decode=lambda latents: latents, encode=lambda picture: 2 * picture, kind=kind)
    config = SyncConfig(predict=ONCE, gradient="x0", **{"weight": 0.0, "adain": 1.0, **options}).complete()
    objective = objectives.load(lambda images, wanted: (images - wanted).square().mean((1, 2, 3)))
    moved, known = Sync(config, objective, anchor, networks, BatchedPredictor(2, print)).nudge(z, LEVEL, predict)
    return z, moved, x0, known


def statistics(latents: Tensor) -> Tensor:
    """Return deviation and mean of every channel."""
    return torch.stack(torch.std_mean(latents, dim=(-2, -1)))


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_alignment_changes_the_estimate_to_the_anchors_statistics_and_keeps_the_noise(kind: str) -> None:
    z, moved, x0, _ = nudged(kind)
    noise = (z - LEVEL.signal * x0) / LEVEL.noise
    restyled = (moved - LEVEL.noise * noise) / LEVEL.signal
    torch.testing.assert_close(statistics(restyled), statistics(x0[ANCHOR]).unsqueeze(1).expand(-1, WINDOWS, -1))
    for window in range(WINDOWS):  # the content is the window's own
        for channel in range(CHANNELS):
            pair = torch.stack([restyled[window, channel].flatten(), x0[window, channel].flatten()])
            assert torch.corrcoef(pair)[0, 1] > 1 - 1e-9


def test_half_the_weight_moves_half_as_far() -> None:
    z, whole, _, _ = nudged("epsilon")
    _, half, _, _ = nudged("epsilon", adain=0.5)
    torch.testing.assert_close(half - z, (whole - z) / 2)


def test_the_anchor_does_not_move_and_predictions_are_returned() -> None:
    z, moved, x0, known = nudged("v_prediction")
    assert torch.equal(moved[ANCHOR], z[ANCHOR]) and not torch.equal(moved[0], z[0])
    assert sorted(known) == list(range(WINDOWS))
    torch.testing.assert_close(x0_hat(z, torch.stack([known[j] for j in range(WINDOWS)]), LEVEL, "v_prediction"), x0)


def test_an_anchor_image_sets_the_statistics_of_every_window() -> None:
    picture = windows(2)[:1]
    z, moved, x0, _ = nudged("epsilon", anchor=picture)
    restyled = (moved - (z - LEVEL.signal * x0)) / LEVEL.signal
    torch.testing.assert_close(statistics(restyled), statistics(2 * picture[0]).unsqueeze(1).expand(-1, WINDOWS, -1))


def test_alignment_adds_to_the_objective() -> None:
    z, both, _, _ = nudged("epsilon", weight=20.0)
    _, alone, _, _ = nudged("epsilon", weight=20.0, adain=0.0)
    _, restyled, _, _ = nudged("epsilon")
    assert not torch.equal(alone, z)
    torch.testing.assert_close(both - z, (alone - z) + (restyled - z))


def test_flat_windows_stay_finite() -> None:
    networks = SyncNetworks(decode=lambda x: x, encode=lambda x: x, kind="sample")
    sync = Sync(SyncConfig(weight=0.0, adain=1.0).complete(), None, 0, networks, BatchedPredictor(1, print))
    moved, _ = sync.nudge(windows(0), LEVEL, lambda some, indices: torch.full_like(some, 0.5))
    assert moved.isfinite().all()


@pytest.fixture
def draw(make_pipe: PipeFactory) -> Iterator[Callable[..., Tensor]]:
    """Return the function from a config of sync to the final latents of a small canvas."""
    montage = Montage.from_pipe(make_pipe(0))

    def run(**sync: Any) -> Tensor:
        return montage(
            "a red hill",
            height=WINDOW * CELL,
            width=2 * WINDOW * CELL,
            sampling=SamplingConfig(steps=3, scheduler="ddim").complete(),
            windows=WindowConfig(stride=WINDOW // 2).complete(),
            sync=SyncConfig(**sync).complete(),
        ).latents

    yield run


def test_alignment_needs_no_objective_and_acts_in_its_steps_only(draw: Callable[..., Tensor]) -> None:
    def unloadable(images: Tensor, anchor: Tensor) -> Tensor:
        raise AssertionError("the objective has nothing to do")

    off, one, three, more = (
        draw(weight=0.0, adain=1.0, adain_steps=steps, objective=unloadable) for steps in (0, 1, 3, 30)
    )
    assert torch.equal(off, draw(weight=0.0))
    assert not torch.equal(off, one) and not torch.equal(one, three)
    assert torch.equal(three, more)


@pytest.mark.parametrize("wrong", [{"adain": 1.5}, {"adain": -0.1}, {"adain_steps": -1}])
def test_values_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sync adain"):
        SyncConfig(**wrong).complete()


def test_alignment_stops_for_a_window_that_keeps_moving_away() -> None:
    """As under guidance, which may answer with a move the other way."""
    z, near = windows(0), windows(1)
    kind = "v_prediction"
    networks = SyncNetworks(decode=lambda x: x, encode=lambda x: x, kind=kind)
    config = SyncConfig(weight=0.0, adain=1.0, predict=ONCE).complete()
    sync = Sync(config, None, ANCHOR, networks, BatchedPredictor(WINDOWS, print))

    def moved(x0: Tensor) -> list[bool]:
        after, _ = sync.nudge(z, LEVEL, lambda some, indices: prediction_for(some, x0[list(indices)], LEVEL, kind))
        return [not torch.equal(after[window], z[window]) for window in range(WINDOWS)]

    def away(by: float) -> Tensor:
        far = near.clone()
        far[0] += by
        return far

    others = [window != ANCHOR for window in range(WINDOWS)]
    for x0 in (near, away(4.0), away(8.0), near, away(4.0), away(8.0)):  # twice in a row mean nothing
        assert moved(x0) == others
    assert moved(away(12.0)) == [False, *others[1:]]
    assert moved(near) == [False, *others[1:]]


def test_flat_channels_stay_finite_and_an_anchor_image_is_encoded_once() -> None:
    encoded: list[Tensor] = []

    def encode(picture: Tensor) -> Tensor:
        encoded.append(picture)
        return 1e3 * picture.float()

    flat = torch.full((WINDOWS, CHANNELS, 6, 6), 0.5)
    networks = SyncNetworks(decode=lambda x: x, encode=encode, kind="sample")
    sync = Sync(
        SyncConfig(weight=0.0, adain=1.0).complete(), None, windows(2)[:1], networks, BatchedPredictor(1, print)
    )
    for _ in range(2):
        moved, _ = sync.nudge(flat, LEVEL, lambda some, indices: flat[list(indices)])
        assert moved.isfinite().all()
    assert len(encoded) == 1
