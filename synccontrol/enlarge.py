"""How a finished picture is enlarged: drawn small first, and then larger. Flags are made from it."""

import dataclasses
from typing import ClassVar

from synccontrol.checks import require, require_choice, require_number
from synccontrol.compose import COLOURS, KEPT, ComposeConfig
from synccontrol.config import FLAT, WindowConfig
from synccontrol.geometry import Geometry
from synccontrol.options import option

TIMES = (1, 2, 4)
ROWS, UPSCALE = TALL = ("rows", "upscale")
AT_ONCE = 2  # times that a picture is enlarged before it is drawn over

Size = tuple[int, int]  # height, width, px


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnlargeConfig:
    """How a finished picture is enlarged. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    upscale: int = option(1, "times that the finished picture is enlarged and drawn over: 1, 2 or 4")
    upscale_strength: float = option(0.3, "how far it is drawn anew then, above 0, up to 1; one step at least")
    upscale_colours: str = option(
        KEPT, "colours of larger parts then: as they are drawn, or as the picture had them", choices=COLOURS
    )
    tall: str = option(
        ROWS,
        "how a landscape higher than a window is drawn: in rows of windows, or as one row that is upscaled",
        choices=TALL,
    )

    def __post_init__(self) -> None:
        require(self.upscale in TIMES, f"upscale is {self.upscale!r}; it must be 1, 2 or 4")
        require_number("upscale strength", self.upscale_strength, 0.0, 1.0)
        require(self.upscale_strength > 0, "upscale strength is 0, which would only enlarge; it must be above 0")
        require_choice("upscale colours", self.upscale_colours, COLOURS)
        require_choice("tall", self.tall, TALL)

    def over(self, steps: int) -> ComposeConfig:
        """Returns how a pass starts from the enlarged picture: of so many steps one is drawn at least."""
        least = (1 + 1e-9) / steps  # or it might be rounded to less than one
        return ComposeConfig(strength=min(max(self.upscale_strength, least), 1.0), colours=self.upscale_colours)

    def one_row(self, size: Size, geometry: Geometry, windows: WindowConfig) -> Size | None:
        """Returns the size at which a landscape that is higher than a window is drawn in one row; None: as it is."""
        (height, width), (window_h, window_w) = size, geometry.window_px
        small = round(width * window_h / height)
        if windows.loop:
            small = round(small / geometry.cell) * geometry.cell
        if self.tall == ROWS or windows.projection != FLAT or not window_h < height < width or small < window_w:
            return None
        return window_h, small

    def sizes(self, size: Size, geometry: Geometry, windows: WindowConfig, starts: bool) -> tuple[Size, ...]:
        """Returns the sizes that a picture is drawn at, one after the other; the last is that of what comes out.

        Args:
            size: that is asked for, before it is upscaled.
            geometry: the model's native sizes.
            windows: how windows lie.
            starts: from another picture, which says what is where, so that rows of windows need no other.
        """
        height, width = size
        row = None if starts else self.one_row(size, geometry, windows)
        found, last = [row or size], (height * self.upscale, width * self.upscale)
        while found[-1] != last:
            h, w = (AT_ONCE * side for side in found[-1])
            found.append((h, w) if h < last[0] else last)
        return tuple(found)
