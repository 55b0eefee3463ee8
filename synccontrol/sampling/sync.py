"""Sync: move each window's latents down the gradient of a perceptual distance to the anchor's clean estimate.

SyncDiffusion (Lee et al., NeurIPS 2023, arXiv 2306.05178), algorithm 1. All latents are in the networks' coordinates,
so a weight means the same under every scheduler.

The gradient splits exactly at the clean estimate: dL/dz = (dx0/dz)^T dL/dx0. One window at a time is decoded and
compared, which gives dL/dx0 and frees the decoder's graph. One vector-Jacobian product of the networks remains.

Style alignment (`SyncConfig.adain`) can act in addition or instead: windows take on the mean and deviation of the
anchor's latents, without decoding or gradients.
"""

import dataclasses
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from synccontrol.errors import ConfigError, NonFiniteError
from synccontrol.sampling.anchors import Anchors, single_region_anchors
from synccontrol.sampling.batching import BatchedPredictor, WindowPredict
from synccontrol.sampling.noise_level import NoiseLevel, at_least_float32, x0_hat
from synccontrol.sampling.objectives import AbstractObjective, WindowLosses
from synccontrol.sampling.style import StyleAlignment
from synccontrol.spec.settings import ONCE, SyncConfig

RMS_PER_WEIGHT = 0.003  # weight 20 moves by RMS 0.06, about as far as the published weights do at first
FP16_LOSS_SCALE = 4096.0  # lifts gradients of a mean over an image above the smallest float16 number
FP16_RETREAT = 64.0  # divisor of the scale after an overflow
FP16_TRIES = 5

Encode = Callable[[Tensor], Tensor]  # images (n, 3, H, W) in -1..1 -> latents (n, c, h, w)
Decode = Callable[[Tensor], Tensor]  # latents (n, c, h, w) -> images (n, 3, H, W) in about -1..1, differentiable


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncNetworks:
    """The functions and properties of a model that sync uses."""

    decode: Decode
    encode: Encode
    kind: str  # prediction type, one of `PREDICTION_TYPES`
    half: bool = False  # the networks compute in float16, so gradients must be scaled
    offloaded: bool = False  # networks may leave the device between two calls, so graphs are built only when needed


