"""What control maps of a type look like, so that one which holds nothing or cannot be right is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from PIL import Image

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
