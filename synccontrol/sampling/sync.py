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
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from synccontrol.errors import ConfigError, NonFiniteError
from synccontrol.sampling.anchors import Anchors, plain
from synccontrol.sampling.batching import Batches, WindowPredict
from synccontrol.sampling.noise_level import Level, at_least_float32, x0_hat
from synccontrol.sampling.objectives import AbstractObjective, Losses
from synccontrol.sampling.style import Restyle
from synccontrol.spec.settings import ONCE, SyncConfig

RMS_PER_WEIGHT = 0.003  # weight 20 is a move of RMS 0.06, about what the published weights come to at the first steps
FP16_LOSS_SCALE = 4096.0  # lifts fp16 gradients of a mean over a picture above the smallest fp16 number
FP16_RETREAT = 64.0  # by how much the scale is lowered when that was too much
FP16_TRIES = 5

Encode = Callable[[Tensor], Tensor]  # pictures (n, 3, H, W) in -1..1 -> latents (n, c, h, w)
Decode = Callable[[Tensor], Tensor]  # latents (n, c, h, w) -> pictures (n, 3, H, W) in about -1..1, differentiable


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
        anchors: whom the windows follow where there are regions; None: all follow the anchor.
    """

    def __init__(
        self,
        config: SyncConfig,
        objective: AbstractObjective | None,
        anchor: int | Tensor,
        networks: Networks,
        batches: Batches,
        anchors: Anchors | None = None,
    ) -> None:
        self._config = config
        self._objective = objective
        self._anchor = anchor
        self._networks = networks
        self._batches = batches
        self._anchors = anchors
        self._restyle: Restyle | None = None

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
        the move is the same for every window, model and objective. What `adain` adds: `Restyle.lacking`.

        Regions have anchors of their own: the objective compares a window with that of the region that most of it lies
        in, so that content is never pulled across; style is, as far as `across` says.

        Also returns the predictions (c, h, w), by window, that stay valid: the anchor's, which does not move; with
        `predict='once'` those of all windows.

        Raises:
            NonFiniteError: a gradient is NaN or infinite.
            ConfigError: the objective gives something else than one loss for every picture.
        """
        config, everyone = self._config, range(len(z))
        anchors = self._followed(z)
        full, once, restyle = config.gradient == "full", config.predict == ONCE, config.adain_due(level.index)
        # Where the networks stay, the other windows' estimates come with the graph of their gradient, below.
        few = full and not (once or restyle or self._networks.offloaded)
        with torch.no_grad():
            known = self._batches.predict(predict, z, sorted(set(anchors.windows)) if few else everyone)
            x0 = {
                j: x0_hat(z[j : j + 1], prediction[None], level, self._networks.kind) for j, prediction in known.items()
            }
        moved = z.clone()
        if config.due(level.index):
            losses = cache(lambda region: self._losses(x0, anchors, region))
            others = [j for j in everyone if j not in anchors.windows]
            at_x0 = {j: self._at_x0(x0[j], losses(anchors.region_of(j))) for j in others if j in x0}
            for j in others:
                gradient = at_x0.get(j)
                if full or gradient is None:
                    against = losses(anchors.region_of(j))
                    gradient = self._through_networks(z[j : j + 1], j, level, predict, against, gradient)
                moved[j] -= config.weight_at(level.index) * self._sized(gradient)[0].to(z.dtype)
        if restyle:
            assert self._restyle is not None
            for j, lack in self._restyle.lacking(x0).items():
                moved[j] += config.adain * level.signal * lack
        return moved, known if once else {j: known[j] for j in anchors.still}

    def _followed(self, z: Float[Tensor, "n c h w"]) -> Anchors:
        """Returns whom the windows follow."""
        if self._anchors is None:
            self._anchors = plain(
                self._anchor if isinstance(self._anchor, int) else None, len(z), (z.shape[2], z.shape[3])
            )
        if self._restyle is None:
            self._restyle = Restyle(self._anchors, self._config.shared_style, cache(self._encoded))
        return self._anchors

    @torch.no_grad()
    def _encoded(self) -> Tensor:
        """Returns the latents of the picture that is followed."""
        assert isinstance(self._anchor, Tensor)
        return self._networks.encode(self._anchor)

    @torch.no_grad()
    def _losses(self, x0: dict[int, Tensor], anchors: Anchors, region: int) -> Losses:
        """Returns the function from pictures to losses against the anchor of a region, or else the picture."""
        assert self._objective is not None
        if anchors.windows:
            return self._objective.against(self._look(x0[anchors.windows[region]]))
        assert isinstance(self._anchor, Tensor)
        return self._objective.against(self._shrunk(self._anchor))

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
