"""The montage loop, as a generator."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.canvas.base import AbstractLayout, Merger
from synccontrol.errors import NonFiniteError
from synccontrol.sampling.batching import Batches
from synccontrol.sampling.noise_level import Level, prediction_for, x0_hat
from synccontrol.sampling.schedulers import Solver
from synccontrol.sampling.sync import Sync

# (z (k, c, h, w), their level, the windows' indices) -> predictions (k, c, h, w), with guidance
Predict = Callable[[Tensor, Level, Sequence[int]], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoised:
    """The canvas after one denoising step."""

    index: int  # from 0
    steps: int  # of how many
    x_t: Float[Tensor, "1 c y x"]  # in the solver's coordinates; clean after the last step
    x0: Float[Tensor, "1 c y x"]  # the clean estimate that the step was made with


def montage_steps(
    x_t: Float[Tensor, "1 c y x"],
    layout: AbstractLayout,
    solver: Solver,
    predict: Predict,
    merge: Merger,
    batches: Batches,
    sync: Sync | None,
) -> Iterator[Denoised]:
    """Yields the canvas after every denoising step.

    MultiDiffusion (arXiv 2302.08113) with sync (arXiv 2306.05178): the (nudged) windows and their predictions are
    merged with the same weights, then the solver steps once on the canvas. For DDIM that equals the published order
    (step every window, then average), because its step is linear in both; other solvers need one history per canvas.
    What of the canvas its windows do not hold (on a sphere, where points lie closer than cells) counts as noise.
    """
    for level in solver.levels:
        # 1. crop
        canvas = solver.z(x_t, level)
        z = layout.crop(canvas)
        rest = merge.rest(canvas, z)
        known: dict[int, Tensor] = {}

        def predict_now(z: Tensor, windows: Sequence[int], level: Level = level) -> Tensor:
            return predict(z, level, windows)

        # 2. sync
        if sync is not None and sync.due(level):
            z, known = sync.nudge(z, level, predict_now)
            canvas = merge(z) + rest
            x_t = solver.moved(canvas, level)
        # 3. predict, 4. merge, 5. step
        with torch.no_grad():
            known |= batches.predict(predict_now, z, [window for window in range(len(z)) if window not in known])
            windows = torch.stack([known[window] for window in range(len(z))])
            prediction = merge(windows) + prediction_for(rest, torch.zeros_like(rest), level, solver.kind)
            x0 = x0_hat(canvas, prediction, level, solver.kind)
            x_t = solver.step(prediction, level, x_t)
        if not x_t.isfinite().all():
            raise NonFiniteError(
                f"the latents are not finite after step {level.index + 1} of {len(solver.levels)}; "
                "try dtype float32 or bfloat16, a lower guidance scale or a lower sync weight"
            )
        yield Denoised(index=level.index, steps=len(solver.levels), x_t=x_t, x0=x0)
