"""A picture drawn once, or in several passes: every pass starts from what the one before has drawn."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from synccontrol.arguments import Pictures
from synccontrol.canvas.windows import lay_out
from synccontrol.compose import ComposeConfig
from synccontrol.config import MIDDLE
from synccontrol.drawing import Drawing, Objectives, check_latents, solver_of
from synccontrol.enlarge import Pass, passes
from synccontrol.families.base import AbstractFamily, View
from synccontrol.files import fitting
from synccontrol.picture import INIT_IMAGE, MASK, Picture
from synccontrol.result import Result, Step


class Passes:
    """Draws a picture, in as many passes as it takes.

    Args:
        family: the model.
        picture: what to draw.
        shown: the pictures that it is drawn from.
        view: what its windows have in common.
        latents: unit-variance noise of the canvas that is asked for, instead of the seed's.
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
        self._objective, self._notes, self._latents = objective, list(notes), latents
        size, geometry, windows = (picture.height, picture.width), family.geometry, picture.windows
        lay_out(*size, geometry, windows)  # raises where that cannot be drawn
        self._passes = passes(picture, size, geometry, INIT_IMAGE in shown.others)
        self._own = next(place for place, one in enumerate(self._passes) if not one.rough)
        own = self._passes[self._own]
        if own.size != size:
            height, width = own.size
            self._notes.append(
                f"{picture.width}x{picture.height} is higher than a window: {width}x{height} is drawn first and then "
                "upscaled, so that the scene is not stacked (tall rows draws rows of windows at once)"
            )
        self._layouts = [lay_out(*one.size, geometry, windows) for one in self._passes]
        if latents is not None:
            check_latents(latents, family, self._layouts[self._own])
        fitted = shown.maps if self._own else ()  # to be squeezed; they must have the aspect of the canvas
        self._fitted = [fitting.fit(map_, *own.size, "control map", windows.closed) for map_ in fitted]
        if self._own:
            solver_of(family, picture.sampling, torch.Generator())  # raises, or a rough picture were drawn in vain
        self._first = self._drawing(0, self._sized(self._passes[0]), shown)

    def steps(self) -> Iterator[Step]:
        """Yields the denoising steps of all passes; the last one holds the result."""
        drawing, done, counts = self._first, 0, [self._count(one) for one in self._passes]
        work = [count * len(layout) for count, layout in zip(counts, self._layouts, strict=True)]
        for number, count in enumerate(counts):
            result = None
            for step in drawing.steps():
                result, last = step.result, number == len(counts) - 1
                counted = dataclasses.replace(
                    step,
                    index=done + step.index,
                    steps=step.steps + sum(counts) - count,
                    done=(sum(work[:number]) + step.done * work[number]) / sum(work),
                    result=self._final(result) if last and result is not None else None,
                )
                yield self._shaped(counted, self._passes[number].rough)
            if number + 1 < len(counts):
                assert result is not None
                done += count
                self._notes += [note for note in result.notes if note not in self._notes]
                drawing = self._over(result.image, number + 1)

    def _count(self, one: Pass) -> int:
        """Returns how many steps a pass takes, of a solver that looks once at a step."""
        steps, starts = one.sampling.steps, one.over is None and INIT_IMAGE in self._shown.others
        return steps - (self._picture.compose.skipped(steps) if starts else one.skipped)

    def _shaped(self, step: Step, rough: bool) -> Step:
        """Returns a step whose rough picture is shown stretched."""
        if not rough:
            return step
        height, width = self._passes[self._own].size
        return dataclasses.replace(step, render=lambda: step.render().resize((width, height)))

    def _over(self, drawn: Image.Image, number: int) -> Drawing:
        """Returns the pass that draws over what the one before has drawn, under the same controls and prompts."""
        one = self._passes[number]
        assert one.over is not None
        picture = dataclasses.replace(self._sized(one), compose=one.over)
        others = {role: shown for role, shown in self._shown.others.items() if role != MASK}
        others[INIT_IMAGE] = self._stretched(drawn, picture)
        return self._drawing(number, picture, Pictures(maps=self._shown.maps, others=others))

    def _stretched(self, shown: Image.Image, picture: Picture) -> Image.Image:
        """Returns what is shown as large as a picture."""
        height, width, closed = picture.height, picture.width, picture.windows.closed
        return fitting.plan(shown, height, width, "picture", fitting.STRETCH, closed).show(shown)

    def _sized(self, one: Pass) -> Picture:
        """Returns the picture at the size of a pass and in its steps, its regions where they were."""
        picture, (height, width) = dataclasses.replace(self._picture, sampling=one.sampling, sync=one.sync), one.size
        if (height, width) == (picture.height, picture.width):
            return picture
        regions = (region.relative(picture.height, picture.width) for region in picture.regions)
        sources = tuple(source for source in picture.sources if source.role not in (INIT_IMAGE, MASK))
        return dataclasses.replace(
            picture, height=height, width=width, regions=tuple(regions), sources=sources, compose=ComposeConfig()
        )

    def _drawing(self, number: int, picture: Picture, shown: Pictures) -> Drawing:
        """Returns a pass. The windows of another canvas than the one that is asked for are others."""
        own, sync = number == self._own, picture.sync
        if not own and isinstance(sync.anchor, int):
            picture = dataclasses.replace(picture, sync=dataclasses.replace(sync, anchor=MIDDLE))
        if self._passes[number].rough:
            maps = [self._stretched(map_, picture) for map_ in self._fitted]
            shown = dataclasses.replace(shown, maps=maps)
        geometry, latents = self._family.geometry, self._latents if own else None
        given = shown.on_canvas(self._view, picture, latents, min(geometry.window_px))
        given = dataclasses.replace(given, anew=self._passes[number].anew)
        return Drawing(self._family, picture, self._layouts[number], given, self._objective, self._notes)

    def _final(self, result: Result) -> Result:
        """Returns the result of the last pass with the settings of the whole."""
        return dataclasses.replace(result, config={**result.config, **self._picture.settings()})
