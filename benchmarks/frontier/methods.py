"""The methods that are compared, as settings of one program: they share model, guides, prompts and noise."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from synccontrol.models.presets import PresetSettings
from synccontrol.spec.image_settings import BEST, DEFAULT, FAST, PAPER
from synccontrol.spec.settings import SyncConfig

ALL_STEPS = "published-all"
RENDERED = "rendered"  # the scenes that the guides come from: not drawn by the model, what it is asked for


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to make a montage."""

    about: str
    settings: PresetSettings
    overlap: bool = True  # False: every window is a picture of its own, put beside the others


def methods(presets: Mapping[str, PresetSettings]) -> Mapping[str, Method]:
    """Returns the methods by name for a model of these presets.

    The published ones are the paper's (arXiv 2306.05178): DDIM, a stride of a quarter window, uniform weights, full
    gradient, weight 20, decay 0.95, pictures at full size; with the objective of the model's own presets, so that what
    is compared is the way of syncing alone.
    """
    paper, default, off = presets[PAPER], presets[DEFAULT], SyncConfig(weight=0.0).complete()

    def published(synced: int) -> PresetSettings:
        return replace(paper, sync=paper.sync.replace(steps=synced))

    steps = paper.sampling.steps
    return {
        "independent": Method(
            about="the preset `default` window by window, side by side: no overlap, no sync",
            settings=replace(default, sync=off),
            overlap=False,
        ),
        "multidiffusion": Method(about=f"MultiDiffusion, {steps} DDIM steps", settings=replace(paper, sync=off)),
        "published-5": Method(about="the same with the published sync in the first 5 steps", settings=published(5)),
        "published-10": Method(about="in the first 10 steps", settings=published(10)),
        ALL_STEPS: Method(about=f"in all {steps} steps", settings=published(steps)),
        "unsynced": Method(about="the preset `default` without sync", settings=replace(default, sync=off)),
        DEFAULT: Method(about="the preset `default`", settings=default),
        FAST: Method(about="the preset `fast`", settings=presets[FAST]),
        BEST: Method(about="the preset `best`", settings=presets[BEST]),
    }
