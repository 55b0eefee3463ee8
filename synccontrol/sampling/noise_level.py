"""Noise levels. This is the only module with formulas of the noise schedule's coordinates.

The networks see z = signal * x0 + noise * eps. Variance-preserving models have signal^2 + noise^2 = 1, flow-matching
models signal + noise = 1. Every prediction type has one formula, which also gives the clean estimate. Other modules,
apart from `schedulers.py`, work with z, predictions and x0.
"""

import dataclasses
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]  # diffusers' names
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseLevel:
    """One noise level of a schedule: z = signal * x0 + noise * eps."""

    index: int  # from 0
    signal: float
    noise: float  # above 0: the clean end of the schedule is not a level
    t: float  # the timestep that the networks take


def x0_hat(
    z: Float[Tensor, "*windows"], prediction: Float[Tensor, "*windows"], level: NoiseLevel, kind: str
) -> Float[Tensor, "*windows"]:
    """Return the clean estimate for z and the networks' prediction.

    DDIM (arXiv 2010.02502) eq. 12 for epsilon; progressive distillation (arXiv 2202.00512) section 4 for
    v = signal eps - noise x0; flow matching (arXiv 2210.02747) for eps - x0, where signal + noise = 1.
    """
    if kind == "epsilon":
        return (z - level.noise * prediction) / level.signal
    if kind == "v_prediction":
        return level.signal * z - level.noise * prediction
    if kind == "flow_prediction":
        return z - level.noise * prediction
    return prediction


def prediction_for(
    z: Float[Tensor, "*windows"], x0: Float[Tensor, "*windows"], level: NoiseLevel, kind: str
) -> Float[Tensor, "*windows"]:
    """Return the prediction whose clean estimate is x0; the inverse of `x0_hat`. For x0 = 0, z is pure noise."""
    if kind == "epsilon":
        return (z - level.signal * x0) / level.noise
    if kind == "v_prediction":
        return (level.signal * z - x0) / level.noise
    if kind == "flow_prediction":
        return (z - x0) / level.noise
    return x0


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of canvases and sums for networks of a dtype: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)
