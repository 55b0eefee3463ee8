"""Repainting: where a picture is kept, the clean estimate is the picture.

Stock pipelines lay the kept part over the canvas after every step, under the same noise. To say that its estimate is
the picture comes to the same for every solver that draws no noise, and asks nothing of those that keep a history.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synccontrol.canvas.base import AbstractLayout, Merger
from synccontrol.families.base import AbstractFamily
from synccontrol.io import images, masks
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import Level, prediction_for, x0_hat
from synccontrol.spec.image_spec import ImageSpec
from synccontrol.spec.settings import KEPT


class Repaint:
    """The prediction of windows of which a part is kept. It is a `Predict`; what is kept wholly asks no network.

    Args:
        predict: of the windows.
        known: clean latents of what is there.
        free: 1 where cells are drawn anew, 0 where they are kept.
        kind: what is predicted, of `levels.KINDS`.
    """

    def __init__(
        self, predict: Predict, known: Float[Tensor, "n c h w"], free: Float[Tensor, "n 1 h w"], kind: str
    ) -> None:
        self._predict = predict
        self._known = known
        self._free = free
        self._kind = kind

    def __call__(self, z: Float[Tensor, "k c h w"], level: Level, windows: Sequence[int]) -> Float[Tensor, "k c h w"]:
        indices = list(windows)
        x0, free = self._known[indices], self._free[indices]
        rows = [row for row in range(len(indices)) if bool(free[row].any())]
        if rows:
            found = self._predict(z[rows], level, [indices[row] for row in rows])
            drawn = torch.lerp(x0[rows], x0_hat(z[rows], found, level, self._kind), free[rows])
            x0 = x0.index_copy(0, torch.tensor(rows, device=z.device), drawn)
        return prediction_for(z, x0, level, self._kind)


NEW = 0.5  # the least share of what is new in a pixel that networks made for repainting draw, as in diffusers


class Kept:
    """A picture that is started from.

    Args:
        family: the model.
        layout: the canvas.
        start: the picture, as large as the one that is drawn.
        new: how much of each of its pixels is drawn anew; None: all, as far as noise is laid over it.
        picture: what is drawn.
    """

    def __init__(
        self,
        family: AbstractFamily,
        layout: AbstractLayout,
        start: Image.Image,
        new: masks.Alpha | None,
        picture: ImageSpec,
    ) -> None:
        self._family = family
        self._layout = layout
        self._start = start
        self._new = new
        self._colours = picture.img2img.color_match == KEPT
        self._closed = picture.windows.closed
        self._free: Tensor | None = None  # 1 where points of the canvas are drawn anew, else 0: (1, 1, *shape)
        self._canvas: Tensor | None = None
        if new is not None:
            cells = torch.from_numpy(masks.latent_mask(new, family.geometry.cell, (layout.height, layout.width)))
            windows = layout.look(cells[None, None], 1, range(len(layout)))
            self._free = (Merger(layout, "uniform", windows)(windows) > 0).to(family.canvas_dtype)

    @torch.no_grad()
    def canvas(self) -> Tensor:
        """Returns its clean canvas, (1, c, *shape); call it inside a session.

        It is encoded window by window, so that memory does not grow with it.
        """
        if self._canvas is None:
            family, layout = self._family, self._layout
            pixels, where = images.to_uint8(self._start), (family.device, family.canvas_dtype)
            seen = (layout.look(pixels, family.geometry.cell, [window]) for window in range(len(layout)))
            windows = torch.cat([family.encode(window.to(*where) * 2 - 1) for window in seen])
            self._canvas = Merger(layout, "ramp", windows)(windows)
        return self._canvas

    @torch.no_grad()
    def beside(self) -> list[Tensor]:
        """Returns what networks made for repainting see of each window beside its latents; none: all is drawn anew.

        Call it inside a session. What is more new than old counts as new.
        """
        family, found = self._family, list[Tensor]()
        if self._new is None or not family.inpaints:
            return found
        shown = self._shown()
        for window in range(len(self._layout)):
            seen = self._look(shown, [window])
            picture, new = (one.to(device=family.device, dtype=family.canvas_dtype) for one in seen)
            found.append(family.beside(picture * 2 - 1, new))
        return found

    def map(self, hole: float, windows: Sequence[int]) -> Tensor:
        """Returns what windows see of the control map for inpainting, (k, 3, H, W): the picture, in 0..1.

        Args:
            hole: what it shows where all is drawn anew, as `AbstractFamily.hole`.
            windows: their indices.
        """
        picture, new = self._look(self._shown(), windows)
        return picture.where(new == 0, torch.full_like(picture, hole))

    def _shown(self) -> Tensor:
        """Returns the picture, and how much of it is new, (1, 4, height, width) in 0..1."""
        picture = images.to_tensor(self._start)
        new = torch.zeros_like(picture[:, :1]) if self._new is None else torch.from_numpy(self._new)[None, None]
        return torch.cat([picture, new.to(picture)], dim=1)

    def _look(self, shown: Tensor, windows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns what windows see of the picture (k, 3, H, W) in 0..1, and where it is new (k, 1, H, W), 1 or 0."""
        seen = self._layout.look(shown, self._family.geometry.cell, windows)
        return seen[:, :3], (seen[:, 3:] >= NEW).to(seen)

    def start(self, skipped: int) -> Tensor | None:
        """Returns the clean canvas that noise is laid over, if so many steps are left out; None: noise is all there is.

        Networks made for repainting see what is kept, and are used to noise alone.
        """
        alone = self._new is not None and self._family.inpaints and not skipped
        return None if alone else self.canvas()

    def within(self, predict: Predict, kind: str) -> Predict:
        """Returns the prediction of windows whose kept part stays; `kind` is what is predicted."""
        if self._free is None:
            return predict
        canvas = self.canvas()
        free = self._layout.crop(self._free.to(canvas))
        if self._family.inpaints:  # its networks keep what is kept: all of a window is theirs, or nothing
            free = free.amax(dim=(1, 2, 3), keepdim=True).expand_as(free)
        return Repaint(predict, self._layout.crop(canvas), free, kind)

    def latents(self, x0: Tensor) -> Tensor:
        """Returns a clean canvas with the kept part in its place."""
        return x0 if self._free is None else self.canvas().lerp(x0, self._free.to(x0))

    def picture(self, drawn: Image.Image) -> Image.Image:
        """Returns what was drawn in its place in the picture; of what is kept not one pixel changes."""
        if self._colours:
            drawn = masks.match_colors(drawn, self._start, min(self._family.geometry.window_px), self._closed)
        return drawn if self._new is None else masks.composite(drawn, self._start, self._new)
