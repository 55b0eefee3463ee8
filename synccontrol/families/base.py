"""What the montage loop needs of a model: its geometry, predictions for windows, and pictures from latents."""

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from synccontrol.config import Geometry, SamplingConfig
from synccontrol.sampling.loop import Predict


class AbstractDenoiser(abc.ABC):
    """A model family's view of one loaded pipeline."""

    pipe: Any  # the diffusers pipeline
    geometry: Geometry
    controls: int  # number of ControlNets

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Returns the device on which the networks run."""

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype:
        """Returns the dtype in which latents are kept and the networks run."""

    @abc.abstractmethod
    def running(self) -> AbstractContextManager[None]:
        """Returns the context of one picture: no parameter needs a gradient inside, offloaded models leave after."""

    @abc.abstractmethod
    def encode(
        self,
        prompt: str,
        negative_prompt: str,
        control_windows: Sequence[Tensor],
        sampling: SamplingConfig,
        timesteps: Tensor,
    ) -> Predict:
        """Returns the prediction function for one picture. All that does not change between steps is computed here.

        Args:
            prompt: what to draw.
            negative_prompt: what to avoid; used with guidance only.
            control_windows: per ControlNet, the control map's crops (n, 3, H, W) in 0..1, one per window; empty for
                a picture from text only.
            sampling: guidance and control settings.
            timesteps: the schedule's timesteps.
        """

    @abc.abstractmethod
    def decode(self, x0: Tensor) -> Tensor:
        """Returns images (n, 3, H, W) in about -1..1 for clean latents (n, c, h, w); differentiable."""


def control_scales(sampling: SamplingConfig, index: int, steps: int, controls: int) -> tuple[float, ...]:
    """Returns each control's strength at step `index` of `steps`; 0 outside its start and end.

    The rule is that of the diffusers ControlNet pipelines: a step counts when it lies wholly between start and end.
    """
    scales, starts, ends = (
        value if isinstance(value, tuple) else (value,) * controls
        for value in (sampling.control_scale, sampling.control_start, sampling.control_end)
    )
    return tuple(
        0.0 if index / steps < start or (index + 1) / steps > end else scale
        for scale, start, end in zip(scales, starts, ends, strict=True)
    )
