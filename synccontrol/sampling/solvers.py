"""The only door to diffusers schedulers: timesteps, network coordinates, clean estimates, one step per timestep.

Solvers keep x_t either in variance-preserving coordinates, x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps (DDIM,
DPM++, UniPC), or in sigma coordinates, x_t = x_0 + sigma eps (Euler and its kin). The networks always see the former:
`scale_model_input` is exactly the map into them. Everything outside this module works in those network coordinates, z.
"""

import inspect
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from synccontrol.errors import ConfigError

CLASSES: dict[str, type[Any]] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Schedule:
    """One run of a solver over the whole canvas. The caller's scheduler is copied, never changed.

    Args:
        scheduler: any diffusers scheduler of an epsilon, v or sample prediction model.
        name: a solver of `CLASSES` to use with that scheduler's noise schedule, or 'model' for its own.
        steps: denoising steps.
        device: where the latents live.
        generator: CPU generator that every stochastic step draws from.

    Raises:
        ConfigError: the scheduler cannot do that many steps, or is of another kind (flow matching).
    """

    def __init__(self, scheduler: Any, name: str, steps: int, device: torch.device, generator: torch.Generator) -> None:
        self._scheduler: Any = CLASSES.get(name, type(scheduler)).from_config(scheduler.config)
        self._prediction_type = self._scheduler.config.get("prediction_type")
        if self._prediction_type not in PREDICTION_TYPES:
            raise ConfigError(
                f"{type(scheduler).__name__} predicts {self._prediction_type!r}; "
                f"known: {', '.join(PREDICTION_TYPES)}; choose one of the schedulers {', '.join(CLASSES)}"
            )
        try:
            self._scheduler.set_timesteps(steps, device=device)
        except (ValueError, IndexError, AssertionError) as error:
            raise ConfigError(f"{type(self._scheduler).__name__} cannot make {steps} steps: {error}") from error
        self.timesteps: Tensor = self._scheduler.timesteps
        # Not every diffusers step() takes a generator; their own pipelines ask the signature as well.
        takes_generator = "generator" in inspect.signature(self._scheduler.step).parameters
        self._noise = {"generator": generator} if takes_generator else {}

    def __len__(self) -> int:
        return len(self.timesteps)

    def start(self, noise: Tensor) -> Tensor:
        """Returns the first x_t, for unit-variance noise of the same shape."""
        return noise * float(self._scheduler.init_noise_sigma)

    def to_network(self, x_t: Tensor, index: int) -> Tensor:
        """Returns z, x_t in network coordinates, at step `index`, which must be the step that comes next."""
        z: Tensor = self._scheduler.scale_model_input(x_t, self.timesteps[index])
        return z

    def from_network(self, z: Tensor, index: int) -> Tensor:
        """Returns x_t in the solver's coordinates; the inverse of `to_network`."""
        return z / self.to_network(z.new_ones(1), index)

    def x0_hat(self, z: Tensor, prediction: Tensor, index: int) -> Tensor:
        """Returns the clean estimate for z and the networks' prediction at step `index`; no state is changed.

        DDIM (arXiv 2010.02502) eq. 12 for epsilon, progressive distillation (arXiv 2202.00512) section 4 for v.
        """
        alpha_bar = self._alpha_bar(index)
        signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        if self._prediction_type == "epsilon":
            return (z - noise * prediction) / signal
        if self._prediction_type == "v_prediction":
            return signal * z - noise * prediction
        return prediction

    def pure_noise(self, z: Tensor, index: int) -> Tensor:
        """Returns the prediction for which z holds noise alone: its clean estimate, `x0_hat`, is 0."""
        alpha_bar = self._alpha_bar(index)
        signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        if self._prediction_type == "epsilon":
            return z / noise
        if self._prediction_type == "v_prediction":
            return z * signal / noise
        return torch.zeros_like(z)

    def step(self, prediction: Tensor, index: int, x_t: Tensor) -> Tensor:
        """Returns the x_t of step `index + 1`. Call it once per timestep, in order: solvers keep a history."""
        t = self.timesteps[index]
        stepped: Tensor = self._scheduler.step(prediction, t, x_t, return_dict=False, **self._noise)[0]
        return stepped

    def _alpha_bar(self, index: int) -> Tensor:
        # Solvers that may leave the training timesteps (Karras spacing) say their noise level in `sigmas`.
        sigmas: Tensor | None = getattr(self._scheduler, "sigmas", None)
        if sigmas is not None:
            return 1 / (1 + sigmas[index] ** 2)
        alpha_bar: Tensor = self._scheduler.alphas_cumprod[int(self.timesteps[index])]
        return alpha_bar
