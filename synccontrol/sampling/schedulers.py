"""The interface to diffusers schedulers; every image uses a new scheduler object.

Schedulers keep x_t in the networks' coordinates z (DDIM, DPM++, UniPC, flow matching), or as z / signal (Euler and
similar). Sync moves the canvas between two steps; `SchedulerRun.restart_from` tells the scheduler about it.
"""

import dataclasses
import inspect
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import diffusers
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.errors import ConfigError
from synccontrol.sampling.noise_level import PREDICTION_TYPES, NoiseLevel
from synccontrol.spec.settings import MODEL, SCHEDULERS


class StepNoise(Enum):
    """When a scheduler's step adds random noise."""

    NONE = auto()
    SOME = auto()  # if its configuration asks for it, always in float32
    ALWAYS = auto()  # in the dtype of its input


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulerTraits:
    """The properties of a diffusers scheduler that this package relies on."""

    levels: Callable[[Any], tuple[Tensor, Tensor]]  # signal and noise of every step
    scaled: bool = False  # x_t is z / signal
    reset_on_move: tuple[tuple[str, Any], ...] | None = ()  # attributes to reset after a move; None: cannot be moved
    step_noise: StepNoise = StepNoise.NONE


def _levels_by_timestep(scheduler: Any) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps.cpu().long()]
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


def _levels_by_sigma(scheduler: Any) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    return _levels_of_sigmas(scheduler, scheduler.sigmas[: len(scheduler.timesteps)].cpu())


def _levels_by_two_sigmas(scheduler: Any) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    # KDPM2 evaluates an interpolated level in every second step.
    sigmas = scheduler.sigmas[: len(scheduler.timesteps)].cpu().clone()
    sigmas[1::2] = scheduler.sigmas_interpol[: len(scheduler.timesteps)].cpu()[1::2]
    return _levels_of_sigmas(scheduler, sigmas)


