"""What decides a picture, as data."""

import dataclasses
from typing import Any

from synccontrol.config import SamplingConfig, SyncConfig, WindowConfig, record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture before it is drawn."""

    prompt: str
    negative_prompt: str
    height: int  # px
    width: int  # px
    seed: int
    sampling: SamplingConfig
    windows: WindowConfig
    sync: SyncConfig

    def settings(self) -> dict[str, Any]:
        """Returns all settings as JSON values, by the names of the CLI's flags."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "width": self.width,
            "height": self.height,
            "seed": self.seed,
            **record(self.sampling, self.windows, self.sync),
        }
