"""How much visitors of the page may ask for, so that nobody takes the machine from the others."""

import dataclasses
from typing import ClassVar

from synccontrol.checks import require_whole
from synccontrol.errors import ConfigError, InputError, SyncControlError
from synccontrol.options import flags, option

MEGA = 1_000_000


class BusyError(SyncControlError):
    """So much is waiting already that nothing more is taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The most of everything. Raises `ConfigError` for what is no whole number above 0."""

    prefix: ClassVar[str] = "max-"  # of flags

    upload: int = option(32, "megabytes of one file that is handed over")
    pixels: int = option(60, "megapixels of a picture that is handed over")
    canvas: int = option(8, "megapixels of a picture that is drawn")
    steps: int = option(100, "denoising steps")
    variations: int = option(4, "pictures at one press of Draw")
    queue: int = option(20, "pictures that wait or are drawn, of all visitors together")
    each: int = option(4, "pictures that wait or are drawn, of one visitor")
    visitors: int = option(100, "pages that are open at the same time")
    history: int = option(40, "pictures of a visitor that are kept; the oldest goes first")

    def __post_init__(self) -> None:
        for flag, field in flags(self).items():
            require_whole(flag, getattr(self, field.name), 1)

    def check_bytes(self, count: int) -> None:
        """Raises `InputError` for a file of too many bytes."""
        if count > self.upload * MEGA:
            raise InputError(f"the file has {count / MEGA:.0f} MB, and {self.upload} MB are the most; make it smaller")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises `InputError` for a picture of too many pixels, which is not to be decoded then."""
        if width * height > self.pixels * MEGA:
            raise InputError(
                f"the picture has {width}x{height} pixels, and {self.pixels} megapixels are the most; scale it down"
            )

    def check_drawn(self, width: int, height: int, steps: int) -> None:
        """Raises `ConfigError` for a picture that would take too long."""
        if width * height > self.canvas * MEGA:
            raise ConfigError(f"{width}x{height} is more than the {self.canvas} megapixels that this page draws")
        if steps > self.steps:
            raise ConfigError(f"{steps} steps are more than the {self.steps} that this page takes")