class Sync:
    """Keeps the windows of one image coherent.

    Args:
        config: sync settings.
        objective: the perceptual distance; None if the config does not use one.
        anchor: index of the anchor window, which does not move, or an image (1, 3, H, W) in -1..1 that all windows
            follow.
        networks: the model.
        batches: runs the calls that need no gradient.
        anchors: the anchors of regions; None: all windows follow `anchor`.
    """

    def __init__(
        self,
        config: SyncConfig,
        objective: AbstractObjective | None,
        anchor: int | Tensor,
        networks: SyncNetworks,
        batches: BatchedPredictor,
        anchors: Anchors | None = None,
    ) -> None:
        self._config = config
        self._objective = objective
        self._anchor = anchor
        self._networks = networks
        self._batches = batches
        self._anchors = anchors
        self._style_alignment: StyleAlignment | None = None

    def due(self, level: NoiseLevel) -> bool:
        """Return whether sync acts at this level."""
        return self._config.due(level.index) or self._config.adain_due(level.index)

    def nudge(
        self, z: Float[Tensor, "n c h w"], level: NoiseLevel, predict: WindowPredict
    ) -> tuple[Float[Tensor, "n c h w"], dict[int, Float[Tensor, "c h w"]]]:
        """Move windows (n, c, h, w) towards the anchor. An anchor window itself does not move.

        The objective moves them by z_j <- z_j - w_i * dL_j/dz_j, L_j = objective(x0_j, x0_anchor). `gradient='x0'` uses
        dL/dx0 instead of dL/dz, as MPGD (arXiv 2311.16424) does: no backward pass through the networks.
        `step_size='rms'` scales each window's gradient to a root mean square of `RMS_PER_WEIGHT`, so moves have the
        same size for every window, model and objective. `adain` adds `StyleAlignment.corrections`.

        Regions have their own anchors. The objective compares a window with the anchor of its main region, so content
        is never pulled across regions; style is, as far as `shared_style` says.

        Returns:
            The moved windows, and the predictions (c, h, w) that stay valid, by window: those of unmoved anchors, or
            with `predict='once'` those of all windows.

        Raises:
            NonFiniteError: a gradient is NaN or infinite.
            ConfigError: the objective does not return one loss per image.
        """
        config, windows = self._config, range(len(z))
        anchors = self._resolve_anchors(z)
        full_gradient, once, align = config.gradient == "full", config.predict == ONCE, config.adain_due(level.index)
        # Unless networks are offloaded, the other windows' estimates are computed with their gradient's graph, below.
        anchors_only = full_gradient and not (once or align or self._networks.offloaded)
        with torch.no_grad():
            predictions = self._batches.predict(predict, z, sorted(set(anchors.windows)) if anchors_only else windows)
            x0 = {
                j: x0_hat(z[j : j + 1], prediction[None], level, self._networks.kind)
                for j, prediction in predictions.items()
            }
        moved_windows = z.clone()
        if config.due(level.index):
            losses_of_region = cache(lambda region: self._window_losses(x0, anchors, region))
            followers = [j for j in windows if j not in anchors.windows]
            at_x0 = {
                j: self._gradient_at_x0(x0[j], losses_of_region(anchors.region_of(j))) for j in followers if j in x0
            }
            for j in followers:
                gradient = at_x0.get(j)
                if full_gradient or gradient is None:
                    losses = losses_of_region(anchors.region_of(j))
                    gradient = self._through_networks(z[j : j + 1], j, level, predict, losses, gradient)
                moved_windows[j] -= config.weight_at(level.index) * self._scale_gradient(gradient)[0].to(z.dtype)
        if align:
            assert self._style_alignment is not None
            for j, correction in self._style_alignment.corrections(x0).items():
                moved_windows[j] += config.adain * level.signal * correction
        return moved_windows, predictions if once else {j: predictions[j] for j in anchors.still}

    def _resolve_anchors(self, z: Float[Tensor, "n c h w"]) -> Anchors:
        """Return the anchors, built on first use."""
        if self._anchors is None:
            self._anchors = single_region_anchors(
                self._anchor if isinstance(self._anchor, int) else None, len(z), (z.shape[2], z.shape[3])
            )
        if self._style_alignment is None:
            self._style_alignment = StyleAlignment(
                self._anchors, self._config.shared_style, cache(self._encode_anchor_image)
            )
        return self._anchors

    @torch.no_grad()
    def _encode_anchor_image(self) -> Tensor:
        """Return the latents of the anchor image."""
        assert isinstance(self._anchor, Tensor)
        return self._networks.encode(self._anchor)

    @torch.no_grad()
    def _window_losses(self, x0: dict[int, Tensor], anchors: Anchors, region: int) -> WindowLosses:
        """Return the function from images to losses against a region's anchor, or against the anchor image."""
        assert self._objective is not None
        if anchors.windows:
            return self._objective.for_anchor(self._decode_window(x0[anchors.windows[region]]))
        assert isinstance(self._anchor, Tensor)
        return self._objective.for_anchor(self._downscale(self._anchor))

    def _through_networks(
        self,
        z: Float[Tensor, "1 c h w"],
        window: int,
        level: NoiseLevel,
        predict: WindowPredict,
        losses: WindowLosses,
        at_x0: Float[Tensor, "1 c h w"] | None,
    ) -> Float[Tensor, "1 c h w"]:
        """Return dL/dz (1, c, h, w) of one window z; dL/dx0 is computed if it is not passed."""
        variable = z.detach().requires_grad_()
        with torch.enable_grad():
            x0 = x0_hat(variable, predict(variable, [window]), level, self._networks.kind)
        if at_x0 is None:
            at_x0 = self._gradient_at_x0(x0.detach(), losses)
        unit = 1 / at_x0.square().mean().sqrt().clamp_min(torch.finfo(at_x0.dtype).tiny) if self._networks.half else 1.0
        return self._gradient(x0, variable, at_x0, float(unit))

    def _gradient_at_x0(self, x0: Float[Tensor, "1 c h w"], losses: WindowLosses) -> Float[Tensor, "1 c h w"]:
        """Return dL/dx0 (1, c, h, w) of one window."""
        variable = x0.detach().requires_grad_()
        with torch.enable_grad():
            loss = losses(self._decode_window(variable))
        if loss.shape != (1,):
            raise ConfigError(
                f"the objective returned a tensor of shape {tuple(loss.shape)} for 1 image; "
                "it must return one loss per image, (n,) for images (n, 3, H, W)"
            )
        return self._gradient(loss, variable, torch.ones_like(loss), FP16_LOSS_SCALE if self._networks.half else 1.0)

    def _gradient(self, output: Tensor, variable: Tensor, weights: Tensor, scale: float) -> Tensor:
        """Return the gradient of sum(weights * output). After a float16 overflow, retry with a smaller scale."""
        for _ in range(FP16_TRIES if self._networks.half else 1):
            (gradient,) = torch.autograd.grad(output, variable, weights * scale, retain_graph=self._networks.half)
            if gradient.isfinite().all():
                return gradient / scale
            scale /= FP16_RETREAT
        raise NonFiniteError("the gradient of sync is not finite; try dtype float32 or bfloat16")

    def _decode_window(self, x0: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 H W"]:
        """Decode one window to the image that the objective takes, in float32 at least."""
        image = self._networks.decode(x0)
        return self._downscale(image.to(at_least_float32(image.dtype)))

    def _downscale(self, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 small_H small_W"]:
        return avg_pool2d(image, self._config.shrink) if self._config.shrink > 1 else image

    def _scale_gradient(self, gradient: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
        if self._config.step_size == "gradient":
            return gradient
        rms = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return gradient / rms.clamp_min(torch.finfo(gradient.dtype).tiny) * RMS_PER_WEIGHT
