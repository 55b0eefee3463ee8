"""Regional prompts: a window is predicted once per region it touches, and the predictions are mixed by share.

MultiDiffusion (arXiv 2302.08113, section 4.2, region-based generation), with soft shares in place of masks.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel

# Index of a region, the windows that touch it -> prediction function by position in that list of windows.
RegionCondition = Callable[[int, Sequence[int]], Predict]


def windows_by_region(shares: Float[Tensor, "n r h w"]) -> list[list[int]]:
    """Return the windows that touch each region."""
    touched = shares.amax(dim=(2, 3)) > 0
    return [touched[:, region].nonzero()[:, 0].tolist() for region in range(shares.shape[1])]


class RegionMix:
    """The prediction of windows, mixed from their regions; implements `Predict`.

    Args:
        shares: region shares of each window's cells; they sum to 1.
        condition: returns the prediction function of one region.
    """

    def __init__(self, shares: Float[Tensor, "n r h w"], condition: RegionCondition) -> None:
        self._shares = shares
        self._rows_by_region = [
            {window: view for view, window in enumerate(windows)} for windows in windows_by_region(shares)
        ]
        self._predict = [condition(region, list(views)) for region, views in enumerate(self._rows_by_region)]

    def __call__(
        self, z: Float[Tensor, "k c h w"], level: NoiseLevel, windows: Sequence[int]
    ) -> Float[Tensor, "k c h w"]:
        mixed = torch.zeros_like(z)
        for region, rows_of_window in enumerate(self._rows_by_region):
            rows = [row for row, window in enumerate(windows) if window in rows_of_window]
            if not rows:
                continue
            prediction = self._predict[region](z[rows], level, [rows_of_window[windows[row]] for row in rows])
            share = self._shares[[windows[row] for row in rows], region].to(prediction)
            mixed = mixed.index_add(0, torch.tensor(rows, device=z.device), prediction * share[:, None])
        return mixed
