"""How overlapping windows blend on the canvas (MultiDiffusion, arXiv 2302.08113, eq. 5)."""

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.canvas.layout import AbstractLayout

GAUSSIAN_DEVIATION = 0.25  # of the window's side


class Merger:
    """Averages windows onto the canvas, each window weighted alike.

    Args:
        layout: where the windows lie.
        weights: 'uniform', 'ramp' (falls linearly to the border) or 'gaussian'.
        like: a tensor of the dtype and device of the windows to come; sums are kept in float32 at least.
    """

    def __init__(self, layout: AbstractLayout, weights: str, like: Tensor) -> None:
        self._layout = layout
        h, w = layout.window
        weight = _profile(h, weights)[:, None] * _profile(w, weights)[None, :] * layout.trust
        self._weight = weight.to(torch.promote_types(like.dtype, torch.float32)).to(like.device)
        self._total = layout.add(self._weight.expand(len(layout), 1, h, w))

    def __call__(self, windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Returns the canvas (1, c, *shape) of windows, in their dtype."""
        return (self._layout.add(windows * self._weight) / self._total).to(windows.dtype)

    def rest(self, canvas: Float[Tensor, "1 c y x"], windows: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c y x"]:
        """Returns what of a canvas its windows do not hold: canvas = merge(windows) + rest, and 0 on a flat one."""
        return torch.zeros_like(canvas) if self._layout.lossless else canvas - self(windows)


def _profile(length: int, weights: str) -> Float[Tensor, " length"]:
    """Returns the weights along one side of a window, float64, above 0 and at most 1."""
    distance = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5  # from the middle, in window sides
    profiles = {
        "uniform": torch.ones_like(distance),
        "ramp": 1 - 2 * distance.abs(),
        "gaussian": torch.exp(-0.5 * (distance / GAUSSIAN_DEVIATION) ** 2),
    }
    return profiles[weights]
