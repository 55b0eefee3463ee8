"""Windows take on the mean and deviation of their anchor's latents: sync for nothing (`SyncConfig.adain`)."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.sampling.anchors import Anchors

PATIENCE = 3  # looks in a row at which a restyled window may be further from the anchor's statistics than before

Statistics = tuple[Tensor, Tensor]  # mean and deviation of every channel, (1, c, 1, 1)


class Restyle:
    """Gives windows the statistics of their region's anchor.

    Args:
        anchors: whom the windows follow.
        across: how far regions take on the style of the anchor that leads, 0..1; the rest is their own anchor's.
        encoded: returns the latents (1, c, h, w) of the picture that leads, if one does.
    """

    def __init__(self, anchors: Anchors, across: float, encoded: Callable[[], Tensor]) -> None:
        self._anchors = anchors
        self._across = across
        self._encoded = encoded
        self._away: dict[int, tuple[float, int]] = {}  # how far each window was, and how many looks in a row it left

    @torch.no_grad()
    def lacking(self, x0: Mapping[int, Float[Tensor, "1 c h w"]]) -> dict[int, Float[Tensor, "c h w"]]:
        """Returns what windows' clean estimates, those of all windows, lack of the statistics that they follow.

        AdaIN (arXiv 1703.06868, eq. 8) on latents, in each region of a window by itself. It is to be added to z times
        the signal: that gives signal * AdaIN(x0) + noise * eps, the restyled estimate under the noise that was there.
        More would be too much: the mean of z over a whole window has next to no noise, so that the networks take its
        mean / signal for true.
        """
        wanted = self._wanted(x0)
        found = {}
        for window, own in x0.items():
            if window in self._anchors.still:
                continue
            lack = self._restyled(own, window, wanted) - own
            apart = lack.square().mean().sqrt() / own.std()
            if self._follows(window, float(apart)):
                found[window] = lack[0]
        return found

    def _wanted(self, x0: Mapping[int, Tensor]) -> list[Statistics]:
        """Returns the statistics that each region is to have."""
        anchors = self._anchors
        if anchors.leading is None:
            picture = self._encoded().to(next(iter(x0.values())))
            leading = _statistics(picture, torch.ones_like(picture[0, 0]))
            if not anchors.windows:
                return [leading] * anchors.shares.shape[1]
        else:
            leading = self._of(x0[anchors.leading], anchors.leading, anchors.region_of(anchors.leading))
        own = [self._of(x0[window], window, region) for region, window in enumerate(anchors.windows)]
        return [(mean.lerp(leading[0], self._across), far.lerp(leading[1], self._across)) for mean, far in own]

    def _of(self, x0: Float[Tensor, "1 c h w"], window: int, region: int) -> Statistics:
        return _statistics(x0, self._anchors.shares[window, region].to(x0))

    def _restyled(
        self, own: Float[Tensor, "1 c h w"], window: int, wanted: list[Statistics]
    ) -> Float[Tensor, "1 c h w"]:
        found, least = torch.zeros_like(own), torch.finfo(own.dtype).eps  # a flat channel stays flat
        for region, (wanted_mean, wanted_deviation) in enumerate(wanted):
            share = self._anchors.shares[window, region].to(own)
            if bool(share.any()):
                mean, deviation = _statistics(own, share)
                found += share * ((own - mean) * (wanted_deviation / deviation.clamp_min(least)) + wanted_mean)
        return found

    def _follows(self, window: int, apart: float) -> bool:
        """Returns whether a window is to be restyled: no longer, once it keeps going away from the anchor instead.

        Under guidance a window may answer with a move the other way: where the prompt says what is to be seen, the
        prompted prediction hardly hears what was added to z, and guidance takes away a multiple of what the unprompted
        one hears. Such windows agree by their prompt; to go on would drive them apart. One look or two further away
        mean nothing: estimates take shape in the first steps, and differ more as they do.

        Args:
            window: its index.
            apart: root mean square of what it lacks, in deviations of its estimate.
        """
        former, looks = self._away.get(window, (float("inf"), 0))
        if looks < PATIENCE:
            self._away[window] = apart, looks + 1 if apart > former else 0
        return self._away[window][1] < PATIENCE


def _statistics(x0: Float[Tensor, "1 c h w"], share: Float[Tensor, "h w"]) -> Statistics:
    """Returns mean and deviation of every channel, over cells that count by their share."""
    weight = share / share.sum()
    mean = (x0 * weight).sum(dim=(2, 3), keepdim=True)
    return mean, ((x0 - mean).square() * weight).sum(dim=(2, 3), keepdim=True).sqrt()
