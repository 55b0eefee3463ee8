"""Sync: each window's latents move down the gradient of a perceptual distance to the anchor's clean estimate.

SyncDiffusion (Lee et al., NeurIPS 2023, arXiv 2306.05178), algorithm 1. All latents are as the networks see them, so
that one weight means the same under every solver.

The gradient splits exactly at the clean estimate: dL/dz = (dx0/dz)^T dL/dx0. So one window at a time is decoded and
compared, which gives dL/dx0 and frees the decoder's graph; what is left is one vector-Jacobian product of the networks.

Beside it, or in its place, windows take on the mean and deviation of the anchor's latents (`SyncConfig.adain`): nothing
is decoded, and nothing is differentiated.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
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

ADAIN_SLACK = 0.1  # deviations by which a restyled window may go away from the anchor's statistics again
RMS_PER_WEIGHT = 0.003  # weight 20 is a move of RMS 0.06, about what the published weights come to at the first steps
FP16_LOSS_SCALE = 4096.0  # lifts fp16 gradients of a mean over a picture above the smallest fp16 number
FP16_RETREAT = 64.0  # by how much the scale is lowered when that was too much
FP16_TRIES = 5

Encode = Callable[[Tensor], Tensor]  # pictures (n, 3, H, W) in -1..1 -> latents (n, c, h, w)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """What sync must know of a model."""

    decode: Decode
    encode: Encode
    kind: str  # what it predicts, of `levels.KINDS`
    half: bool = False  # it computes in float16, so that gradients must be scaled
    offloaded: bool = False  # networks may leave the device between two calls: what is differentiated is computed then


class Sync:
    """What keeps the windows of one picture together.

    Args:
        config: how strongly, when, and by which gradient.
        objective: the perceptual distance; None where the config has no use for it.
        anchor: the anchor window's index (it is not moved), or a picture (1, 3, H, W) in -1..1 that all follow.
        networks: the model.
        batches: how many windows go into one call that needs no gradient.
    """

    def __init__(
        self,
        config: SyncConfig,
        objective: AbstractObjective | None,
        anchor: int | Tensor,
        networks: Networks,
        batches: Batches,
    ) -> None:
        self._config = config
        self._objective = objective
        self._anchor = anchor
        self._networks = networks
        self._batches = batches
        self._encoded: Tensor | None = None  # the anchor's latents, if it is a picture
        self._apart: dict[int, float] = {}  # how near windows have been to the anchor's statistics

    def due(self, level: Level) -> bool:
        """Returns whether sync acts at this level."""
        return self._config.due(level.index) or self._config.adain_due(level.index)

    def nudge(
        self, z: Float[Tensor, "n c h w"], level: Level, predict: WindowPredict
    ) -> tuple[Float[Tensor, "n c h w"], dict[int, Float[Tensor, "c h w"]]]:
        """Returns windows (n, c, h, w) moved towards the anchor; which does not move, if it is a window.

        The objective moves them by z_j <- z_j - w_i * dL_j/dz_j, L_j = objective(x0_j, x0_anchor). `gradient='x0'`
        takes dL/dx0 in place of dL/dz (as MPGD, arXiv 2311.16424, does): no backward pass through the networks.
        `step_size='rms'` scales each window's gradient to a root mean square of `RMS_PER_WEIGHT`, so that the size of
        the move is the same for every window, model and objective. What `adain` adds: `_restyled`.

        Also returns the predictions (c, h, w), by window, that stay valid: the anchor's, which does not move; with
        `predict='once'` those of all windows.

        Raises:
            NonFiniteError: a gradient is NaN or infinite.
            ConfigError: the objective gives something else than one loss for every picture.
        """
        config, everyone = self._config, range(len(z))
        anchors = [self._anchor] if isinstance(self._anchor, int) else []
        full, once, restyle = config.gradient == "full", config.predict == ONCE, config.adain_due(level.index)
        # Where the networks stay, the other windows' estimates come with the graph of their gradient, below.
        first = anchors if full and not (once or restyle or self._networks.offloaded) else everyone
        with torch.no_grad():
            known = self._batches.predict(predict, z, first)
            x0 = {
                j: x0_hat(z[j : j + 1], prediction[None], level, self._networks.kind) for j, prediction in known.items()
            }
        others = [j for j in everyone if j not in anchors]
        moved = z.clone()
        if config.due(level.index):
            losses = self._losses(x0)
            at_x0 = {j: self._at_x0(x0[j], losses) for j in others if j in x0}
            for j in others:
                gradient = at_x0.get(j)
                if full or gradient is None:
                    gradient = self._through_networks(z[j : j + 1], j, level, predict, losses, gradient)
                moved[j] -= config.weight_at(level.index) * self._sized(gradient)[0].to(z.dtype)
        if restyle:
            own = torch.cat([x0[j] for j in others])
            missing = self._restyled(own, x0) - own
            apart = missing.square().mean(dim=(1, 2, 3)).sqrt() / own.std(dim=(1, 2, 3))
            for j, lack, far in zip(others, missing, apart.tolist(), strict=True):
                if self._follows(j, far):
                    moved[j] += config.adain * level.signal * lack
        return moved, known if once else {j: known[j] for j in anchors}

    @torch.no_grad()
    def _losses(self, x0: dict[int, Tensor]) -> Losses:
        """Returns the function from pictures to losses against the anchor."""
        assert self._objective is not None
        anchor = self._anchor
        return self._objective.against(
            self._look(x0[anchor]) if isinstance(anchor, int) else self._shrunk(anchor),
        )

    @torch.no_grad()
    def _restyled(self, own: Float[Tensor, "n c h w"], x0: dict[int, Tensor]) -> Float[Tensor, "n c h w"]:
        """Returns windows' clean estimates with the anchor's mean and deviation in every channel.

        AdaIN (arXiv 1703.06868, eq. 8) on latents. What it changes is added to z times the signal: that gives
        signal * AdaIN(x0) + noise * eps, the restyled estimate under the noise that was there. More would be too much:
        the mean of z over a whole window has next to no noise, so that the networks take its mean / signal for true.
        """
        if isinstance(self._anchor, int):
            anchor = x0[self._anchor]
        else:
            if self._encoded is None:
                self._encoded = self._networks.encode(self._anchor)
            anchor = self._encoded
        deviation, mean = torch.std_mean(own, dim=(2, 3), keepdim=True)
        wanted_deviation, wanted_mean = torch.std_mean(anchor.to(own.dtype), dim=(2, 3), keepdim=True)
        least = torch.finfo(own.dtype).eps  # a flat channel stays flat
        return (own - mean) * (wanted_deviation / deviation.clamp_min(least)) + wanted_mean

    def _follows(self, window: int, apart: float) -> bool:
        """Returns whether a window is to be restyled: no longer, once it goes away from the anchor instead.

        Under guidance a window may answer with a move the other way: where the prompt says what is to be seen, the
        prompted prediction hardly hears what was added to z, and guidance takes away a multiple of what the unprompted
        one hears. Such windows agree by their prompt; to go on would drive them apart.

        Args:
            window: its index.
            apart: root mean square of what it lacks, in deviations of its estimate.
        """
        least = self._apart.get(window, float("inf"))
        follows = apart <= least + ADAIN_SLACK
        self._apart[window] = min(apart, least) if follows else -ADAIN_SLACK
        return follows

    def _through_networks(
        self,
        z: Float[Tensor, "1 c h w"],
        window: int,
        level: Level,
        predict: WindowPredict,
        losses: Losses,
        at_x0: Float[Tensor, "1 c h w"] | None,
    ) -> Float[Tensor, "1 c h w"]:
        """Returns dL/dz (1, c, h, w) of one window z, given dL/dx0 where that is known already."""
        variable = z.detach().requires_grad_()
        with torch.enable_grad():
            x0 = x0_hat(variable, predict(variable, [window]), level, self._networks.kind)
        if at_x0 is None:
            at_x0 = self._at_x0(x0.detach(), losses)
        unit = 1 / at_x0.square().mean().sqrt().clamp_min(torch.finfo(at_x0.dtype).tiny) if self._networks.half else 1.0
        return self._gradient(x0, variable, at_x0, float(unit))

    def _at_x0(self, x0: Float[Tensor, "1 c h w"], losses: Losses) -> Float[Tensor, "1 c h w"]:
        """Returns dL/dx0 (1, c, h, w) of one window."""
        variable = x0.detach().requires_grad_()
        with torch.enable_grad():
            loss = losses(self._look(variable))
        if loss.shape != (1,):
            raise ConfigError(
                f"the objective gave a tensor of shape {tuple(loss.shape)} for 1 picture; "
                "it must give one loss for each, (n,) for pictures (n, 3, H, W)"
            )
        return self._gradient(loss, variable, torch.ones_like(loss), FP16_LOSS_SCALE if self._networks.half else 1.0)

    def _gradient(self, output: Tensor, variable: Tensor, weights: Tensor, scale: float) -> Tensor:
        """Returns the gradient of sum(weights * output); float16 overflow on the way is met with a smaller scale."""
        for _ in range(FP16_TRIES if self._networks.half else 1):
            (found,) = torch.autograd.grad(output, variable, weights * scale, retain_graph=self._networks.half)
            if found.isfinite().all():
                return found / scale
            scale /= FP16_RETREAT
        raise NonFiniteError("the gradient of sync is not finite; try dtype float32 or bfloat16")

    def _look(self, x0: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 H W"]:
        """Returns the picture of one window as the objective sees it, in float32 at least."""
        picture = self._networks.decode(x0)
        return self._shrunk(picture.to(at_least_float32(picture.dtype)))

    def _shrunk(self, picture: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 small_H small_W"]:
        return avg_pool2d(picture, self._config.shrink) if self._config.shrink > 1 else picture

    def _sized(self, gradient: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
        if self._config.step_size == "gradient":
            return gradient
        rms = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return gradient / rms.clamp_min(torch.finfo(gradient.dtype).tiny) * RMS_PER_WEIGHT
