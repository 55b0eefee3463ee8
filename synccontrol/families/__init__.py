"""Model families, one module each. The package is the registry: a module that defines `PIPELINES` is a family."""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import Any

from synccontrol.errors import ModelError
from synccontrol.families.base import AbstractFamily
from synccontrol.families.multi_device import MultiDeviceFamily


@cache
def _families() -> dict[str, Any]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {pipeline: module for module in modules for pipeline in vars(module).get("PIPELINES", ())}


def find(pipeline_class: str) -> Any:
    """Return the family module that serves a diffusers pipeline class.

    Raises:
        ModelError: no family serves the class.
    """
    families = _families()
    if pipeline_class not in families:
        raise ModelError(f"no model family serves {pipeline_class}; known pipelines: {', '.join(sorted(families))}")
    return families[pipeline_class]


def family_name(family: Any) -> str:
    """Return the name of a family: the last part of its module's name."""
    primary = family.primary if isinstance(family, MultiDeviceFamily) else family
    module_name: str = getattr(primary, "__name__", type(primary).__module__)
    return module_name.rpartition(".")[2]


def wrap(pipe: Any, controls: Sequence[str] = ()) -> AbstractFamily:
    """Return the family of a loaded diffusers pipeline. Subclasses of a served pipeline class are served too.

    Args:
        pipe: the pipeline.
        controls: the control type of each map. Only union ControlNets need it.

    Raises:
        ModelError: no family serves the pipeline, or its union ControlNet does not support a control type.
        ConfigError: the number of controls differs from the number of ControlNets.
    """
    names = [kind.__name__ for kind in type(pipe).__mro__]
    served = next((name for name in names if name in _families()), names[0])
    family: AbstractFamily = find(served).Family(pipe, controls)
    return family


def wrap_replicas(pipes: Sequence[Any], controls: Sequence[str] = ()) -> AbstractFamily:
    """Return the family of a pipeline that is loaded once on every device. Arguments and errors are those of `wrap`."""
    replicas = [wrap(pipe, controls) for pipe in pipes]
    return MultiDeviceFamily(replicas) if len(replicas) > 1 else replicas[0]
