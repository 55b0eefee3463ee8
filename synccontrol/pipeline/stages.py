"""The stages of an image: a low-resolution draft, the image itself, and upscaling."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from synccontrol.canvas.flat import lay_out
from synccontrol.families.base import AbstractFamily, WindowCondition
from synccontrol.io import resize
from synccontrol.pipeline.denoise import LoadObjective, StageRun, check_latents, solver_of
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
    upscale_img2img,
)

SQUEEZE = 4  # each draft is about this many times narrower than the next one
DRAFT_STEPS = 1 / 2  # share of the steps that a draft takes,
MIN_DRAFT_STEPS = 6  # and its least number, unless the image has fewer


class Stage(NamedTuple):
    """One denoising run of an image."""

    size: Size
    sampling: SamplingConfig
    sync: SyncConfig
    img2img: Img2ImgConfig | None = None  # how it starts from the stage before; None: it is the first
    is_draft: bool = False  # the whole canvas, squeezed
    restarts_sync: bool = False  # sync counts from the first step that is taken, as in an image that starts from noise

    @property
    def skipped(self) -> int:
        """Return the number of denoising steps that the stage before replaces."""
        return 0 if self.img2img is None else self.img2img.skipped(self.sampling.steps)


class StageSettings(Protocol):
    """The settings that decide the stages: those of `ImageSpec` and of the recipe of a batch."""

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


def plan_stages(settings: StageSettings, size: Size, geometry: Geometry, has_init_image: bool) -> tuple[Stage, ...]:
    """Return the stages of an image in their order: drafts, the image, upscaling.

    A draft is the whole canvas squeezed into one window, and so one scene. It is stretched and denoised again until it
    has the width of the canvas: the coarse structure of CoFi (arXiv 2606.00837) without its alignment. It takes half
    of the steps, because the noise of the next stage covers its detail. An image with regions is not one scene, and has
    no draft.

    Args:
        settings: of the image.
        size: height and width of the canvas before upscaling, px.
        geometry: the model's native sizes.
        has_init_image: the image starts from another one, which takes the place of drafts.
    """
    steps, strength = settings.sampling.steps, settings.sync.draft_strength
    draft_steps = min(steps, max(MIN_DRAFT_STEPS, math.ceil(DRAFT_STEPS * steps)))
    canvas, *upscaled = settings.upscale.sizes(size, geometry, settings.windows, has_init_image)
    has_draft = bool(strength) and not has_init_image and not settings.regions
    drafts = draft_sizes(canvas, geometry, settings.windows) if has_draft else ()
    stages = [
        Stage(
            stage_size,
            *_with_steps(settings, count),
            upscale_img2img(strength, count) if number else None,
            is_draft,
            restarts_sync=number > 0,
        )
        for number, (stage_size, count, is_draft) in enumerate(
            [*((draft, draft_steps, True) for draft in drafts), (canvas, steps, False)]
        )
    ]
    img2img = settings.upscale.stage_img2img(steps)
    return (*stages, *(Stage(stage_size, settings.sampling, settings.sync, img2img) for stage_size in upscaled))


def _with_steps(settings: StageSettings, steps: int) -> tuple[SamplingConfig, SyncConfig]:
    """Return sampling and sync with another number of steps; sync acts in the same share of them."""
    sampling, sync = settings.sampling, settings.sync
    if steps == sampling.steps:
        return sampling, sync
    sync_steps = {name: math.ceil(getattr(sync, name) * steps / sampling.steps) for name in ("steps", "adain_steps")}
    return sampling.replace(steps=steps), sync.replace(**sync_steps)


def draft_sizes(size: Size, geometry: Geometry, windows: WindowConfig) -> tuple[Size, ...]:
    """Return the sizes of a canvas's drafts, smallest first; one window and equirectangular panoramas have none."""
    window = geometry.window_px
    ratios = [side / window_side for side, window_side in zip(size, window, strict=True)]
    if max(ratios) <= 1 or windows.projection != FLAT:
        return ()
    count = max(1, round(math.log(max(ratios), SQUEEZE)))
    sizes = []
    for number in range(count):
        height, width = (
            round(window_side * ratio ** (number / count)) for window_side, ratio in zip(window, ratios, strict=True)
        )
        sizes.append((height, round(width / geometry.cell) * geometry.cell if windows.loop else width))
    return tuple(sizes)


