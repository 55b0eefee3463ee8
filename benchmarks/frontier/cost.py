"""What a picture costs by arithmetic: floating-point operations, counted on networks that have shapes but no data.

The networks are those of a preset; a literal published program and a picture of ours are made of the same parts, so
that their ratio is one of methods, not of implementations.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from synccontrol.canvas.layout import AbstractLayout
from synccontrol.config import SyncConfig
from synccontrol.families.base import AbstractFamily, Crops, View
from synccontrol.jobs.footprint import LEVEL
from synccontrol.models.defaults import Defaults
from synccontrol.sampling.batches import Batches
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.sampling.sync import Networks, Sync


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations of the parts of a picture; a multiplication and an addition are two."""

    predict: int  # one window, guided where there is guidance, ControlNets included
    anchor: int  # what sync does once a step in which its objective acts
    window: int  # what sync does for each window but the anchor in such a step, its first prediction included
    decode: int  # one tile of the canvas


def count(family: AbstractFamily, layout: AbstractLayout, settings: Defaults, objective: AbstractObjective) -> Work:
    """Returns the work of the parts; call it under `footprint.fake()`, with a family around a blank pipeline."""
    h, w = family.geometry.window_px
    z = torch.zeros(3, family.geometry.channels, *layout.window, dtype=family.canvas_dtype)
    blank = family.blank_prompt()
    views = [View(window=window, prompt=blank, negative_prompt=blank) for window in range(len(z))]
    crops: list[Crops] = [lambda some: torch.zeros(len(some), 3, h, w)] * family.controls
    networks = Networks(decode=family.decode, encode=family.encode, kind="epsilon")
    sync = Sync(dataclasses.replace(settings.sync, adain=0.0), objective, 0, networks, Batches(1, str))
    with family.session():
        predict = family.condition(views, crops, settings.sampling, settings.sampling.steps, str)

        def now(some: Tensor, windows: Sequence[int]) -> Tensor:
            return predict(some, LEVEL, windows)

        with torch.no_grad():
            now(z, range(len(z)))  # what is computed once a picture: embeddings of control maps
            one = _flops(lambda: now(z[:1], [0]))
            decode = _flops(lambda: family.decode(torch.zeros(1, z.shape[1], *layout.decoded, dtype=z.dtype)))
        two, three = (_flops(lambda n=n: sync.nudge(z[:n], LEVEL, now)) for n in (2, 3))  # type: ignore[misc]
    return Work(predict=one, anchor=2 * two - three, window=three - two, decode=decode)


def picture(work: Work, layout: AbstractLayout, settings: Defaults) -> int:
    """Returns the operations of a whole picture, its decoding left out (it is the same for all methods)."""
    n, steps, sync = len(layout), settings.sampling.steps, settings.sync
    synced = sum(sync.due(index) for index in range(steps)) if n > 1 else 0
    restyled = sum(sync.adain_due(index) and not sync.due(index) for index in range(steps)) if n > 1 else 0
    again = 0 if sync.predict == "once" else n - 1  # windows that are predicted a second time, once they have moved
    return (
        (steps - synced) * n * work.predict
        + synced * (work.anchor + (n - 1) * work.window + again * work.predict)
        + restyled * again * work.predict
    )


def published(work: Work, layout: AbstractLayout, steps: int, synced: int) -> int:
    """Returns the operations of the literal program (`tests/sampling/published.py`), decoding left out.

    Every window, the anchor too, is predicted, compared, differentiated and predicted again; the anchor is predicted
    and decoded once more, before them.

    Args:
        work: of the full gradient, with the settings of the paper.
        layout: the windows.
        steps: denoising steps.
        synced: how many of them are.
    """
    n = len(layout)
    return (steps - synced) * n * work.predict + synced * (work.anchor + n * (work.window + work.predict))


def published_sync(settings: Defaults, synced: int) -> SyncConfig:
    """Returns the sync of the paper (arXiv 2306.05178) with a model's own objective."""
    return SyncConfig(steps=synced, objective=settings.sync.objective)


def _flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    total: int = counter.get_total_flops()
    return total
