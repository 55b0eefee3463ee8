"""A picture drawn once, or small first and then larger: every pass starts from what the one before has drawn."""

import dataclasses
from collections.abc import Iterator, Sequence

from PIL import Image
from torch import Tensor

from synccontrol.arguments import Pictures
from synccontrol.canvas.windows import lay_out
from synccontrol.compose import ComposeConfig
from synccontrol.config import MIDDLE
from synccontrol.drawing import Drawing, Objectives
from synccontrol.families.base import AbstractFamily, View
from synccontrol.files import fitting
from synccontrol.picture import INIT_IMAGE, MASK, Picture
from synccontrol.result import Result, Step


class Passes:
    """Draws a picture, in as many passes as its size takes.

    Args:
        family: the model.
        picture: what to draw.
        shown: the pictures that it is drawn from.
        view: what its windows have in common.
        latents: unit-variance noise that the first pass starts from, instead of the seed's.
        objective: loads the objective of sync.
        notes: what the user should know of the model.
    """

    def __init__(
        self,
        family: AbstractFamily,
        picture: Picture,
        shown: Pictures,
        view: View,
        latents: Tensor | None,
        objective: Objectives,
        notes: Sequence[str] = (),
    ) -> None:
        self._family, self._picture, self._shown, self._view = family, picture, shown, view
        self._objective, self._notes = objective, list(notes)
        size, geometry, windows = (picture.height, picture.width), family.geometry, picture.windows
        lay_out(*size, geometry, windows)  # raises where that cannot be drawn
        self._sizes = picture.enlarge.sizes(size, geometry, windows, INIT_IMAGE in shown.others)
        if self._sizes[0] != size:
            height, width = self._sizes[0]
            self._notes.append(
                f"{picture.width}x{picture.height} is higher than a window: {width}x{height} is drawn first and then "
                "upscaled, so that the scene is not stacked (tall rows draws rows of windows at once)"
            )
        self._first = self._drawing(self._sized(*self._sizes[0]), shown, latents)

    def steps(self) -> Iterator[Step]:
        """Yields the denoising steps of all passes; the last one holds the result."""
        drawing, done, counts = self._first, 0, self._counts()
        for number, count in enumerate(counts):
            result = None
            for step in drawing.steps():
                result, last = step.result, number == len(counts) - 1
                final = self._final(result) if last and result is not None else None
                yield dataclasses.replace(
                    step, index=done + step.index, steps=step.steps + sum(counts) - count, result=final
                )
            if number + 1 < len(counts):
                assert result is not None
                done += count
                self._notes += [note for note in result.notes if note not in self._notes]
                drawing = self._over(result.image, *self._sizes[number + 1])

    def _counts(self) -> list[int]:
        """Returns how many steps each pass takes, of a solver that looks once at a step."""
        steps = self._picture.sampling.steps
        started = INIT_IMAGE in self._shown.others
        first = steps - self._picture.compose.skipped(steps) if started else steps
        over = steps - self._picture.enlarge.over(steps).skipped(steps)
        return [first, *[over] * (len(self._sizes) - 1)]

    def _over(self, drawn: Image.Image, height: int, width: int) -> Drawing:
        """Returns the pass that draws over an enlarged picture, under the controls and prompts of the first."""
        picture = self._sized(height, width)
        sync = (
            picture.sync
            if not isinstance(picture.sync.anchor, int)
            else dataclasses.replace(picture.sync, anchor=MIDDLE)
        )
        picture = dataclasses.replace(picture, compose=picture.enlarge.over(picture.sampling.steps), sync=sync)
        others = {role: shown for role, shown in self._shown.others.items() if role != MASK}
        large = fitting.fit(drawn, height, width, "picture", picture.windows.closed)
        return self._drawing(picture, Pictures(maps=self._shown.maps, others={**others, INIT_IMAGE: large}), None)

    def _sized(self, height: int, width: int) -> Picture:
        """Returns the picture at another size, its regions where they were."""
        picture = self._picture
        if (height, width) == (picture.height, picture.width):
            return picture
        regions = (region.relative(picture.height, picture.width) for region in picture.regions)
        sources = tuple(source for source in picture.sources if source.role not in (INIT_IMAGE, MASK))
        return dataclasses.replace(
            picture, height=height, width=width, regions=tuple(regions), sources=sources, compose=ComposeConfig()
        )

    def _drawing(self, picture: Picture, shown: Pictures, latents: Tensor | None) -> Drawing:
        geometry = self._family.geometry
        layout = lay_out(picture.height, picture.width, geometry, picture.windows)
        given = shown.on_canvas(self._view, picture, latents, min(geometry.window_px))
        return Drawing(self._family, picture, layout, given, self._objective, self._notes)

    def _final(self, result: Result) -> Result:
        """Returns the result of the last pass with the settings of the whole."""
        return dataclasses.replace(result, config={**result.config, **self._picture.settings()})
