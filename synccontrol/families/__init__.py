"""Model families, one file each. The directory is the registry: a module that names its `PIPELINES` is a family."""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import Any

from synccontrol.errors import ModelError
from synccontrol.families.base import AbstractFamily
from synccontrol.families.multi_device import Sharded


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


def name(family: Any) -> str:
    """Returns what a family is called: its module's last name."""
    one = family.first if isinstance(family, Sharded) else family
    called: str = getattr(one, "__name__", type(one).__module__)
    return called.rpartition(".")[2]


def wrap(pipe: Any, controls: Sequence[str] = ()) -> AbstractFamily:
    """Returns the family of a loaded diffusers pipeline, of a class that is served or one derived from it.

    Args:
        pipe: the pipeline.
        controls: the control type of each map; only union ControlNets must be told.

    Raises:
        ModelError: no family serves it, or its union ControlNet does not follow a control type.
        ConfigError: the number of controls is not that of the ControlNets.
    """
    names = [kind.__name__ for kind in type(pipe).__mro__]
    known = next((name for name in names if name in _families()), names[0])
    family: AbstractFamily = find(known).Family(pipe, controls)
    return family


def spread(pipes: Sequence[Any], controls: Sequence[str] = ()) -> AbstractFamily:
    """Returns the family of a pipeline that is loaded once for every device. Arguments and errors: `wrap`."""
    replicas = [wrap(pipe, controls) for pipe in pipes]
    return Sharded(replicas) if len(replicas) > 1 else replicas[0]
