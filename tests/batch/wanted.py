"""Jobs for tests, of the tiny checkpoint's size."""

import dataclasses
from pathlib import Path
from typing import Any

from synccontrol.batch.job import Job, Recipe
from synccontrol.batch.model_request import ModelRequest
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig

RECIPE = Recipe(
    request=ModelRequest(model="test", controls=(), controlnets=(), detectors=(), device="cpu"),
    sampling=SamplingConfig(steps=2).complete(),
    windows=WindowConfig(stride=4).complete(),
    sync=SyncConfig(weight=0.0).complete(),
)
JOB = Job(guide=None, prompt="x", negative_prompt="", seed=0, output=Path("out"), recipe=RECIPE)


def following(*controls: str, **changes: Any) -> Recipe:
    """Returns the recipe with controls, and what else is changed."""
    return dataclasses.replace(RECIPE, request=dataclasses.replace(RECIPE.request, controls=controls), **changes)
