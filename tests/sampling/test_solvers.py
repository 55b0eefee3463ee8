"""Solvers on the exact denoiser of Gaussian data: levels, moves of the canvas between steps, flow matching, PNDM."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from synccontrol.errors import ConfigError
from synccontrol.sampling.noise_level import PREDICTION_TYPES, NoiseLevel, prediction_for, x0_hat
from synccontrol.sampling.schedulers import FLOW_SOLVERS, TRAITS, SchedulerRun, StepNoise
from synccontrol.spec.settings import MODEL, SCHEDULERS

MEAN, DEVIATION = 0.7, 0.5  # of the data
STEPS = 50
LATE = 5  # steps at the end, where a second order that keeps its history overshoots a little
MOVE = 1.0  # added to every cell of z at one step
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
DDIM = diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=True)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
NAMES = [name for name in SCHEDULERS if name != MODEL]
ORDERLY = [
    name
    for name, traits in TRAITS.items()
    if traits.step_noise is not StepNoise.ALWAYS and not name.startswith("FlowMatch")
]
MOVABLE = [name for name in ORDERLY if TRAITS[name].reset_on_move is not None]
FIXED = [name for name, traits in TRAITS.items() if traits.reset_on_move is None]


def solver(scheduler: Any, name: str = MODEL, steps: int = STEPS, seed: int = 0) -> SchedulerRun:
    return SchedulerRun(
        scheduler, name, steps, device=torch.device("cpu"), generator=torch.Generator().manual_seed(seed)
    )


def named(scheduler_class: str) -> Any:
    """Return a scheduler of that class on the tests' noise schedule."""
    base = FLOW if scheduler_class.startswith("FlowMatch") else DDIM
    kind = getattr(diffusers, scheduler_class)
    return kind.from_config({key: value for key, value in base.config.items() if key in kind().config})


def denoise(z: Tensor, level: NoiseLevel, kind: str) -> Tensor:
    """Return the prediction of E[x0 | z] for data N(MEAN, DEVIATION^2)."""
    gain = level.signal * DEVIATION**2 / ((level.signal * DEVIATION) ** 2 + level.noise**2)
    return prediction_for(z, MEAN + gain * (z - level.signal * MEAN), level, kind)


