"""How a picture starts from another one. Flags are made from it, as from the configs."""

import dataclasses
from typing import ClassVar

from synccontrol.checks import require, require_number
from synccontrol.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """How a picture starts from another one. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    strength: float = option(0.6, "how far the picture that is started from is drawn anew, above 0, up to 1")

    def __post_init__(self) -> None:
        require_number("strength", self.strength, 0.0, 1.0)
        require(self.strength > 0, "strength is 0, which leaves the picture as it is; it must be above 0, up to 1")

    def skipped(self, steps: int) -> int:
        """Returns how many of so many denoising steps are left out, from the first: the rule of diffusers' pipelines.

        Raises:
            ConfigError: that would be all of them.
        """
        left = min(int(steps * self.strength), steps)
        require(
            left > 0,
            f"strength {self.strength:g} leaves none of {steps} steps; use at least {1 / steps:.2g}, or more steps",
        )
        return steps - left
