"""`Result` and `Step`: what a montage returns and yields."""

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

    image: Image.Image  # RGB, exactly of the requested size
    latents: (
        Tensor  # (1, c, h, w) clean, padded to whole cells; of an equirectangular panorama its points, (1, c, 1, p)
    )
    seed: int
    config: dict[str, Any]  # all settings as JSON values, by key
    notes: tuple[str, ...] = ()  # a line each: a prompt was cut, a scheduler replaced, ...

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the image as PNG with its settings, which `--settings` reads again.

        Args:
            path: ends in .png.
            overwrite: whether an existing file is replaced.

        Raises:
            OutputError: the file cannot be written, or exists and must not be replaced.
            ConfigError: the format is not PNG.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ConfigError(f"images are saved as PNG with their settings; name the file {path.with_suffix('.png')}")
        metadata.save_png(self.image, path, self.config, overwrite)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One finished denoising step."""

    index: int  # from 0
    steps: int  # of all stages
    done: float  # share of the work that is done, 0..1, by predicted windows
    x_t: Tensor  # the stage's canvas (1, c, h, w) after the step, in the scheduler's coordinates
    result: Result | None  # of the image, in its last step; else None
    render: Callable[[], Image.Image] = dataclasses.field(repr=False)  # decodes the clean estimate, at full size

    def preview(self, height: int = 128) -> Image.Image:
        """Return the clean estimate of this step as an image, scaled to `height` px."""
        image = self.result.image if self.result is not None else self.render()
        width = max(1, round(image.width * height / image.height))
        return image.resize((width, height), Image.Resampling.LANCZOS)
