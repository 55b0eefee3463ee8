"""The only door to diffusers schedulers, which stay the solvers: one fresh object a picture.

Solvers keep x_t in the networks' coordinates z (DDIM, DPM++, UniPC, flow matching), or as z / signal (Euler and its
kin). Sync moves the canvas between two steps; a solver is told of such a jump by `Solver.moved`.
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
from synccontrol.sampling.noise_level import KINDS, Level
from synccontrol.spec.settings import MODEL, SCHEDULERS


class Draws(Enum):
    """What noise a solver's step draws."""

    NONE = auto()
    SOME = auto()  # where its configuration says so, always in float32
    ALWAYS = auto()  # in the dtype of what it is given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a diffusers scheduler."""

    levels: Callable[[Any], tuple[Tensor, Tensor]]  # signal and noise of every step
    scaled: bool = False  # x_t is z / signal
    forget: tuple[tuple[str, Any], ...] | None = ()  # what to set when the canvas was moved; None: that does not help
    draws: Draws = Draws.NONE


def _by_timestep(scheduler: Any) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps.cpu().long()]
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


def _by_sigma(scheduler: Any) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    return _of_sigmas(scheduler, scheduler.sigmas[: len(scheduler.timesteps)].cpu())


def _by_two_sigmas(scheduler: Any) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    # KDPM2 looks at a level of its own in every second step.
    sigmas = scheduler.sigmas[: len(scheduler.timesteps)].cpu().clone()
    sigmas[1::2] = scheduler.sigmas_interpol[: len(scheduler.timesteps)].cpu()[1::2]
    return _of_sigmas(scheduler, sigmas)


