"""The montage loop, as a generator."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from synccontrol.canvas.layout import AbstractLayout
from synccontrol.canvas.merge import Merger
from synccontrol.config import SyncConfig, WindowConfig
from synccontrol.errors import NonFiniteError
from synccontrol.sampling import sync
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.sampling.solvers import Schedule

# (z (k, c, h, w) in network coordinates, step index, the windows' indices) -> predictions (k, c, h, w), with guidance
Predict = Callable[[Tensor, int, Sequence[int]], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One finished denoising step."""

    index: int  # from 0
    steps: int  # of how many
    x_t: Tensor  # the canvas (1, c, h, w) after the step, in the solver's coordinates


def montage_steps(
    x_t: Tensor,
    layout: AbstractLayout,
    schedule: Schedule,
    predict: Predict,
    decode: Callable[[Tensor], Tensor],
    windows: WindowConfig,
    sync_config: SyncConfig,
    objective: AbstractObjective | None,
    anchor: int | Tensor,
) -> Iterator[Step]:
    """Yields every denoising step of the canvas x_t (1, c, h, w).

    MultiDiffusion (arXiv 2302.08113) with sync (arXiv 2306.05178): the (nudged) windows and their predictions are
    merged with the same weights, then the solver steps once on the canvas. For DDIM that equals the published order
    (step every window, then average), because its step is linear in both; other solvers need one history per canvas.
    What of the canvas its windows do not hold (on a sphere, where points lie closer than cells) counts as noise.
    """
    merge = Merger(layout, windows.weights, x_t)
    for i in range(len(schedule)):
        # 1. crop
        canvas = schedule.to_network(x_t, i)
        z = layout.crop(canvas)
        rest = merge.rest(canvas, z)
        known: dict[int, Tensor] = {}

        def predict_now(z: Tensor, indices: Sequence[int], i: int = i) -> Tensor:
            return predict(z, i, indices)

        # 2. sync
        if objective is not None and sync.is_due(sync_config, i, len(layout), anchor):
            nudged = sync.nudge(
                z,
                sync_config.weight_at(i),
                predict=predict_now,
                x0_hat=partial(schedule.x0_hat, index=i),
                decode=decode,
                objective=objective,
                anchor=anchor,
                gradient=sync_config.gradient,
                step_size=sync_config.step_size,
                shrink=sync_config.shrink,
                batch=windows.batch,
            )
            z, known = nudged.z, nudged.known
            x_t = schedule.from_network(merge(z) + rest, i)
        # 3. predict, 4. merge, 5. step
        with torch.no_grad():
            prediction = merge(predict_all(predict_now, z, known, windows.batch))
            x_t = schedule.step(prediction + schedule.pure_noise(rest, i), i, x_t)
        if not x_t.isfinite().all():
            raise NonFiniteError(
                f"the latents are not finite after step {i + 1} of {len(schedule)}; "
                "try dtype float32 or bfloat16, a lower guidance scale or a lower sync weight"
            )
        yield Step(index=i, steps=len(schedule), x_t=x_t)


def predict_all(predict: sync.WindowPredict, z: Tensor, known: dict[int, Tensor], batch: int) -> Tensor:
    """Returns the predictions (n, c, h, w) of all windows z, in batches, taking those that are known already."""
    predictions = dict(known)
    missing = [window for window in range(len(z)) if window not in known]
    for start in range(0, len(missing), batch):
        indices = missing[start : start + batch]
        predictions.update(zip(indices, predict(z[indices], indices), strict=True))
    return torch.stack([predictions[window] for window in range(len(z))])
