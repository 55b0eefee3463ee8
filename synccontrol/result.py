"""What comes out of a montage: the finished picture, and every step on the way to it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A finished montage."""

    image: Image.Image  # RGB, exactly the size asked for
    latents: Tensor  # (1, c, h, w) clean, padded to whole cells; of a sphere its points, (1, c, 1, p)
    seed: int
    config: dict[str, Any]  # all settings, as JSON values, by the names of the CLI's flags
    notes: tuple[str, ...] = ()  # what the user should know, a line each: a prompt was cut, a scheduler replaced, ...

    def save(self, path: str | Path) -> None:
        """Writes the picture as PNG, with its settings.

        Raises:
            OutputError: the file cannot be written, or exists.
        """
        from synccontrol.files.metadata import save_png

        save_png(self.image, Path(path), self.config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One finished denoising step."""

    index: int  # from 0
    steps: int  # of how many
    x_t: Tensor  # the canvas (1, c, h, w) after the step, in the solver's coordinates
    result: Result | None  # of the last step
    render: Callable[[], Image.Image] = dataclasses.field(repr=False)  # decodes the clean estimate, at full size

    def preview(self, height: int = 128) -> Image.Image:
        """Returns what the picture would be if it ended here, scaled to a height in px."""
        image = self.result.image if self.result is not None else self.render()
        width = max(1, round(image.width * height / image.height))
        return image.resize((width, height), Image.Resampling.LANCZOS)
