"""Regions: a window is predicted once for every region that it touches, and the predictions are mixed by share.

MultiDiffusion (arXiv 2302.08113, section 4.2, region-based generation), with soft shares in place of masks.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import Level

# the number of a region, the windows that touch it -> their prediction; its indices count these windows
Condition = Callable[[int, Sequence[int]], Predict]


def touching(shares: Float[Tensor, "n r h w"]) -> list[list[int]]:
    """Returns which windows touch each region."""
    touched = shares.amax(dim=(2, 3)) > 0
    return [touched[:, region].nonzero()[:, 0].tolist() for region in range(shares.shape[1])]


class Regional:
    """The prediction of windows that are mixed of regions. It is a `Predict`.

    Args:
        shares: how much of each cell of each window belongs to each region; 1 in all.
        condition: returns a region's own prediction.
    """

    def __init__(self, shares: Float[Tensor, "n r h w"], condition: Condition) -> None:
        self._shares = shares
        self._views = [{window: view for view, window in enumerate(windows)} for windows in touching(shares)]
        self._predict = [condition(region, list(views)) for region, views in enumerate(self._views)]

    def __call__(self, z: Float[Tensor, "k c h w"], level: Level, windows: Sequence[int]) -> Float[Tensor, "k c h w"]:
        mixed = torch.zeros_like(z)
        for region, views in enumerate(self._views):
            rows = [row for row, window in enumerate(windows) if window in views]
            if not rows:
                continue
            found = self._predict[region](z[rows], level, [views[windows[row]] for row in rows])
            share = self._shares[[windows[row] for row in rows], region].to(found)
            mixed = mixed.index_add(0, torch.tensor(rows, device=z.device), found * share[:, None])
        return mixed
