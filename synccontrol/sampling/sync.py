"""Sync: each window's latents move down the gradient of a perceptual distance to the anchor's clean estimate.

SyncDiffusion (Lee et al., NeurIPS 2023, arXiv 2306.05178), algorithm 1. All latents are in network coordinates, so
that one weight means the same under every solver.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from synccontrol.config import MIDDLE, SyncConfig
from synccontrol.errors import ConfigError, NonFiniteError

if TYPE_CHECKING:
    from PIL import Image

    from synccontrol.sampling.objectives import AbstractObjective, Losses

RMS_PER_WEIGHT = 0.003  # weight 20 is a move of RMS 0.06, about what the published weights come to at the first steps
FP16_LOSS_SCALE = 4096.0  # lifts fp16 gradients of a mean over a picture above the smallest fp16 number

WindowPredict = Callable[[Tensor, Sequence[int]], Tensor]  # Predict at one step
CleanEstimate = Callable[[Tensor, Tensor], Tensor]  # (z, prediction) -> x0_hat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nudged:
    """The moved windows, and the anchor's prediction, which stays valid because the anchor did not move."""

    z: Tensor  # (n, c, h, w)
    known: dict[int, Tensor]  # window index -> prediction (c, h, w)


def anchor_index(anchor: "int | str | Image.Image", n: int) -> int | None:
    """Returns the index of the anchor window among n, or None for an anchor image.

    Raises:
        ConfigError: there is no window of that index.
    """
    if anchor == MIDDLE:
        return n // 2
    if not isinstance(anchor, int):
        return None
    if not -n <= anchor < n:
        raise ConfigError(f"anchor is {anchor}, but there are {n} windows; use 0 to {n - 1}, middle, or an image")
    return anchor % n


def nudge(
    z: Tensor,
    weight: float,
    *,
    predict: WindowPredict,
    x0_hat: CleanEstimate,
    decode: Callable[[Tensor], Tensor],
    objective: "AbstractObjective",
    anchor: int | Tensor,
    gradient: Literal["full", "x0"] | str = "full",
    step_size: Literal["gradient", "rms"] | str = "gradient",
    shrink: int = 1,
    batch: int = 1,
) -> Nudged:
    """Returns windows moved by z_j <- z_j - weight * dL_j/dz_j, with L_j = objective(decode(x0_j), decode(x0_anchor)).

    Args:
        z: windows (n, c, h, w) in network coordinates.
        weight: w_i of this step.
        predict: the networks at this step.
        x0_hat: the clean estimate at this step.
        decode: latents to images in -1..1.
        objective: the perceptual distance.
        anchor: the anchor window's index (it is not moved), or an image (1, 3, H, W) in -1..1 that all follow.
        gradient: 'full' differentiates through the networks; 'x0' takes dL/dx0 in place of dL/dz (as MPGD, arXiv
            2311.16424, does): no backward pass through the networks.
        step_size: 'gradient' as in the formula; 'rms' scales each window's gradient to a root mean square of
            `RMS_PER_WEIGHT`, so that the size of the move is the same for every window, model and objective.
        shrink: the objective sees pictures smaller by this factor.
        batch: windows in one call.

    Raises:
        NonFiniteError: a gradient is NaN or infinite.
    """

    def look(x0: Tensor) -> Tensor:
        # One at a time: the rounding of the decoder's normalisation must not depend on the batch.
        images = torch.cat([decode(one[None]) for one in x0])
        return avg_pool2d(images, shrink) if shrink > 1 else images

    known: dict[int, Tensor] = {}
    with torch.no_grad():
        if isinstance(anchor, int):
            prediction = predict(z[anchor : anchor + 1], [anchor])
            known[anchor] = prediction[0]
            target = look(x0_hat(z[anchor : anchor + 1], prediction))
        else:
            target = avg_pool2d(anchor, shrink) if shrink > 1 else anchor
        losses = objective.against(target)
    moved = z.clone()
    others = [window for window in range(len(z)) if window not in known]
    for start in range(0, len(others), batch):
        windows = others[start : start + batch]
        d = window_gradient(z[windows], windows, predict, x0_hat, lambda x0: losses(look(x0)), gradient == "full")
        if not d.isfinite().all():
            raise NonFiniteError(f"the sync gradient of windows {windows} is not finite; try float32 or a lower weight")
        if step_size == "rms":
            rms = d.pow(2).mean(dim=(1, 2, 3), keepdim=True).sqrt()
            d = d / rms.clamp_min(torch.finfo(d.dtype).tiny) * RMS_PER_WEIGHT
        moved[windows] = z[windows] - (weight * d).to(z.dtype)
    return Nudged(z=moved, known=known)


def window_gradient(
    z: Tensor,
    windows: Sequence[int],
    predict: WindowPredict,
    x0_hat: CleanEstimate,
    losses: "Losses",
    through_networks: bool,
) -> Tensor:
    """Returns dL_j/dz_j, or dL_j/dx0_j, for windows z (k, c, h, w), in float32 at least."""
    with torch.set_grad_enabled(through_networks):
        variable = z.detach().requires_grad_(through_networks)
        x0 = x0_hat(variable, predict(variable, windows))
    if not through_networks:
        variable = x0 = x0.detach().requires_grad_()
    scale = FP16_LOSS_SCALE if z.dtype == torch.float16 else 1.0
    with torch.enable_grad():
        loss = losses(x0).sum() * scale
    (gradient,) = torch.autograd.grad(loss, variable)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / scale


def is_due(config: SyncConfig, index: int, windows: int, anchor: int | Tensor) -> bool:
    """Returns whether sync acts at this step: there must be a window that is not the anchor."""
    return config.due(index) and (windows > 1 or not isinstance(anchor, int))