def _levels_of_sigmas(scheduler: Any, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    if _is_flow(scheduler):
        return 1 - sigmas, sigmas
    alpha_bar = 1 / (1 + sigmas**2)
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


TRAITS: dict[str, SchedulerTraits] = {
    "DDIMScheduler": SchedulerTraits(levels=_levels_by_timestep),
    "DDPMScheduler": SchedulerTraits(levels=_levels_by_timestep, step_noise=StepNoise.ALWAYS),
    "LCMScheduler": SchedulerTraits(levels=_levels_by_timestep, step_noise=StepNoise.ALWAYS),
    "TCDScheduler": SchedulerTraits(levels=_levels_by_timestep, step_noise=StepNoise.ALWAYS),
    "EulerDiscreteScheduler": SchedulerTraits(levels=_levels_by_sigma, scaled=True),
    "EulerAncestralDiscreteScheduler": SchedulerTraits(
        levels=_levels_by_sigma, scaled=True, step_noise=StepNoise.ALWAYS
    ),
    "LMSDiscreteScheduler": SchedulerTraits(levels=_levels_by_sigma, scaled=True, reset_on_move=None),
    "HeunDiscreteScheduler": SchedulerTraits(levels=_levels_by_sigma, scaled=True, reset_on_move=None),
    "KDPM2DiscreteScheduler": SchedulerTraits(levels=_levels_by_two_sigmas, scaled=True, reset_on_move=None),
    "DPMSolverMultistepScheduler": SchedulerTraits(levels=_levels_by_sigma, step_noise=StepNoise.SOME),
    "DPMSolverSinglestepScheduler": SchedulerTraits(
        levels=_levels_by_sigma, reset_on_move=None, step_noise=StepNoise.SOME
    ),
    "DEISMultistepScheduler": SchedulerTraits(levels=_levels_by_sigma, reset_on_move=(("lower_order_nums", 0),)),
    "UniPCMultistepScheduler": SchedulerTraits(
        levels=_levels_by_sigma, reset_on_move=(("lower_order_nums", 0), ("last_sample", None))
    ),
    "FlowMatchEulerDiscreteScheduler": SchedulerTraits(levels=_levels_by_sigma, step_noise=StepNoise.SOME),
    "FlowMatchHeunDiscreteScheduler": SchedulerTraits(levels=_levels_by_sigma, reset_on_move=None),
}
REPLACEMENTS = {"PNDMScheduler": "ddim"}  # drops every move of the canvas; the scheduler of published SD 1.5 models
UNCLIPPED_SCHEDULERS = ("DDIMScheduler", "DDPMScheduler")  # their default clips latents like images
FLOW_SOLVERS = {  # scheduler names for flow-matching models
    "euler": "FlowMatchEulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


class SchedulerRun:
    """One run of a scheduler over the whole canvas. The caller's scheduler is copied, never changed.

    Args:
        scheduler: a diffusers scheduler, which defines the noise schedule and the prediction type.
        name: a name in `SCHEDULERS` to use with that noise schedule, or 'model' for the scheduler itself.
        steps: denoising steps.
        device: device of the latents.
        generator: CPU generator of every stochastic step, in float32.
        mu: rarely needed: shift of a flow schedule that depends on the window's tokens.
        skipped: number of first steps to skip; levels count from the first remaining one.

    Raises:
        ConfigError: the scheduler is unknown for this model, or cannot run that many steps.
    """

    def __init__(
        self,
        scheduler: Any,
        name: str,
        steps: int,
        *,
        device: torch.device,
        generator: torch.Generator,
        mu: float | None = None,
        skipped: int = 0,
    ) -> None:
        self._scheduler, self.note = _new_scheduler(scheduler, name)
        self._traits = TRAITS[type(self._scheduler).__name__]
        self._generator = generator
        flow = _is_flow(self._scheduler)
        self.prediction_type: str = "flow_prediction" if flow else self._scheduler.config.prediction_type
        if self.prediction_type not in PREDICTION_TYPES:
            raise ConfigError(f"the model predicts {self.prediction_type!r}; known: {', '.join(PREDICTION_TYPES)}")
        max_steps = _training_steps(self._scheduler)
        if not flow and steps > max_steps:  # levels would repeat, and not every scheduler raises
            raise ConfigError(f"{type(self._scheduler).__name__} cannot run {steps} steps; use {max_steps} at most")
        try:
            _set_timesteps(self._scheduler, steps, device, mu)
            signals, noises = self._traits.levels(self._scheduler)
        except (ValueError, IndexError, AssertionError) as error:
            raise ConfigError(f"{type(self._scheduler).__name__} cannot run {steps} steps: {error}") from error
        if not noises.isfinite().all():
            raise ConfigError(f"{type(self._scheduler).__name__} cannot run {steps} steps for this model; use more")
        t = self._scheduler.timesteps if not flow else noises * max_steps
        rows = list(zip(signals.tolist(), noises.tolist(), t.tolist(), strict=True))
        self._begin = skipped * self._scheduler.order
        # Schedulers without a begin index find their position by the timestep.
        if self._begin and hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(self._begin)
        self.levels = tuple(
            NoiseLevel(index=index, signal=signal, noise=noise, t=float(t))
            for index, (signal, noise, t) in enumerate(rows[self._begin :])
        )

    def check_sync_support(self) -> None:
        """Raise `ConfigError` if the scheduler cannot handle a canvas that sync moves between two steps."""
        if self._traits.reset_on_move is None:
            supported = [name for name, names in SCHEDULERS.items() if _supports_sync(names.diffusers)]
            raise ConfigError(
                f"{type(self._scheduler).__name__} goes on from a canvas it remembers, so that sync would be lost; "
                f"choose one of the schedulers {', '.join(supported)}, or turn sync off "
                "(sync weight 0 and sync adain 0)"
            )

    def start(
        self, noise: Float[Tensor, "1 c y x"], x0: Float[Tensor, "1 c y x"] | None = None
    ) -> Float[Tensor, "1 c y x"]:
        """Return the first x_t for unit-variance noise; with clean latents x0, the noise is added to them."""
        if x0 is not None:
            return self._from_model_input(self.levels[0].signal * x0 + self.levels[0].noise * noise, self.levels[0])
        return noise * float(self._scheduler.init_noise_sigma) if self._traits.scaled else noise

    def model_input(self, x_t: Float[Tensor, "*canvas"], level: NoiseLevel) -> Float[Tensor, "*canvas"]:
        """Return x_t in the networks' coordinates z."""
        if not self._traits.scaled:
            return x_t
        z: Tensor = self._scheduler.scale_model_input(x_t, self._timestep_at(level))
        return z

    def _from_model_input(self, z: Float[Tensor, "1 c y x"], level: NoiseLevel) -> Float[Tensor, "1 c y x"]:
        return z / self.model_input(z.new_ones(1), level)

    def _timestep_at(self, level: NoiseLevel) -> Tensor:
        t: Tensor = self._scheduler.timesteps[self._begin + level.index]
        return t

    def restart_from(self, z: Float[Tensor, "1 c y x"], level: NoiseLevel) -> Float[Tensor, "1 c y x"]:
        """Return x_t for a canvas z that was changed outside the scheduler, and reset its history where needed."""
        self.check_sync_support()
        for name, value in self._traits.reset_on_move or ():
            setattr(self._scheduler, name, value)
        return self._from_model_input(z, level)

    def step(
        self, prediction: Float[Tensor, "1 c y x"], level: NoiseLevel, x_t: Float[Tensor, "1 c y x"]
    ) -> Float[Tensor, "1 c y x"]:
        """Return the x_t of the next level. Call it once per level, in order: schedulers keep a history."""
        is_always_noisy = self._traits.step_noise is StepNoise.ALWAYS
        dtype = torch.float32 if is_always_noisy else x_t.dtype  # the noise does not depend on the canvas dtype
        noise = {} if self._traits.step_noise is StepNoise.NONE else {"generator": self._generator}
        t, sample = self._timestep_at(level), x_t.to(dtype)
        stepped: Tensor = self._scheduler.step(prediction.to(dtype), t, sample, return_dict=False, **noise)[0]
        return stepped.to(x_t.dtype)


def _new_scheduler(scheduler: Any, name: str) -> tuple[Any, str]:
    """Return a new scheduler of that name on another's noise schedule, and a note if the model's own was replaced."""
    own_class, note = type(scheduler).__name__, ""
    if name == MODEL and own_class in REPLACEMENTS:
        name = REPLACEMENTS[own_class]
        note = (
            f"the model comes with {own_class}, under which sync would be lost: {name} is used, "
            "on the same noise schedule"
        )
    flow = _is_flow(scheduler)
    choices = FLOW_SOLVERS if flow else {key: value.diffusers for key, value in SCHEDULERS.items() if key != MODEL}
    scheduler_class = own_class if name == MODEL else choices.get(name)
    if scheduler_class not in TRAITS:
        reason = (
            f"{scheduler_class} is not known here" if scheduler_class else f"{name} does not solve flow-matching models"
        )
        raise ConfigError(f"{reason}; choose one of the schedulers {', '.join(choices)}")
    options: dict[str, Any] = {"clip_sample": False} if scheduler_class in UNCLIPPED_SCHEDULERS else {}
    if flow and not scheduler_class.startswith("FlowMatch"):
        config = scheduler.config
        options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        options["flow_shift"] = config.get("flow_shift", config.get("shift", 1.0))
    cls = getattr(diffusers, scheduler_class)
    parameters = inspect.signature(cls.__init__).parameters  # diffusers logs a warning for unknown entries
    known_config = {key: value for key, value in scheduler.config.items() if key in parameters}
    return cls.from_config(known_config, **options), note


def _is_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas"))


def _training_steps(scheduler: Any) -> int:
    return int(scheduler.config.num_train_timesteps)


def _set_timesteps(scheduler: Any, steps: int, device: torch.device, mu: float | None) -> None:
    shift = {} if mu is None else {"mu": mu}
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        # Explicit sigmas: by default it shifts its levels twice (huggingface/diffusers#13243).
        with np.errstate(invalid="ignore"):  # a schedule with its own last level has no single step
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist(), device=device, **shift)
    else:
        scheduler.set_timesteps(steps, device=device, **shift)
    if _is_flow(scheduler):
        scheduler.set_begin_index(0)  # rounded timesteps may repeat


def _supports_sync(scheduler_class: str) -> bool:
    return scheduler_class in TRAITS and TRAITS[scheduler_class].reset_on_move is not None
