"""What comes out of a montage: the finished picture, and every step on the way to it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from synccontrol.errors import ConfigError
from synccontrol.io import metadata


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A finished montage."""

    image: Image.Image  # RGB, exactly the size asked for
    latents: Tensor  # (1, c, h, w) clean, padded to whole cells; of a sphere its points, (1, c, 1, p)
    seed: int
    config: dict[str, Any]  # all settings, as JSON values, by the names of the CLI's flags
    notes: tuple[str, ...] = ()  # what the user should know, a line each: a prompt was cut, a scheduler replaced, ...

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes the picture as PNG, with its settings: `--settings` reads them again.

        Args:
            path: ends in .png.
            overwrite: whether a file that is there is replaced.

        Raises:
            OutputError: the file cannot be written, or there is one that is not to be replaced.
            ConfigError: another format than PNG is named.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ConfigError(
                f"pictures are saved as PNG, with their settings; name the file {path.with_suffix('.png')}"
            )
        metadata.save_png(self.image, path, self.config, overwrite)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One finished denoising step."""

    index: int  # from 0
    steps: int  # of how many
    done: float  # share 0..1 of all windows to predict that are; those of a rough picture are few
    x_t: Tensor  # the canvas (1, c, h, w) of the pass after the step, in the solver's coordinates
    result: Result | None  # of the last step
    render: Callable[[], Image.Image] = dataclasses.field(repr=False)  # decodes the clean estimate, at full size

    def preview(self, height: int = 128) -> Image.Image:
        """Returns what the picture would be if it ended here, scaled to a height in px."""
        image = self.result.image if self.result is not None else self.render()
        width = max(1, round(image.width * height / image.height))
        return image.resize((width, height), Image.Resampling.LANCZOS)
