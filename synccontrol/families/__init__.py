"""Model families, one file each. The directory is the registry: a module that names its `PIPELINES` is a family."""

import importlib
import pkgutil
from functools import cache
from typing import Any

from synccontrol.errors import ModelError
from synccontrol.families.base import AbstractDenoiser


@cache
def _families() -> dict[str, Any]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {pipeline: module for module in modules for pipeline in vars(module).get("PIPELINES", ())}


def find(pipeline_class: str) -> Any:
    """Returns the family module that serves a diffusers pipeline class, by the class's name.

    Raises:
        ModelError: no family does.
    """
    families = _families()
    if pipeline_class not in families:
        raise ModelError(f"no model family serves {pipeline_class}; known pipelines: {', '.join(sorted(families))}")
    return families[pipeline_class]


def wrap(pipe: Any) -> AbstractDenoiser:
    """Returns the denoiser of a loaded diffusers pipeline. Raises `ModelError` for a class that no family serves."""
    denoiser: AbstractDenoiser = find(type(pipe).__name__).Denoiser(pipe)
    return denoiser