class Stages:
    """Generates an image in its stages.

    Args:
        family: the model.
        spec: the image.
        images: its control maps and other input images.
        condition: what all windows have in common.
        latents: unit-variance noise of the requested canvas (1, c, h, w), instead of the seed's.
        objective: loads the objective of sync.
        notes: lines about the model for the user.

    Raises:
        SyncControlError: an image of that size or with these steps cannot be generated, or a control map does not fit.
    """

    def __init__(
        self,
        family: AbstractFamily,
        spec: ImageSpec,
        images: InputImages,
        condition: WindowCondition,
        latents: Tensor | None,
        objective: LoadObjective,
        notes: Sequence[str] = (),
    ) -> None:
        self._family, self._spec, self._images, self._condition = family, spec, images, condition
        self._objective, self._notes, self._latents = objective, list(notes), latents
        size, geometry, windows = (spec.height, spec.width), family.geometry, spec.windows
        layout = lay_out(*size, geometry, windows)  # raises for a size that has no windows
        self._stages = plan_stages(spec, size, geometry, INIT_IMAGE in images.others)
        self._canvas_stage = next(number for number, stage in enumerate(self._stages) if not stage.is_draft)
        canvas_stage = self._stages[self._canvas_stage]
        if canvas_stage.size != size:
            height, width = canvas_stage.size
            self._notes.append(
                f"{spec.width}x{spec.height} is higher than a window: {width}x{height} is generated first and then "
                "upscaled, so that the scene is not stacked (tall canvas rows generates rows of windows at once)"
            )
        self._layouts = [
            layout if stage.size == size else lay_out(*stage.size, geometry, windows) for stage in self._stages
        ]
        if latents is not None:
            check_latents(latents, family, self._layouts[self._canvas_stage])
        draft_maps = images.maps if self._canvas_stage else ()  # squeezed, they must have the aspect of the canvas
        self._draft_maps = [resize.fit(map_, *canvas_stage.size, "control map", windows.closed) for map_ in draft_maps]
        counts = [self._count(stage) for stage in reversed(self._stages)]  # the last first: raises before any denoising
        self._counts = counts[::-1]
        self._first = self._run(0, self._stage_spec(self._stages[0]), images)

    def steps(self) -> Iterator[Step]:
        """Yield the denoising steps of all stages; the last one holds the result."""
        run, done, counts = self._first, 0, self._counts
        work = [count * len(layout) for count, layout in zip(counts, self._layouts, strict=True)]
        for number, count in enumerate(counts):
            result = None
            for step in run.steps():
                result, is_last = step.result, number == len(counts) - 1
                counted = dataclasses.replace(
                    step,
                    index=done + step.index,
                    steps=step.steps + sum(counts) - count,
                    done=(sum(work[:number]) + step.done * work[number]) / sum(work),
                    result=self._final(result) if is_last and result is not None else None,
                )
                yield self._stretched_preview(counted) if self._stages[number].is_draft else counted
            if number + 1 < len(counts):
                assert result is not None
                done += count
                self._notes += [note for note in result.notes if note not in self._notes]
                run = self._next_run(result.image, number + 1)

    def _count(self, stage: Stage) -> int:
        """Return how many steps a stage takes; Heun and KDPM2 count two for each step of the settings."""
        steps, has_init_image = stage.sampling.steps, stage.img2img is None and INIT_IMAGE in self._images.others
        skipped = self._spec.img2img.skipped(steps) if has_init_image else stage.skipped
        return len(solver_of(self._family, stage.sampling, torch.Generator(), skipped).levels)

    def _stretched_preview(self, step: Step) -> Step:
        """Return a draft's step, whose preview has the size of the canvas."""
        height, width = self._stages[self._canvas_stage].size
        return dataclasses.replace(step, render=lambda: step.render().resize((width, height)))

    def _next_run(self, image: Image.Image, number: int) -> StageRun:
        """Return the run of a stage that starts from the image of the one before, with its controls and prompts."""
        stage = self._stages[number]
        assert stage.img2img is not None
        spec = dataclasses.replace(self._stage_spec(stage), img2img=stage.img2img)
        others = {role: other for role, other in self._images.others.items() if role != MASK}
        others[INIT_IMAGE] = self._stretched(image, spec)
        return self._run(number, spec, InputImages(maps=self._images.maps, others=others))

    def _stretched(self, image: Image.Image, spec: ImageSpec) -> Image.Image:
        """Return an image at the size of a spec."""
        height, width, closed = spec.height, spec.width, spec.windows.closed
        return resize.plan(image, height, width, "image", resize.STRETCH, closed).apply(image)

    def _stage_spec(self, stage: Stage) -> ImageSpec:
        """Return the spec of a stage: of its size and steps, with the regions scaled alike."""
        spec, (height, width) = dataclasses.replace(self._spec, sampling=stage.sampling, sync=stage.sync), stage.size
        if (height, width) == (spec.height, spec.width):
            return spec
        regions = (region.relative(spec.height, spec.width) for region in spec.regions)
        sources = tuple(source for source in spec.sources if source.role not in (INIT_IMAGE, MASK))
        return dataclasses.replace(
            spec, height=height, width=width, regions=tuple(regions), sources=sources, img2img=Img2ImgConfig()
        )

    def _run(self, number: int, spec: ImageSpec, images: InputImages) -> StageRun:
        """Return the run of a stage. An anchor index and given latents mean the requested canvas alone."""
        is_canvas, sync = number == self._canvas_stage, spec.sync
        if not is_canvas and isinstance(sync.anchor, int):
            spec = dataclasses.replace(spec, sync=sync.replace(anchor=MIDDLE))
        if self._stages[number].is_draft:
            images = dataclasses.replace(images, maps=[self._stretched(map_, spec) for map_ in self._draft_maps])
        geometry, latents = self._family.geometry, self._latents if is_canvas else None
        inputs = images.on_canvas(self._condition, spec, latents, min(geometry.window_px))
        inputs = dataclasses.replace(inputs, restarts_sync=self._stages[number].restarts_sync)
        return StageRun(self._family, spec, self._layouts[number], inputs, self._objective, self._notes)

    def _final(self, result: Result) -> Result:
        """Return the result of the last stage with the settings of the image."""
        return dataclasses.replace(result, config={**result.config, **self._spec.settings()})
