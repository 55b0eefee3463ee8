"""How a picture is drawn in passes: rough before it is wide, small before it is large. Flags are made from it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

from synccontrol.checks import require, require_choice, require_number
from synccontrol.compose import COLOURS, DRAWN, KEPT, ComposeConfig
from synccontrol.config import FLAT, SamplingConfig, SyncConfig, WindowConfig
from synccontrol.geometry import Geometry
from synccontrol.options import option
from synccontrol.region import Region

TIMES = (1, 2, 4)
ROWS, UPSCALE = TALL = ("rows", "upscale")
AT_ONCE = 2  # times that a picture is enlarged before it is drawn over

SQUEEZE = 4  # about by how much each rough picture is narrower than the next
ROUGH_STEPS, ROUGH_LEAST = 1 / 2, 6  # of the steps, what a rough picture takes; but so many, where there are

Size = tuple[int, int]  # height, width, px


class Pass(NamedTuple):
    """One drawing of a picture."""

    size: Size
    sampling: SamplingConfig
    sync: SyncConfig
    over: ComposeConfig | None = None  # how it starts from the pass before; None: it is the first
    rough: bool = False  # all of the canvas, squeezed
    anew: bool = False  # sync counts its steps from the first that is drawn, as of a picture that starts from noise

    @property
    def skipped(self) -> int:
        """Returns how many denoising steps, from the first, the pass before stands for."""
        return 0 if self.over is None else self.over.skipped(self.sampling.steps)


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
        return _over(self.upscale_strength, steps, self.upscale_colours)

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


class Drawn(Protocol):
    """What says how a picture is drawn: `Picture`, and the recipe of many."""

    @property
    def sampling(self) -> SamplingConfig: ...
    @property
    def windows(self) -> WindowConfig: ...
    @property
    def sync(self) -> SyncConfig: ...
    @property
    def enlarge(self) -> EnlargeConfig: ...
    @property
    def regions(self) -> Sequence[Region]: ...


def passes(drawn: Drawn, size: Size, geometry: Geometry, starts: bool) -> tuple[Pass, ...]:
    """Returns the passes that a picture is drawn in, one after the other.

    First come those of the scaffold, if there is one: all of the canvas squeezed into one window, and so one scene,
    that is stretched and drawn over until it has its width: the coarse structure of CoFi (arXiv 2606.00837), without
    its alignment. It takes half of the steps: what noise is laid over again needs no detail. Regions are no one scene,
    and have none. Then it is enlarged.

    Args:
        drawn: how.
        size: that is asked for, before it is upscaled.
        geometry: the model's native sizes.
        starts: from another picture, which is the scaffold then.
    """
    steps, scaffold = drawn.sampling.steps, drawn.sync.scaffold
    few = min(steps, max(ROUGH_LEAST, math.ceil(ROUGH_STEPS * steps)))
    first, *larger = drawn.enlarge.sizes(size, geometry, drawn.windows, starts)
    smaller = () if starts or drawn.regions or not scaffold else rough_sizes(first, geometry, drawn.windows)
    grown = [*((one, few, True) for one in smaller), (first, steps, False)]
    found = [
        Pass(one, *_in_steps(drawn, count), _over(scaffold, count) if place else None, rough, anew=place > 0)
        for place, (one, count, rough) in enumerate(grown)
    ]
    return (*found, *(Pass(one, drawn.sampling, drawn.sync, drawn.enlarge.over(steps)) for one in larger))


def _in_steps(drawn: Drawn, steps: int) -> tuple[SamplingConfig, SyncConfig]:
    """Returns settings in so many steps, of which sync acts in the same part."""
    sampling, sync = drawn.sampling, drawn.sync
    acting = {name: math.ceil(getattr(sync, name) * steps / sampling.steps) for name in ("steps", "adain_steps")}
    return dataclasses.replace(sampling, steps=steps), dataclasses.replace(sync, **acting)


def rough_sizes(size: Size, geometry: Geometry, windows: WindowConfig) -> tuple[Size, ...]:
    """Returns the sizes that a canvas is squeezed into, the smallest first: none of one window, or of a sphere."""
    window = geometry.window_px
    wider = [side / own for side, own in zip(size, window, strict=True)]
    if max(wider) <= 1 or windows.projection != FLAT:
        return ()
    count = max(1, round(math.log(max(wider), SQUEEZE)))
    found = []
    for number in range(count):
        height, width = (round(own * times ** (number / count)) for own, times in zip(window, wider, strict=True))
        found.append((height, round(width / geometry.cell) * geometry.cell if windows.loop else width))
    return tuple(found)


def _over(strength: float, steps: int, colours: str = DRAWN) -> ComposeConfig:
    least = (1 + 1e-9) / steps  # or it might be rounded to less than one
    return ComposeConfig(strength=min(max(strength, least), 1.0), colours=colours)
