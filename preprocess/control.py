"""What control maps of a type look like, so that one which holds nothing or cannot be right is noticed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from synccontrol.preprocess.errors import OptionError, did_you_mean

FAINT = 16  # of 255: colours that differ by less are one colour
DARK = 32  # of 255: a map with nearly nothing lighter is almost black; so is one of 16 bits that hold metres or mm
NEARLY_ALL = 0.999  # of the pixels
LIGHT = 127  # of 255: half of an inverted map is lighter


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the control maps of a type look like; each text says what ails one that does not, and what would work."""

    blank: str = "it asks for nothing; give a guide with more to see"  # of a map of one colour
    dark: str = ""  # of a map that is almost black throughout; empty: maps may be
    inverted: str = ""  # of a map that is light for the most part; empty: maps may be

    def remarks(self, name: str, control_map: Image.Image) -> list[str]:
        """Returns a line for what is wrong with an RGB control map; none if it can be right. `name` is its type's."""
        grey = control_map.convert("L")
        if self.dark and _level(grey, NEARLY_ALL) < DARK:
            return [f"the {name} map is almost black throughout: {self.dark}"]
        if (np.ptp(np.asarray(control_map), axis=(0, 1)) < FAINT).all():
            return [f"the {name} map is one colour throughout: {self.blank}"]
        if self.inverted and _level(grey, 0.5) > LIGHT:
            return [f"the {name} map looks inverted, dark on light: {self.inverted}"]
        return []


def _level(grey: Image.Image, share: float) -> int:
    """Returns the level, 0..255, that a share of a grey picture's pixels does not exceed."""
    least = share * grey.width * grey.height
    return next(level for level, count in enumerate(accumulate(grey.histogram())) if count >= least)


Detector = Callable[[Image.Image], Image.Image]  # RGB guide in, RGB control map of its size out
Option = float | str | bool
Colour = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where a detector's network runs, and whether it may be downloaded."""

    device: str = "cpu"  # a torch device
    offline: bool = False  # True: never touch the network
    loop: bool = False  # True: guides are rings


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of a control type that has none."""


def option(default: Option, text: str, choices: Collection[str] = ()) -> Any:
    """Returns a field of a control type's options, with what is said of it, and what it can be if that is listed."""
    return field(default=default, metadata={"help": text, "choices": tuple(choices)})


Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class ControlType(Generic[Options]):
    """One way to turn a guide into a control map, by any of several detectors."""

    options: type[Options]  # a dataclass
    detectors: Mapping[str, Callable[[Options, Runtime], Detector]]  # by name
    default: str  # the detector that is used when none is named
    from_id: Callable[[str, Options, Runtime], Detector] | None = None  # from a hub id or a folder
    id_kinds: str = "a hub id (owner/name) or a folder"  # what `from_id` takes, for messages
    closes_rings: bool = False  # its detectors heed `Runtime.loop`; else `ring.closed` closes their maps from outside
    outside: Colour | None = (0, 0, 0)  # what a map shows beyond its guide: a colour, or None: its border goes on
    expected: Expected = field(default_factory=Expected)  # what its maps look like, for remarks on those that do not

    def load(self, control: str, model: str | None, runtime: Runtime, options: Mapping[str, Option]) -> Detector:
        """Returns the detector `model` of this control type.

        Args:
            control: The name of this control type, for messages.
            model: A detector's name, or a hub id or folder where the control type takes them; None: the default.
            runtime: Where it runs, and whether it may be downloaded.
            options: Values for fields of the control type's options.

        Raises:
            OptionError: No such detector or option, or a value out of range.
            DetectorError: Its weights or package cannot be had.
        """
        chosen = self._options(control, options)
        model = model or self.default
        self.check(control, model)
        if model in self.detectors:
            return self.detectors[model](chosen, runtime)
        assert self.from_id is not None
        return self.from_id(model, chosen, runtime)

    def check(self, control: str, model: str) -> None:
        """Raise `OptionError` for a `model` that is no detector of this control type, which is named `control`."""
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
