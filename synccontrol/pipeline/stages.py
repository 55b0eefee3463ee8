"""The passes that a picture is drawn in."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from synccontrol.canvas.flat import lay_out
from synccontrol.families.base import AbstractFamily, View
from synccontrol.io import resize
from synccontrol.pipeline.denoise import Drawing, Objectives, check_latents, solver_of
from synccontrol.pipeline.inputs import InputImages
from synccontrol.pipeline.output import Result, Step
from synccontrol.spec.image_spec import INIT_IMAGE, MASK, ImageSpec
from synccontrol.spec.region import Region
from synccontrol.spec.settings import (
    FLAT,
    MIDDLE,
    Geometry,
    Img2ImgConfig,
    SamplingConfig,
    Size,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
    drawn_over,
)

SQUEEZE = 4  # about by how much each rough picture is narrower than the next
ROUGH_STEPS, ROUGH_LEAST = 1 / 2, 6  # of the steps, what a rough picture takes; but so many, where there are


class Pass(NamedTuple):
    """One drawing of a picture."""

    size: Size
    sampling: SamplingConfig
    sync: SyncConfig
    over: Img2ImgConfig | None = None  # how it starts from the pass before; None: it is the first
    rough: bool = False  # all of the canvas, squeezed
    anew: bool = False  # sync counts its steps from the first that is drawn, as of a picture that starts from noise

    @property
    def skipped(self) -> int:
        """Returns how many denoising steps, from the first, the pass before stands for."""
        return 0 if self.over is None else self.over.skipped(self.sampling.steps)


class Drawn(Protocol):
    """What says how a picture is drawn: `ImageSpec`, and the recipe of many."""

    @property
    def sampling(self) -> SamplingConfig: ...
    @property
    def windows(self) -> WindowConfig: ...
    @property
    def sync(self) -> SyncConfig: ...
    @property
    def upscale(self) -> UpscaleConfig: ...
    @property
    def regions(self) -> Sequence[Region]: ...


def passes(drawn: Drawn, size: Size, geometry: Geometry, starts: bool) -> tuple[Pass, ...]:
    """Returns the passes that a picture is drawn in, one after the other.

    First come those of the scaffold, if there is one: all of the canvas squeezed into one window, and so one scene,
    that is stretched and drawn over until it has its width: the coarse structure of CoFi (arXiv 2606.00837), without
    its alignment. It takes half of the steps: what noise is laid over again needs no detail. Regions are no one scene,
    and have none. Then it is enlarged.

    Args:
        drawn: how.
        size: that is asked for, before it is upscaled.
        geometry: the model's native sizes.
        starts: from another picture, which is the scaffold then.
    """
    steps, scaffold = drawn.sampling.steps, drawn.sync.draft_strength
    few = min(steps, max(ROUGH_LEAST, math.ceil(ROUGH_STEPS * steps)))
    first, *larger = drawn.upscale.sizes(size, geometry, drawn.windows, starts)
    smaller = () if starts or drawn.regions or not scaffold else rough_sizes(first, geometry, drawn.windows)
    grown = [*((one, few, True) for one in smaller), (first, steps, False)]
    found = [
        Pass(one, *_in_steps(drawn, count), drawn_over(scaffold, count) if place else None, rough, anew=place > 0)
        for place, (one, count, rough) in enumerate(grown)
    ]
    return (*found, *(Pass(one, drawn.sampling, drawn.sync, drawn.upscale.over(steps)) for one in larger))


def _in_steps(drawn: Drawn, steps: int) -> tuple[SamplingConfig, SyncConfig]:
    """Returns settings in so many steps, of which sync acts in the same part."""
    sampling, sync = drawn.sampling, drawn.sync
    acting = {name: math.ceil(getattr(sync, name) * steps / sampling.steps) for name in ("steps", "adain_steps")}
    return sampling.replace(steps=steps), sync.replace(**acting)


def rough_sizes(size: Size, geometry: Geometry, windows: WindowConfig) -> tuple[Size, ...]:
    """Returns the sizes that a canvas is squeezed into, the smallest first: none of one window, or of a sphere."""
    window = geometry.window_px
    wider = [side / own for side, own in zip(size, window, strict=True)]
    if max(wider) <= 1 or windows.projection != FLAT:
        return ()
    count = max(1, round(math.log(max(wider), SQUEEZE)))
    found = []
    for number in range(count):
        height, width = (round(own * times ** (number / count)) for own, times in zip(window, wider, strict=True))
        found.append((height, round(width / geometry.cell) * geometry.cell if windows.loop else width))
    return tuple(found)


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
        picture: ImageSpec,
        shown: InputImages,
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
        self._fitted = [resize.fit(map_, *own.size, "control map", windows.closed) for map_ in fitted]
        counts = [self._count(one) for one in reversed(self._passes)]  # raises before anything is denoised in vain
        self._counts = counts[::-1]
        self._first = self._drawing(0, self._sized(self._passes[0]), shown)

    def steps(self) -> Iterator[Step]:
        """Yields the denoising steps of all passes; the last one holds the result."""
        drawing, done, counts = self._first, 0, self._counts
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
        """Return how many steps a stage takes; Heun and KDPM2 count two for each step of the settings."""
        steps, starts = one.sampling.steps, one.over is None and INIT_IMAGE in self._shown.others
        skipped = self._picture.img2img.skipped(steps) if starts else one.skipped
        return len(solver_of(self._family, one.sampling, torch.Generator(), skipped).levels)

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
        picture = dataclasses.replace(self._sized(one), img2img=one.over)
        others = {role: shown for role, shown in self._shown.others.items() if role != MASK}
        others[INIT_IMAGE] = self._stretched(drawn, picture)
        return self._drawing(number, picture, InputImages(maps=self._shown.maps, others=others))

    def _stretched(self, shown: Image.Image, picture: ImageSpec) -> Image.Image:
        """Returns what is shown as large as a picture."""
        height, width, closed = picture.height, picture.width, picture.windows.closed
        return resize.plan(shown, height, width, "picture", resize.STRETCH, closed).show(shown)

    def _sized(self, one: Pass) -> ImageSpec:
        """Returns the picture at the size of a pass and in its steps, its regions where they were."""
        picture, (height, width) = dataclasses.replace(self._picture, sampling=one.sampling, sync=one.sync), one.size
        if (height, width) == (picture.height, picture.width):
            return picture
        regions = (region.relative(picture.height, picture.width) for region in picture.regions)
        sources = tuple(source for source in picture.sources if source.role not in (INIT_IMAGE, MASK))
        return dataclasses.replace(
            picture, height=height, width=width, regions=tuple(regions), sources=sources, img2img=Img2ImgConfig()
        )

    def _drawing(self, number: int, picture: ImageSpec, shown: InputImages) -> Drawing:
        """Returns a pass. The windows of another canvas than the one that is asked for are others."""
        own, sync = number == self._own, picture.sync
        if not own and isinstance(sync.anchor, int):
            picture = dataclasses.replace(picture, sync=sync.replace(anchor=MIDDLE))
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
