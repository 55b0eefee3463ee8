"""A model's native sizes."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """A model's native sizes."""

    window: tuple[int, int]  # height, width in cells
    cell: int  # pixels per cell
    channels: int  # of a latent

    @property
    def window_px(self) -> tuple[int, int]:
        """Returns the window's height and width in pixels."""
        return self.window[0] * self.cell, self.window[1] * self.cell