def _of_sigmas(scheduler: Any, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    if _is_flow(scheduler):
        return 1 - sigmas, sigmas
    alpha_bar = 1 / (1 + sigmas**2)
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


FACTS: dict[str, Facts] = {
    "DDIMScheduler": Facts(levels=_by_timestep),
    "DDPMScheduler": Facts(levels=_by_timestep, draws=Draws.ALWAYS),
    "LCMScheduler": Facts(levels=_by_timestep, draws=Draws.ALWAYS),
    "TCDScheduler": Facts(levels=_by_timestep, draws=Draws.ALWAYS),
    "EulerDiscreteScheduler": Facts(levels=_by_sigma, scaled=True),
    "EulerAncestralDiscreteScheduler": Facts(levels=_by_sigma, scaled=True, draws=Draws.ALWAYS),
    "LMSDiscreteScheduler": Facts(levels=_by_sigma, scaled=True, forget=None),
    "HeunDiscreteScheduler": Facts(levels=_by_sigma, scaled=True, forget=None),
    "KDPM2DiscreteScheduler": Facts(levels=_by_two_sigmas, scaled=True, forget=None),
    "DPMSolverMultistepScheduler": Facts(levels=_by_sigma, draws=Draws.SOME),
    "DPMSolverSinglestepScheduler": Facts(levels=_by_sigma, forget=None, draws=Draws.SOME),
    "DEISMultistepScheduler": Facts(levels=_by_sigma, forget=(("lower_order_nums", 0),)),
    "UniPCMultistepScheduler": Facts(levels=_by_sigma, forget=(("lower_order_nums", 0), ("last_sample", None))),
    "FlowMatchEulerDiscreteScheduler": Facts(levels=_by_sigma, draws=Draws.SOME),
    "FlowMatchHeunDiscreteScheduler": Facts(levels=_by_sigma, forget=None),
}
REPLACED = {"PNDMScheduler": "ddim"}  # drops every move of the canvas; every published SD 1.5 comes with it
UNCLIPPED = ("DDIMScheduler", "DDPMScheduler")  # would clip latents as if they were pictures, if not told otherwise
FLOW_SOLVERS = {  # the names that flow-matching models can be solved by
    "euler": "FlowMatchEulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


class Solver:
    """One run of a solver over the whole canvas. The caller's scheduler is copied, never changed.

    Args:
        scheduler: a diffusers scheduler, which says the noise schedule and what the networks predict.
        name: a solver of `config.SCHEDULERS` to use with that noise schedule, or 'model' for the scheduler's own.
        steps: denoising steps.
        device: where the latents live.
        generator: CPU generator that every stochastic step draws from, in float32.
        mu: Rarely needed: the shift of a flow schedule that depends on the window's tokens.
        skipped: how many of the steps are left out, from the first; levels count from the one that is left.

    Raises:
        ConfigError: no such solver for this model, or it cannot do that many steps.
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
        self._scheduler, self.note = _fresh(scheduler, name)
        self._facts = FACTS[type(self._scheduler).__name__]
        self._generator = generator
        flow = _is_flow(self._scheduler)
        self.kind: str = "flow_prediction" if flow else self._scheduler.config.prediction_type
        if self.kind not in KINDS:
            raise ConfigError(f"the model predicts {self.kind!r}; known: {', '.join(KINDS)}")
        most = _training_steps(self._scheduler)
        if not flow and steps > most:  # levels would repeat, and not every solver says so
            raise ConfigError(f"{type(self._scheduler).__name__} cannot make {steps} steps; use {most} at most")
        try:
            _set_timesteps(self._scheduler, steps, device, mu)
            signals, noises = self._facts.levels(self._scheduler)
        except (ValueError, IndexError, AssertionError) as error:
            raise ConfigError(f"{type(self._scheduler).__name__} cannot make {steps} steps: {error}") from error
        if not noises.isfinite().all():
            raise ConfigError(f"{type(self._scheduler).__name__} cannot make {steps} steps for this model; use more")
        t = self._scheduler.timesteps if not flow else noises * most
        rows = list(zip(signals.tolist(), noises.tolist(), t.tolist(), strict=True))
        self._first = skipped * self._scheduler.order
        if self._first and hasattr(self._scheduler, "set_begin_index"):  # others know where they are by the timestep
            self._scheduler.set_begin_index(self._first)
        self.levels = tuple(
            Level(index=index, signal=signal, noise=noise, t=float(t))
            for index, (signal, noise, t) in enumerate(rows[self._first :])
        )

    def require_moves(self) -> None:
        """Raises `ConfigError` when the canvas cannot be moved between two steps, which sync does."""
        if self._facts.forget is None:
            able = [name for name, known in SCHEDULERS.items() if _can_move(known.diffusers)]
            raise ConfigError(
                f"{type(self._scheduler).__name__} goes on from a canvas it remembers, so that sync would be lost; "
                f"choose one of the schedulers {', '.join(able)}, or turn sync off (sync weight 0 and sync adain 0)"
            )

    def start(
        self, noise: Float[Tensor, "1 c y x"], x0: Float[Tensor, "1 c y x"] | None = None
    ) -> Float[Tensor, "1 c y x"]:
        """Returns the first x_t, for unit-variance noise of the same shape; over clean latents x0 if there are any."""
        if x0 is not None:
            return self._x_t(self.levels[0].signal * x0 + self.levels[0].noise * noise, self.levels[0])
        return noise * float(self._scheduler.init_noise_sigma) if self._facts.scaled else noise

    def z(self, x_t: Float[Tensor, "*canvas"], level: Level) -> Float[Tensor, "*canvas"]:
        """Returns x_t as the networks see it."""
        if not self._facts.scaled:
            return x_t
        z: Tensor = self._scheduler.scale_model_input(x_t, self._timestep(level))
        return z

    def _x_t(self, z: Float[Tensor, "1 c y x"], level: Level) -> Float[Tensor, "1 c y x"]:
        return z / self.z(z.new_ones(1), level)

    def _timestep(self, level: Level) -> Tensor:
        t: Tensor = self._scheduler.timesteps[self._first + level.index]
        return t

    def moved(self, z: Float[Tensor, "1 c y x"], level: Level) -> Float[Tensor, "1 c y x"]:
        """Returns x_t for a z that something else than the solver has made: its history is forgotten where it must."""
        self.require_moves()
        for name, value in self._facts.forget or ():
            setattr(self._scheduler, name, value)
        return self._x_t(z, level)

    def step(
        self, prediction: Float[Tensor, "1 c y x"], level: Level, x_t: Float[Tensor, "1 c y x"]
    ) -> Float[Tensor, "1 c y x"]:
        """Returns the x_t of the next level. Call it once per level, in order: solvers keep a history."""
        drawn = self._facts.draws is Draws.ALWAYS
        dtype = torch.float32 if drawn else x_t.dtype  # the same noise whatever the dtype of the canvas
        noise = {} if self._facts.draws is Draws.NONE else {"generator": self._generator}
        t, x_t_now = self._timestep(level), x_t.to(dtype)
        stepped: Tensor = self._scheduler.step(prediction.to(dtype), t, x_t_now, return_dict=False, **noise)[0]
        return stepped.to(x_t.dtype)


def _fresh(scheduler: Any, name: str) -> tuple[Any, str]:
    """Returns a new scheduler of that name on the noise schedule of another, and a note if its own was replaced."""
    own, note = type(scheduler).__name__, ""
    if name == MODEL and own in REPLACED:
        name = REPLACED[own]
        note = f"the model comes with {own}, under which sync would be lost: {name} is used, on the same noise schedule"
    flow = _is_flow(scheduler)
    known = FLOW_SOLVERS if flow else {key: value.diffusers for key, value in SCHEDULERS.items() if key != MODEL}
    wanted = own if name == MODEL else known.get(name)
    if wanted not in FACTS:
        why = f"{wanted} is not known here" if wanted else f"{name} does not solve flow-matching models"
        raise ConfigError(f"{why}; choose one of the schedulers {', '.join(known)}")
    options: dict[str, Any] = {"clip_sample": False} if wanted in UNCLIPPED else {}
    if flow and not wanted.startswith("FlowMatch"):
        config = scheduler.config
        options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        options["flow_shift"] = config.get("flow_shift", config.get("shift", 1.0))
    kind = getattr(diffusers, wanted)
    parameters = inspect.signature(kind.__init__).parameters  # diffusers logs a line for what a class does not know
    known_config = {key: value for key, value in scheduler.config.items() if key in parameters}
    return kind.from_config(known_config, **options), note


def _is_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas"))


def _training_steps(scheduler: Any) -> int:
    return int(scheduler.config.num_train_timesteps)


def _set_timesteps(scheduler: Any, steps: int, device: torch.device, mu: float | None) -> None:
    shift = {} if mu is None else {"mu": mu}
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        # Explicit: left to itself it shifts its levels twice (huggingface/diffusers#13243).
        with np.errstate(invalid="ignore"):  # a schedule with a last level of its own makes no single step
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist(), device=device, **shift)
    else:
        scheduler.set_timesteps(steps, device=device, **shift)
    if _is_flow(scheduler):
        scheduler.set_begin_index(0)  # some round their timesteps, which may then be there twice


def _can_move(scheduler_class: str) -> bool:
    return scheduler_class in FACTS and FACTS[scheduler_class].forget is not None
