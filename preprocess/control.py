"""Control types: their options and detectors, and checks for empty or invalid control maps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from synccontrol.preprocess.errors import OptionError, did_you_mean

FAINT = 16  # of 255: a smaller range of colours counts as one colour
DARK = 32  # of 255: a map without lighter pixels is almost black, such as 16-bit depth in mm
NEARLY_ALL = 0.999  # of the pixels
LIGHT = 127  # of 255: the median of an inverted map is lighter


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Properties of valid control maps of a type; each text is the warning for a map without the property."""

    blank: str = "it asks for nothing; give a guide with more to see"  # for a map of one colour
    dark: str = ""  # for a map that is almost black; empty: no warning
    inverted: str = ""  # for a map that is mostly light; empty: no warning

    def remarks(self, name: str, control_map: Image.Image) -> list[str]:
        """Return warnings about an RGB control map of the type `name`; an empty list for a valid map."""
        grey = control_map.convert("L")
        if self.dark and _level(grey, NEARLY_ALL) < DARK:
            return [f"the {name} map is almost black throughout: {self.dark}"]
        if (np.ptp(np.asarray(control_map), axis=(0, 1)) < FAINT).all():
            return [f"the {name} map is one colour throughout: {self.blank}"]
        if self.inverted and _level(grey, 0.5) > LIGHT:
            return [f"the {name} map looks inverted, dark on light: {self.inverted}"]
        return []


def _level(grey: Image.Image, share: float) -> int:
    """Return the grey level, 0..255, that the given share of the pixels does not exceed."""
    count_needed = share * grey.width * grey.height
    return next(level for level, count in enumerate(accumulate(grey.histogram())) if count >= count_needed)


Detector = Callable[[Image.Image], Image.Image]  # RGB guide in, RGB control map of its size out
Option = float | str | bool
Colour = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The device of a detector, and whether it may download its weights."""

    device: str = "cpu"  # a torch device
    offline: bool = False  # never access the network
    loop: bool = False  # guides are 360-degree rings


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of a control type without options."""


def option(default: Option, text: str, choices: Collection[str] = ()) -> Any:
    """Return a dataclass field for an option, with its help text and its valid values."""
    return field(default=default, metadata={"help": text, "choices": tuple(choices)})


Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class ControlType(Generic[Options]):
    """A type of control map, and the detectors that produce it."""

    options: type[Options]  # a dataclass
    detectors: Mapping[str, Callable[[Options, Runtime], Detector]]  # by name
    default: str  # name of the default detector
    from_id: Callable[[str, Options, Runtime], Detector] | None = None  # loads a detector from a hub id or a folder
    id_kinds: str = "a hub id (owner/name) or a folder"  # what `from_id` takes, for messages
    closes_rings: bool = False  # its detectors handle `Runtime.loop`; otherwise `views.close_ring` closes their maps
    outside: Colour | None = (0, 0, 0)  # the padding of a map outside its guide; None repeats its border
    expected: Expected = field(default_factory=Expected)  # properties of valid maps

    def load(self, control: str, model: str | None, runtime: Runtime, options: Mapping[str, Option]) -> Detector:
        """Load a detector of this control type.

        Args:
            control: the name of this control type, for messages.
            model: the name of a detector, or a hub id or folder if the control type supports them; None: the default.
            runtime: its device, and whether it may download weights.
            options: values for fields of the control type's options.

        Raises:
            OptionError: the detector or an option does not exist, or a value is out of range.
            DetectorError: its weights or package are not available.
        """
        values = self._options(control, options)
        model = model or self.default
        self.check(control, model)
        if model in self.detectors:
            return self.detectors[model](values, runtime)
        assert self.from_id is not None
        return self.from_id(model, values, runtime)

    def check(self, control: str, model: str) -> None:
        """Raise `OptionError` if `model` is not a detector of this control type, called `control` in messages."""
        if model in self.detectors or (self.from_id is not None and ("/" in model or Path(model).is_dir())):
            return
        also = "" if self.from_id is None else f", {self.id_kinds}"
        hint = f"{did_you_mean(model, self.detectors)}use {', '.join(self.detectors)}{also}"
        raise OptionError(f"{control} has no detector '{model}'; {hint}")

    def _options(self, control: str, options: Mapping[str, Option]) -> Options:
        known = [option.name for option in fields(self.options)]  # type: ignore[arg-type]
        for name in options:
            if name not in known:
                raise OptionError(f"{control} has no option '{name}'; it has {', '.join(known) or 'none'}")
        build: Callable[..., Options] = self.options
        return build(**options)
