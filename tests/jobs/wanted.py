"""Jobs for tests, of the tiny checkpoint's size."""

import dataclasses
from pathlib import Path
from typing import Any

from synccontrol.config import SamplingConfig, SyncConfig, WindowConfig
from synccontrol.jobs.job import Job
from synccontrol.jobs.recipe import Recipe
from synccontrol.jobs.runtime import Request

RECIPE = Recipe(
    request=Request(model="test", controls=(), controlnets=(), detectors=(), device="cpu"),
    sampling=SamplingConfig(steps=2),
    windows=WindowConfig(stride=4),
    sync=SyncConfig(weight=0.0),
)
JOB = Job(guide=None, prompt="x", negative_prompt="", seed=0, output=Path("out"), recipe=RECIPE)


def following(*controls: str, **changes: Any) -> Recipe:
    """Returns the recipe with controls, and what else is changed."""
    return dataclasses.replace(RECIPE, request=dataclasses.replace(RECIPE.request, controls=controls), **changes)
