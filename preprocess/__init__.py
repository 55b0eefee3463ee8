"""Detect control maps in guides: `preprocess.load("depth")(guide)`.

`preprocess/controls/` is the registry: each of its modules defines `CONTROL`, the control type of the same name.
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
from synccontrol.preprocess.image_input import ImageLike, to_rgb
from synccontrol.preprocess.wide.views import close_ring

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
    """Return the sorted names of all control types."""
    return sorted(_registry())


def detectors(name: str) -> list[str]:
    """Return the names of the detectors of a control type, the default first.

    Raises:
        OptionError: the control type does not exist.
    """
    control = _control(name)
    return sorted(control.detectors, key=lambda detector: detector != control.default)


def options(name: str) -> dict[str, Option]:
    """Return the options of a control type with their defaults, as `load` takes them.

    Raises:
        OptionError: the control type does not exist.
    """
    return {**vars(_control(name).options())}


def option_fields(name: str) -> tuple[Field[Any], ...]:
    """Return the options of a control type as dataclass fields, with help and choices in their metadata.

    Raises:
        OptionError: the control type does not exist.
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
    """Return a function that detects the control map of a guide, an RGB PIL image of the upright guide's size.

    The function takes the same types as `to_rgb`: a PIL image of any mode, an array or a tensor. It raises
    `PictureError` for any other type.

    Args:
        name: a control type, one of `names()`.
        model: the name of a detector, one of `detectors(name)`. If the detector has weights, also a folder with them;
            for depth, normal and segmentation also a hub id. None selects the default detector, which needs no
            download for canny, depth, pose, qr and tile.
        device: the torch device of the detector.
        offline: use only downloaded files, and never access the network.
        loop: guides and control maps are 360-degree rings, whose left and right edges continue each other.
        options: options of the control type: `low` and `high` for canny, `output` for depth, ...

    Raises:
        OptionError: the control type, detector or option is unknown.
        DetectorError: the detector's weights, package or device are not available.
    """
    control = _control(name)
    detect = control.load(name, model, Runtime(device=device, offline=offline, loop=loop), options)
    if loop and not control.closes_rings:
        detect = close_ring(detect)

    def control_map(guide: ImageLike) -> Image.Image:
        upright = to_rgb(guide)
        detected = detect(upright)
        assert detected.size == upright.size and detected.mode == "RGB"
        return detected

    return control_map


def check_detector(name: str, model: str | None) -> None:
    """Raise `OptionError` unless a control type has a detector `model`; the detector is not loaded."""
    control = _control(name)
    control.check(name, model or control.default)


def outside(name: str) -> Colour | None:
    """Return the colour that pads control maps of a type outside the guide; None repeats their border.

    Raises:
        OptionError: the control type does not exist.
    """
    return _control(name).outside


def remarks(name: str, control_map: ImageLike) -> list[str]:
    """Return warnings about a control map that is empty or invalid; an empty list for a valid map.

    Args:
        name: a control type, one of `names()`.
        control_map: a detected or ready-made map, of any type that `to_rgb` takes.

    Raises:
        OptionError: the control type does not exist.
        PictureError: the map is not an image.
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
    names = [module.name for module in pkgutil.iter_modules(controls.__path__)]
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
        module.__spec__ = module.__spec__.loader_state  # restore its own spec


if __name__ == "preprocess":
    sys.meta_path.insert(0, _CheckoutNames())
    sys.modules["preprocess"] = sys.modules["synccontrol.preprocess"]
