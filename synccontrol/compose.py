"""How a picture starts from another one. Flags are made from it, as from the configs."""

import dataclasses
from typing import ClassVar, NamedTuple

from synccontrol.checks import require, require_choice, require_number
from synccontrol.errors import ConfigError
from synccontrol.options import option

CHOSEN = -1.0  # a strength that follows from what is done
REDRAWN, REPAINTED = 0.6, 1.0  # the strength of a whole picture; of what a mask or an extension leaves free
LEFT, RIGHT, BOTH = SIDES = ("left", "right", "both")
DRAWN, KEPT = COLOURS = ("drawn", "kept")


class Margins(NamedTuple):
    """By how much a picture grows, px."""

    left: int
    right: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """How a picture starts from another one. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    strength: float = option(CHOSEN, "how far the picture that is started from is drawn anew, above 0, up to 1")
    colours: str = option(
        DRAWN,
        "colours of larger parts: as they are drawn, or as the picture has them that is started from",
        choices=COLOURS,
    )
    extend: str = option("", "side and pixels by which the picture grows: left 256, right 256, or both 256")
    mask_soft: float = option(0.125, "how wide what is repainted passes into what is kept, in sides of a window")

    def __post_init__(self) -> None:
        if self.strength != CHOSEN:
            require_number("strength", self.strength, 0.0, 1.0)
            require(self.strength > 0, "strength is 0, which leaves the picture as it is; it must be above 0, up to 1")
        require_choice("colours", self.colours, COLOURS)
        require_number("mask soft", self.mask_soft, 0.0, 1.0)
        self.margins  # noqa: B018 it raises where it cannot be read

    @property
    def margins(self) -> Margins:
        """Returns by how much the picture grows; of both sides, each by half."""
        side, _, pixels = self.extend.strip().partition(" ")
        if not side:
            return Margins(0, 0)
        require_choice("side to extend", side, SIDES)
        number = int(pixels) if pixels.isascii() and pixels.strip().isdecimal() else 0
        if number < 1:
            raise ConfigError(f"extend is {self.extend!r}; write a side and pixels, like 'right 256'")
        left = {LEFT: number, RIGHT: 0, BOTH: number // 2}[side]
        return Margins(left, number - left)

    def chosen(self, repaints: bool) -> "ComposeConfig":
        """Returns it with a strength; `repaints` says whether there is a mask or an extension."""
        if self.strength != CHOSEN:
            return self
        return dataclasses.replace(self, strength=REPAINTED if repaints or self.extend else REDRAWN)

    def skipped(self, steps: int) -> int:
        """Returns how many of so many denoising steps are left out, from the first: the rule of diffusers' pipelines.

        Raises:
            ConfigError: that would be all of them.
        """
        left = min(int(steps * self.chosen(False).strength), steps)
        require(
            left > 0,
            f"strength {self.strength:g} leaves none of {steps} steps; use at least {1 / steps:.2g}, or more steps",
        )
        return steps - left
