"""Guide in, control map out: `preprocess.load("depth")(guide)`.

`preprocess/controls/` is the registry: every module in it holds a `CONTROL`, the control type of the module's name.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import Field, fields
from functools import cache
from types import ModuleType
from typing import Any

from PIL import Image

from synccontrol.preprocess import controls
from synccontrol.preprocess.control import Colour, ControlType, Detector, Option, Runtime
from synccontrol.preprocess.errors import DetectorError, OptionError, PictureError, PreprocessError, did_you_mean
from synccontrol.preprocess.picture import ImageLike, to_rgb
from synccontrol.preprocess.wide.views import closed

__all__ = [
    "Detector",
    "DetectorError",
    "ImageLike",
    "OptionError",
    "PictureError",
    "PreprocessError",
    "detectors",
    "load",
    "names",
    "option_fields",
    "options",
    "outside",
    "remarks",
    "to_rgb",
]


def names() -> list[str]:
    """Returns the control types that can be loaded, sorted."""
    return sorted(_registry())


def detectors(name: str) -> list[str]:
    """Returns the detectors of the control type `name` that have a name of their own, the default first.

    Raises:
        OptionError: No such control type.
    """
    control = _control(name)
    return sorted(control.detectors, key=lambda detector: detector != control.default)


def options(name: str) -> dict[str, Option]:
    """Returns the options of the control type `name`, as `load` takes them, with their defaults.

    Raises:
        OptionError: No such control type.
    """
    return {**vars(_control(name).options())}


def option_fields(name: str) -> tuple[Field[Any], ...]:
    """Returns the options of the control type `name` as dataclass fields, with help and choices in their metadata.

    Raises:
        OptionError: No such control type.
    """
    return fields(_control(name).options)


def load(
    name: str,
    model: str | None = None,
    *,
    device: str = "cpu",
    offline: bool = False,
    loop: bool = False,
    **options: Option,
) -> Callable[[ImageLike], Image.Image]:
    """Returns a function from a guide to its control map: a picture in, PIL RGB out, exactly the upright guide's size.

    The function takes whatever `to_rgb` takes, a PIL picture of any mode, an array or a tensor, and raises
    `PictureError` for anything else.

    Args:
        name: A control type, one of `names()`.
        model: A detector by name, one of `detectors(name)`; where it has weights, also a folder with them, and for
            depth, normal and segmentation a hub id. None: the default, which needs no download for canny, depth, pose,
            qr and tile.
        device: The torch device that the detector runs on.
        offline: True: never touch the network, use only what has been downloaded before.
        loop: True: guides are rings, whose left and right edges continue each other, and so are the maps.
        options: What the control type offers: `low` and `high` for canny, `output` for depth, ...

    Raises:
        OptionError: An unknown control type, detector or option.
        DetectorError: The detector's weights, package or device cannot be had.
    """
    control = _control(name)
    detect = control.load(name, model, Runtime(device=device, offline=offline, loop=loop), options)
    if loop and not control.closes_rings:
        detect = closed(detect)

    def control_map(guide: ImageLike) -> Image.Image:
        upright = to_rgb(guide)
        found = detect(upright)
        assert found.size == upright.size and found.mode == "RGB"
        return found

    return control_map


def check_detector(name: str, model: str | None) -> None:
    """Raise `OptionError` unless control type `name` has a detector `model`, as `load` takes it; loads nothing."""
    control = _control(name)
    control.check(name, model or control.default)


def outside(name: str) -> Colour | None:
    """Returns what the control maps of a type show where there is no guide: a colour, or None: their border goes on.

    Raises:
        OptionError: No such control type.
    """
    return _control(name).outside


def remarks(name: str, control_map: ImageLike) -> list[str]:
    """Returns a line for what is wrong with a control map: it holds nothing, or cannot be right. None for most.

    Args:
        name: A control type, one of `names()`.
        control_map: A detected or a ready-made map, whatever `to_rgb` takes.

    Raises:
        OptionError: No such control type.
        PictureError: The map is no picture.
    """
    return _control(name).expected.remarks(name, to_rgb(control_map))


def _control(name: str) -> ControlType[Any]:
    registry = _registry()
    if name not in registry:
        known = sorted(registry)
        raise OptionError(f"no control type '{name}'; {did_you_mean(name, known)}use {', '.join(known)}")
    return registry[name]


@cache
def _registry() -> dict[str, ControlType[Any]]:
    names = [found.name for found in pkgutil.iter_modules(controls.__path__)]
    return {name: importlib.import_module(f"{controls.__name__}.{name}").CONTROL for name in names}


class _CheckoutNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import `preprocess.x` of a checkout as the module `synccontrol.preprocess.x`: one object under two names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name.startswith("preprocess.") else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"synccontrol.{spec.name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # its own again


if __name__ == "preprocess":
    sys.meta_path.insert(0, _CheckoutNames())
    sys.modules["preprocess"] = sys.modules["synccontrol.preprocess"]
