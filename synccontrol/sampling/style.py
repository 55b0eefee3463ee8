"""Style alignment: windows take on the channel statistics of their anchor's latents (`SyncConfig.adain`)."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.sampling.anchors import Anchors

PATIENCE = 3  # a window stops aligning when its distance to the anchor's statistics grew this often in a row

Statistics = tuple[Tensor, Tensor]  # mean and deviation of every channel, (1, c, 1, 1)


class StyleAlignment:
    """Aligns the latent statistics of windows with those of their region's anchor.

    Args:
        anchors: the windows to follow.
        shared_style: weight of the leading anchor's style in every region, 0..1; the rest is the region's own anchor.
        encode_anchor: returns the latents (1, c, h, w) of the anchor image, if an image leads.
    """

    def __init__(self, anchors: Anchors, shared_style: float, encode_anchor: Callable[[], Tensor]) -> None:
        self._anchors = anchors
        self._shared_style = shared_style
        self._encode_anchor = encode_anchor
        self._drift: dict[int, tuple[float, int]] = {}  # per window: last distance, and number of increases in a row

    @torch.no_grad()
    def corrections(self, x0: Mapping[int, Float[Tensor, "1 c h w"]]) -> dict[int, Float[Tensor, "c h w"]]:
        """Return the corrections that align the clean estimates of all windows, by window.

        AdaIN (arXiv 1703.06868, eq. 8) on latents, separately in each region of a window. Multiply a correction by the
        signal and add it to z: that gives signal * AdaIN(x0) + noise * eps, the aligned estimate under the same noise.
        A larger factor would be too much: the mean of z over a whole window has almost no noise, so the networks take
        mean / signal as the true mean.
        """
        targets = self._target_statistics(x0)
        corrections = {}
        for window, estimate in x0.items():
            if window in self._anchors.still:
                continue
            correction = self._aligned(estimate, window, targets) - estimate
            distance = correction.square().mean().sqrt() / estimate.std()
            if self._should_align(window, float(distance)):
                corrections[window] = correction[0]
        return corrections

    def _target_statistics(self, x0: Mapping[int, Tensor]) -> list[Statistics]:
        """Return the target statistics of each region."""
        anchors = self._anchors
        if anchors.leading is None:
            anchor_latents = self._encode_anchor().to(next(iter(x0.values())))
            leading_statistics = _statistics(anchor_latents, torch.ones_like(anchor_latents[0, 0]))
            if not anchors.windows:
                return [leading_statistics] * anchors.shares.shape[1]
        else:
            leading_statistics = self._window_statistics(
                x0[anchors.leading], anchors.leading, anchors.region_of(anchors.leading)
            )
        statistics = [
            self._window_statistics(x0[window], window, region) for region, window in enumerate(anchors.windows)
        ]
        return [
            (
                mean.lerp(leading_statistics[0], self._shared_style),
                deviation.lerp(leading_statistics[1], self._shared_style),
            )
            for mean, deviation in statistics
        ]

    def _window_statistics(self, x0: Float[Tensor, "1 c h w"], window: int, region: int) -> Statistics:
        return _statistics(x0, self._anchors.shares[window, region].to(x0))

    def _aligned(
        self, estimate: Float[Tensor, "1 c h w"], window: int, targets: list[Statistics]
    ) -> Float[Tensor, "1 c h w"]:
        aligned, epsilon = torch.zeros_like(estimate), torch.finfo(estimate.dtype).eps  # a flat channel stays flat
        for region, (target_mean, target_deviation) in enumerate(targets):
            share = self._anchors.shares[window, region].to(estimate)
            if bool(share.any()):
                mean, deviation = _statistics(estimate, share)
                aligned += share * ((estimate - mean) * (target_deviation / deviation.clamp_min(epsilon)) + target_mean)
        return aligned

    def _should_align(self, window: int, distance: float) -> bool:
        """Return whether to align a window. Alignment stops once a window keeps moving away from the anchor.

        Under guidance a window may respond in the opposite direction: where the prompt determines the content, the
        conditional prediction hardly reacts to the correction, and guidance subtracts a multiple of the unconditional
        reaction. Such windows agree through their prompt, and further alignment would drive them apart. One or two
        increases mean nothing: estimates differ more as they take shape in the first steps.

        Args:
            window: its index.
            distance: root mean square of its correction, in deviations of its estimate.
        """
        previous, increases = self._drift.get(window, (float("inf"), 0))
        if increases < PATIENCE:
            self._drift[window] = distance, increases + 1 if distance > previous else 0
        return self._drift[window][1] < PATIENCE


def _statistics(x0: Float[Tensor, "1 c h w"], share: Float[Tensor, "h w"]) -> Statistics:
    """Return mean and deviation of every channel, with cells weighted by share."""
    weight = share / share.sum()
    mean = (x0 * weight).sum(dim=(2, 3), keepdim=True)
    return mean, ((x0 - mean).square() * weight).sum(dim=(2, 3), keepdim=True).sqrt()
