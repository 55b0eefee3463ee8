"""Sync: each window's latents move down the gradient of a perceptual distance to the anchor's clean estimate.

SyncDiffusion (Lee et al., NeurIPS 2023, arXiv 2306.05178), algorithm 1. All latents are as the networks see them, so
that one weight means the same under every solver.

The gradient splits exactly at the clean estimate: dL/dz = (dx0/dz)^T dL/dx0. So one window at a time is decoded and
compared, which gives dL/dx0 and frees the decoder's graph; what is left is one vector-Jacobian product of the networks.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from synccontrol.canvas.layout import AbstractLayout
from synccontrol.config import MIDDLE, ONCE, SyncConfig
from synccontrol.errors import ConfigError, NonFiniteError
from synccontrol.sampling.batches import Batches, WindowPredict
from synccontrol.sampling.levels import Level, at_least_float32, x0_hat
from synccontrol.sampling.objectives import AbstractObjective, Losses

if TYPE_CHECKING:
    from PIL import Image

RMS_PER_WEIGHT = 0.003  # weight 20 is a move of RMS 0.06, about what the published weights come to at the first steps
FP16_LOSS_SCALE = 4096.0  # lifts fp16 gradients of a mean over a picture above the smallest fp16 number
FP16_RETREAT = 64.0  # by how much the scale is lowered when that was too much
FP16_TRIES = 5

Decode = Callable[[Tensor], Tensor]  # latents (n, c, h, w) -> pictures (n, 3, H, W) in about -1..1, differentiable


def anchor_index(anchor: "int | str | Image.Image", layout: AbstractLayout) -> int | None:
    """Returns the index of the anchor window, or None for an anchor picture.

    Raises:
        ConfigError: there is no window of that index.
    """
    n = len(layout)
    if anchor == MIDDLE:
        return layout.middle
    if not isinstance(anchor, int):
        return None
    if not -n <= anchor < n:
        raise ConfigError(f"anchor is {anchor}, but there are {n} windows; use 0 to {n - 1}, middle, or a picture")
    return anchor % n


class Sync:
    """What keeps the windows of one picture together.

    Args:
        config: how strongly, when, and by which gradient.
        objective: the perceptual distance.
        anchor: the anchor window's index (it is not moved), or a picture (1, 3, H, W) in -1..1 that all follow.
        decode: latents to pictures.
        kind: what the networks predict, of `levels.KINDS`.
        batches: how many windows go into one call that needs no gradient.

    Rarely needed:
        half: the networks compute in float16, so that their gradients must be scaled.
        offloaded: the networks may leave the device between two calls, so that what is to be differentiated is
            computed when it is.
    """

    def __init__(
        self,
        config: SyncConfig,
        objective: AbstractObjective,
        anchor: int | Tensor,
        decode: Decode,
        kind: str,
        batches: Batches,
        *,
        half: bool = False,
        offloaded: bool = False,
    ) -> None:
        self._config = config
        self._objective = objective
        self._anchor = anchor
        self._decode = decode
        self._kind = kind
        self._batches = batches
        self._half = half
        self._offloaded = offloaded

    def due(self, level: Level) -> bool:
        """Returns whether sync acts at this level."""
        return self._config.due(level.index)

    def nudge(self, z: Tensor, level: Level, predict: WindowPredict) -> tuple[Tensor, dict[int, Tensor]]:
        """Returns windows (n, c, h, w) moved by z_j <- z_j - w_i * dL_j/dz_j, L_j = objective(x0_j, x0_anchor).

        `gradient='x0'` takes dL/dx0 in place of dL/dz (as MPGD, arXiv 2311.16424, does): no backward pass through the
        networks. `step_size='rms'` scales each window's gradient to a root mean square of `RMS_PER_WEIGHT`, so that
        the size of the move is the same for every window, model and objective.

        Also returns the predictions (c, h, w), by window, that stay valid: the anchor's, which does not move; with
        `predict='once'` those of all windows.

        Raises:
            NonFiniteError: a gradient is NaN or infinite.
            ConfigError: the objective gives something else than one loss for every picture.
        """
        everyone = range(len(z))
        anchors = [self._anchor] if isinstance(self._anchor, int) else []
        full, once = self._config.gradient == "full", self._config.predict == ONCE
        # Where the networks stay, the other windows' estimates come with the graph of their gradient, below.
        first = anchors if full and not (once or self._offloaded) else everyone
        with torch.no_grad():
            known = self._batches.predict(predict, z, first)
            x0 = {j: x0_hat(z[j : j + 1], prediction[None], level, self._kind) for j, prediction in known.items()}
            target = self._look(x0[self._anchor]) if isinstance(self._anchor, int) else self._shrunk(self._anchor)
            losses = self._objective.against(target)
        others = [j for j in everyone if j not in anchors]
        at_x0 = {j: self._at_x0(x0[j], losses) for j in others if j in x0}
        moved = z.clone()
        for j in others:
            gradient = at_x0.get(j)
            if full or gradient is None:
                gradient = self._through_networks(z[j : j + 1], j, level, predict, losses, gradient)
            moved[j] -= self._config.weight_at(level.index) * self._sized(gradient)[0].to(z.dtype)
        return moved, known if once else {j: known[j] for j in anchors}

    def _through_networks(
        self,
        z: Tensor,
        window: int,
        level: Level,
        predict: WindowPredict,
        losses: Losses,
        at_x0: Tensor | None,
    ) -> Tensor:
        """Returns dL/dz (1, c, h, w) of one window z, given dL/dx0 where that is known already."""
        variable = z.detach().requires_grad_()
        with torch.enable_grad():
            x0 = x0_hat(variable, predict(variable, [window]), level, self._kind)
        if at_x0 is None:
            at_x0 = self._at_x0(x0.detach(), losses)
        unit = 1 / at_x0.square().mean().sqrt().clamp_min(torch.finfo(at_x0.dtype).tiny) if self._half else 1.0
        return self._gradient(x0, variable, at_x0, float(unit))

    def _at_x0(self, x0: Tensor, losses: Losses) -> Tensor:
        """Returns dL/dx0 (1, c, h, w) of one window."""
        variable = x0.detach().requires_grad_()
        with torch.enable_grad():
            loss = losses(self._look(variable))
        if loss.shape != (1,):
            raise ConfigError(
                f"the objective gave a tensor of shape {tuple(loss.shape)} for 1 picture; "
                "it must give one loss for each, (n,) for pictures (n, 3, H, W)"
            )
        return self._gradient(loss, variable, torch.ones_like(loss), FP16_LOSS_SCALE if self._half else 1.0)

    def _gradient(self, output: Tensor, variable: Tensor, weights: Tensor, scale: float) -> Tensor:
        """Returns the gradient of sum(weights * output); float16 overflow on the way is met with a smaller scale."""
        for _ in range(FP16_TRIES if self._half else 1):
            (found,) = torch.autograd.grad(output, variable, weights * scale, retain_graph=self._half)
            if found.isfinite().all():
                return found / scale
            scale /= FP16_RETREAT
        raise NonFiniteError("the gradient of sync is not finite; try dtype float32 or bfloat16")

    def _look(self, x0: Tensor) -> Tensor:
        """Returns the picture of one window as the objective sees it, in float32 at least."""
        picture = self._decode(x0)
        return self._shrunk(picture.to(at_least_float32(picture.dtype)))

    def _shrunk(self, picture: Tensor) -> Tensor:
        return avg_pool2d(picture, self._config.shrink) if self._config.shrink > 1 else picture

    def _sized(self, gradient: Tensor) -> Tensor:
        if self._config.step_size == "gradient":
            return gradient
        rms = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return gradient / rms.clamp_min(torch.finfo(gradient.dtype).tiny) * RMS_PER_WEIGHT
