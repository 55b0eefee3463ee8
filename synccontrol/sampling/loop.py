"""The montage loop, as a generator."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.canvas.base import AbstractLayout, Merger
from synccontrol.errors import NonFiniteError
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.noise_level import NoiseLevel, prediction_for, x0_hat
from synccontrol.sampling.schedulers import SchedulerRun
from synccontrol.sampling.sync import Sync

# Windows z (k, c, h, w), their noise level, their indices -> predictions (k, c, h, w), with guidance.
Predict = Callable[[Tensor, NoiseLevel, Sequence[int]], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisedCanvas:
    """The canvas after one denoising step."""

    index: int  # from 0
    steps: int  # number of steps
    x_t: Float[Tensor, "1 c y x"]  # in the scheduler's coordinates; clean after the last step
    x0: Float[Tensor, "1 c y x"]  # the clean estimate of this step


def montage_steps(
    x_t: Float[Tensor, "1 c y x"],
    layout: AbstractLayout,
    solver: SchedulerRun,
    predict: Predict,
    merge: Merger,
    batches: BatchedPredictor,
    sync: Sync | None,
) -> Iterator[DenoisedCanvas]:
    """Yield the canvas after every denoising step.

    MultiDiffusion (arXiv 2302.08113) with sync (arXiv 2306.05178): the windows, moved by sync, and their predictions
    are merged with the same weights; then the scheduler steps once on the canvas. For DDIM that equals the published
    order (step every window, then average), because its step is linear in both; other schedulers need one history per
    canvas. Detail that no window holds counts as noise; an equirectangular panorama has some, because its points are
    denser than cells.
    """
    for level in solver.levels:
        # 1. crop
        canvas = solver.model_input(x_t, level)
        z = layout.crop(canvas)
        residual = merge.residual(canvas, z)
        predictions: dict[int, Tensor] = {}

        def predict_at_level(z: Tensor, windows: Sequence[int], level: NoiseLevel = level) -> Tensor:
            return predict(z, level, windows)

        # 2. sync
        if sync is not None and sync.due(level):
            z, predictions = sync.nudge(z, level, predict_at_level)
            canvas = merge(z) + residual
            x_t = solver.restart_from(canvas, level)
        # 3. predict, 4. merge, 5. step
        with torch.no_grad():
            predictions |= batches.predict(
                predict_at_level, z, [window for window in range(len(z)) if window not in predictions]
            )
            windows = torch.stack([predictions[window] for window in range(len(z))])
            prediction = merge(windows) + prediction_for(
                residual, torch.zeros_like(residual), level, solver.prediction_type
            )
            x0 = x0_hat(canvas, prediction, level, solver.prediction_type)
            x_t = solver.step(prediction, level, x_t)
        if not x_t.isfinite().all():
            raise NonFiniteError(
                f"the latents are not finite after step {level.index + 1} of {len(solver.levels)}; "
                "try dtype float32 or bfloat16, a lower guidance scale or a lower sync weight"
            )
        yield DenoisedCanvas(index=level.index, steps=len(solver.levels), x_t=x_t, x0=x0)
