"""The methods that are compared, as settings of one program: they share model, windows, sampler and noise."""

from collections.abc import Mapping
from dataclasses import dataclass

from synccontrol.config import SyncConfig
from synccontrol.models.defaults import Defaults

ALL_STEPS = "published-all"
RENDERED = "rendered"  # the scenes that the guides come from: not drawn by the model, what it is asked for


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to make a montage."""

    about: str
    sync: SyncConfig
    overlap: bool = True  # False: every window is a picture of its own, put beside the others


def methods(defaults: Defaults) -> Mapping[str, Method]:
    """Returns the methods by name for a model of these defaults.

    The published sync is the paper's (arXiv 2306.05178): full gradient, weight 20, decay 0.95, pictures at full size;
    but its objective is the preset's, so that what is compared is the way of syncing alone.
    """
    off = SyncConfig(weight=0.0)
    steps = defaults.sampling.steps

    def published(synced: int) -> SyncConfig:
        return SyncConfig(steps=synced, objective=defaults.sync.objective)

    return {
        "independent": Method(about="windows side by side, no overlap, no sync", sync=off, overlap=False),
        "multidiffusion": Method(about="overlapping windows (MultiDiffusion), no sync", sync=off),
        "published-5": Method(about="published sync, first 5 steps", sync=published(5)),
        "published-10": Method(about="published sync, first 10 steps", sync=published(10)),
        ALL_STEPS: Method(about=f"published sync, all {steps} steps", sync=published(steps)),
        "default": Method(about="the preset's own sync", sync=defaults.sync),
    }