def run(of: SchedulerRun, moved_at: int | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return what a solver makes of noise, the canvas moved at one step."""
    x_t = of.start(torch.randn(1, 1, 24, 24, generator=of._generator).to(dtype))
    for level in of.levels:
        if level.index == moved_at:
            x_t = of.restart_from(of.model_input(x_t, level) + MOVE, level)
        x_t = of.step(denoise(of.model_input(x_t, level), level, of.prediction_type), level, x_t)
    return x_t


def shifts(scheduler: Any, name: str = MODEL) -> list[float]:
    """Return by how much a move at each step moves the mean of the result."""
    still = run(solver(scheduler, name))
    return [float((run(solver(scheduler, name), at) - still).mean()) for at in range(STEPS)]


def assert_alike(ours: list[float], expected: list[float], late: float) -> None:
    """Raise unless moves count alike within 10 %, in the last steps within `late`."""
    assert ours[:-LATE] == pytest.approx(expected[:-LATE], rel=0.1, abs=1e-3)
    assert ours[-LATE:] == pytest.approx(expected[-LATE:], rel=late)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_prediction_and_clean_estimate_are_inverse(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z, x0 = (torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    level = (
        NoiseLevel(index=0, signal=0.3, noise=0.7, t=700.0)
        if kind == "flow_prediction"
        else NoiseLevel(index=0, signal=0.6, noise=0.8, t=500.0)
    )
    prediction = prediction_for(z, x0, level, kind)
    assert torch.allclose(x0_hat(z, prediction, level, kind), x0)
    eps = (z - level.signal * x0) / level.noise
    expected = {
        "epsilon": eps,
        "v_prediction": level.signal * eps - level.noise * x0,
        "flow_prediction": eps - x0,
        "sample": x0,
    }
    assert torch.allclose(prediction, expected[kind])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_levels_match_the_noise_schedule(name: str, prediction_type: str) -> None:
    found = solver(diffusers.DDIMScheduler.from_config(DDIM.config, prediction_type=prediction_type), name)
    assert found.prediction_type == prediction_type
    assert [level.index for level in found.levels] == list(range(STEPS))
    for level in found.levels:
        assert level.signal**2 + level.noise**2 == pytest.approx(1, abs=1e-6)
        assert level.signal == pytest.approx(float(DDIM.alphas_cumprod[round(level.t)]) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("scheduler_class", ORDERLY)
def test_the_exact_denoiser_recovers_the_data(scheduler_class: str) -> None:
    made = run(solver(named(scheduler_class), steps=50))
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(made.std()) == pytest.approx(DEVIATION, abs=0.08)


@pytest.mark.parametrize("scheduler_class", MOVABLE)
def test_a_move_has_the_same_effect_under_every_scheduler_as_under_ddim(scheduler_class: str) -> None:
    assert_alike(shifts(named(scheduler_class)), shifts(DDIM, "ddim"), late=0.25)


def test_ancestral_schedulers_keep_part_of_a_move() -> None:
    assert_alike(shifts(DDIM, "euler_a"), shifts(named("DDPMScheduler")), late=0.1)


@pytest.mark.parametrize("scheduler_class", FIXED)
def test_schedulers_without_reset_reject_moves_and_list_alternatives(scheduler_class: str) -> None:
    with pytest.raises(ConfigError, match=r"ddim, euler, euler_a, dpmpp_2m, unipc") as caught:
        solver(named(scheduler_class)).check_sync_support()
    assert "\n" not in str(caught.value)


def test_noise_does_not_depend_on_the_canvas_dtype() -> None:
    low, high = (run(solver(DDIM, "euler_a"), dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert torch.allclose(low.double(), high, atol=1e-5)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_flow_matching(name: str) -> None:
    found = solver(FLOW, name)
    assert found.prediction_type == "flow_prediction"
    assert all(level.signal + level.noise == pytest.approx(1, abs=1e-6) for level in found.levels)
    assert found.levels[0].t == pytest.approx(1000, abs=1)
    assert found.levels[-1].noise == pytest.approx(
        3 / (STEPS + 2), rel=0.1
    )  # shifted once: 3 s / (1 + 2 s), s = 1 / STEPS
    made = run(solver(FLOW, name, steps=100))
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(made.std()) == pytest.approx(DEVIATION, abs=0.06)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_a_move_has_an_effect_under_flow_matching(name: str) -> None:
    levels = solver(FLOW, name).levels
    exact = [DEVIATION / ((level.signal * DEVIATION) ** 2 + level.noise**2) ** 0.5 for level in levels]
    assert_alike(shifts(FLOW, name), exact, late=0.4)


def test_dynamic_shift_uses_mu() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    options = {"device": torch.device("cpu"), "generator": torch.Generator()}
    weak, strong = (SchedulerRun(scheduler, MODEL, 4, mu=mu, **options).levels for mu in (0.5, 1.5))
    assert strong[1].noise > weak[1].noise > 0.75
    with pytest.raises(ConfigError, match="mu"):
        SchedulerRun(scheduler, MODEL, 4, **options)


def test_a_schedule_with_its_own_last_level_rejects_a_single_step() -> None:
    terminal = diffusers.FlowMatchEulerDiscreteScheduler(shift_terminal=0.02)
    with pytest.raises(ConfigError, match="cannot run 1 steps for this model; use more"):
        solver(terminal, steps=1)
    assert solver(terminal, steps=2).levels[-1].noise == pytest.approx(0.02)


@pytest.mark.parametrize("name", NAMES)
def test_more_steps_than_levels_are_rejected_by_every_scheduler(name: str) -> None:
    most = DDIM.config.num_train_timesteps
    with pytest.raises(ConfigError, match=f"cannot run {most + 1} steps; use {most} at most"):
        solver(DDIM, name, steps=most + 1)


def test_schedulers_without_flow_matching_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"ddim does not solve flow-matching models.*euler, dpmpp_2m, unipc"):
        solver(FLOW, "ddim")


def test_pndm_is_replaced_by_ddim_with_a_note() -> None:
    """As every published Stable Diffusion 1.5 comes; DDIM alone would clip latents to -1..1."""
    own = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    pndm = diffusers.PNDMScheduler(**own, steps_offset=1, set_alpha_to_one=False)
    ddim = diffusers.DDIMScheduler.from_config(DDIM.config, steps_offset=1, timestep_spacing="leading")
    ddim = diffusers.DDIMScheduler.from_config(ddim.config, set_alpha_to_one=False)
    replaced, wanted = solver(pndm), solver(ddim, "ddim")
    assert "PNDMScheduler" in replaced.note and "ddim" in replaced.note
    assert wanted.note == ""
    assert replaced.levels == wanted.levels
    assert torch.equal(run(replaced), run(wanted))


def test_the_callers_scheduler_is_not_modified() -> None:
    before = dict(DDIM.config)
    run(solver(DDIM, "unipc"), 3)
    assert dict(DDIM.config) == before
    assert DDIM.num_inference_steps is None


class Unknown(diffusers.DDIMScheduler):
    """A scheduler of somebody's own."""


def test_unknown_schedulers_are_rejected_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"Unknown is not known here; choose one of the schedulers ddim"):
        solver(Unknown())
