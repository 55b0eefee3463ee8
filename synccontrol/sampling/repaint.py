"""Repainting: where a picture is kept, the clean estimate is the picture.

Stock pipelines lay the kept part over the canvas after every step, under the same noise. To say that its estimate is
the picture comes to the same for every solver that draws no noise, and asks nothing of those that keep a history.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.sampling.levels import Level, prediction_for, x0_hat
from synccontrol.sampling.loop import Predict


class Repaint:
    """The prediction of windows of which a part is kept. It is a `Predict`; what is kept wholly asks no network.

    Args:
        predict: of the windows.
        known: clean latents of what is there.
        free: 1 where cells are drawn anew, 0 where they are kept.
        kind: what is predicted, of `levels.KINDS`.
    """

    def __init__(
        self, predict: Predict, known: Float[Tensor, "n c h w"], free: Float[Tensor, "n 1 h w"], kind: str
    ) -> None:
        self._predict = predict
        self._known = known
        self._free = free
        self._kind = kind

    def __call__(self, z: Float[Tensor, "k c h w"], level: Level, windows: Sequence[int]) -> Float[Tensor, "k c h w"]:
        indices = list(windows)
        x0, free = self._known[indices], self._free[indices]
        rows = [row for row in range(len(indices)) if bool(free[row].any())]
        if rows:
            found = self._predict(z[rows], level, [indices[row] for row in rows])
            drawn = torch.lerp(x0[rows], x0_hat(z[rows], found, level, self._kind), free[rows])
            x0 = x0.index_copy(0, torch.tensor(rows, device=z.device), drawn)
        return prediction_for(z, x0, level, self._kind)
