"""How overlapping windows blend on the canvas (MultiDiffusion, arXiv 2302.08113, eq. 5)."""

import torch
from torch import Tensor

from synccontrol.windows import Layout

GAUSSIAN_DEVIATION = 0.25  # of the window's side


class Merger:
    """Averages windows onto the canvas, each window weighted alike.

    Args:
        layout: where the windows lie.
        weights: 'uniform', 'ramp' (falls linearly to the border) or 'gaussian'.
        like: a tensor of the dtype and device of the windows to come; sums are kept in float32 at least.
    """

    def __init__(self, layout: Layout, weights: str, like: Tensor) -> None:
        self._layout = layout
        h, w = layout.window
        weight = _profile(h, weights)[:, None] * _profile(w, weights)[None, :]
        self._weight = weight.to(torch.promote_types(like.dtype, torch.float32)).to(like.device)
        self._total = self._add(self._weight.expand(len(layout), 1, h, w))

    def __call__(self, windows: Tensor) -> Tensor:
        """Returns the canvas (1, c, height, width) of windows (n, c, h, w), in their dtype."""
        return (self._add(windows * self._weight) / self._total).to(windows.dtype)

    def _add(self, windows: Tensor) -> Tensor:
        layout = self._layout
        h, w = layout.window
        overhang = w if layout.loop else 0
        canvas = windows.new_zeros(1, windows.shape[1], layout.height, layout.width + overhang)
        for (top, left), window in zip(layout.origins, windows, strict=True):
            canvas[0, :, top : top + h, left : left + w] += window
        canvas[..., :overhang] += canvas[..., layout.width :]
        return canvas[..., : layout.width]


def _profile(length: int, weights: str) -> Tensor:
    """Returns the weights (length,) along one side of a window, float64, above 0 and at most 1."""
    distance = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5  # from the middle, in window sides
    profiles = {
        "uniform": torch.ones_like(distance),
        "ramp": 1 - 2 * distance.abs(),
        "gaussian": torch.exp(-0.5 * (distance / GAUSSIAN_DEVIATION) ** 2),
    }
    return profiles[weights]
