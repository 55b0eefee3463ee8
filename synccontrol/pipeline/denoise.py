"""One stage of an image: what is prepared for it, the regional prompts, its steps, and its decoding."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synccontrol.canvas import regions
from synccontrol.canvas.base import AbstractLayout, Decode, Merger
from synccontrol.errors import ConfigError, MemoryLimitError
from synccontrol.families.base import AbstractFamily, Crops, View
from synccontrol.io import images, masks, resize
from synccontrol.io.provenance import made_with
from synccontrol.pipeline.inpaint import Kept
from synccontrol.pipeline.output import Result, Step
from synccontrol.sampling.anchors import of_canvas
from synccontrol.sampling.batching import Batches, free, is_out_of_memory
from synccontrol.sampling.loop import Denoised, Predict, montage_steps
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.sampling.region_mix import Regional
from synccontrol.sampling.schedulers import Solver
from synccontrol.sampling.sync import Networks, Sync
from synccontrol.spec.image_spec import INPAINT, ImageSpec
from synccontrol.spec.region import joined
from synccontrol.spec.settings import SamplingConfig, SyncConfig


def window_shares(
    picture: ImageSpec, region_map: Image.Image | None, layout: AbstractLayout, cell: int
) -> Float[Tensor, "n r h w"] | None:
    """Returns how much of each cell of each window belongs to each region of a picture; None if it has no regions.

    Raises:
        SyncControlError: as `canvas.regions.shares`.
    """
    if not picture.regions:
        regions.check_unused(region_map)
        return None
    size = picture.height, picture.width, cell
    closed, base = picture.windows.closed, bool(picture.prompt)
    found = regions.shares(picture.regions, region_map, layout, size, closed, base)
    return layout.look(found[None], 1, range(len(layout)))


def said(picture: ImageSpec, view: View, count: int) -> Sequence[tuple[View, SamplingConfig]]:
    """Returns what is drawn in each of so many regions, and how; the last may be what lies in none."""
    found = [(_own(view, region.prompt, region.negative_prompt), region.control_scale) for region in picture.regions]
    return [(own, _controlled(picture.sampling, scale)) for own, scale in (*found, (view, 1.0))][:count]


def _own(view: View, prompt: str, negative_prompt: str) -> View:
    assert isinstance(view.prompt, str) and isinstance(view.negative_prompt, str)
    return dataclasses.replace(
        view, prompt=joined(prompt, view.prompt), negative_prompt=joined(negative_prompt, view.negative_prompt)
    )


def _controlled(sampling: SamplingConfig, factor: float) -> SamplingConfig:
    scale = sampling.control_scale
    scaled = tuple(one * factor for one in scale) if isinstance(scale, tuple) else scale * factor
    return sampling.replace(control_scale=scaled)


SMALLEST_TILE = 16  # cells

Objectives = Callable[[SyncConfig], AbstractObjective]  # loads an objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What a picture is drawn from, beside its settings."""

    view: View  # what its windows have in common
    maps: Sequence[Image.Image] = ()  # control maps on the canvas, one per ControlNet, or none
    region_map: Image.Image | None = None  # whose levels of grey are regions
    init_image: Image.Image | None = None  # on the canvas, what is started from
    new: masks.Alpha | None = None  # how much of each of its pixels is drawn anew; None: all
    latents: Tensor | None = None  # unit-variance noise to start from, instead of the seed's
    anew: bool = False  # over a scaffold: sync counts its steps from the first that is drawn, not those left out


class Drawing:
    """Draws one picture with a loaded model, whose turn it takes step by step.

    Args:
        family: the model.
        picture: what to draw.
        layout: where its windows lie.
        given: what it is drawn from.
        objective: loads the objective of sync, if there is anything to sync.
        notes: what the user should know of the model.
    """

    def __init__(
        self,
        family: AbstractFamily,
        picture: ImageSpec,
        layout: AbstractLayout,
        given: Given,
        objective: Objectives,
        notes: Sequence[str] = (),
    ) -> None:
        self._family = family
        self._picture = picture
        self._layout = layout
        self._given = given
        self._maps = [images.to_uint8(map_) for map_ in given.maps]
        self._generator = torch.Generator("cpu").manual_seed(picture.seed)
        self._noise = self._unit_noise(given.latents)
        self._shares = window_shares(picture, given.region_map, layout, family.geometry.cell)
        self._kept = None if given.init_image is None else Kept(family, layout, given.init_image, given.new, picture)
        self._objective = objective
        self._notes = list(notes)

    def steps(self) -> Iterator[Step]:
        """Yields the denoising steps; closing the generator cancels the picture."""
        family = self._family
        try:
            with family.session():
                loop = self._loop()
            while True:
                with family.session():
                    step = self._step(denoised) if (denoised := next(loop, None)) is not None else None
                if step is None:
                    return
                yield step
        finally:
            with family.session():
                family.release()

    def _loop(self) -> Iterator[Denoised]:
        """Returns the sampling loop, with all that does not change between steps made ready."""
        family, picture, layout = self._family, self._picture, self._layout
        kept = self._kept
        skipped = picture.img2img.skipped(picture.sampling.steps) if kept is not None else 0
        solver = solver_of(family, picture.sampling, self._generator, skipped)
        if solver.note:
            self._note(solver.note)
        batches = Batches(picture.windows.batch * len(family.devices), self._note)
        sync = self._sync(picture.sync.later(0 if self._given.anew else skipped), solver, batches)
        noise = self._noise.to(device=family.device, dtype=family.canvas_dtype)
        if self._given.anew:
            noise = noise * picture.sync.draft_noise
        x_t = solver.start(noise, None if kept is None else kept.start(skipped))
        predict = self._predict(len(solver.levels))
        if kept is not None:
            predict = kept.within(predict, solver.kind)
        merge = Merger(layout, picture.windows.weights, x_t)
        return montage_steps(x_t, layout, solver, predict, merge, batches, sync)

    def _predict(self, steps: int) -> Predict:
        """Returns the prediction of windows: of every region by its own prompt, where there are any."""
        family, view = self._family, self._given.view
        crops = self._crops()
        kept = self._kept.beside() if self._kept is not None else []

        def condition(view: View, sampling: SamplingConfig, windows: Sequence[int]) -> Predict:
            views = [
                dataclasses.replace(view, window=window, beside=kept[window] if kept else None) for window in windows
            ]
            return family.condition(views, crops, sampling, steps, self._note)

        if self._shares is None:
            return condition(view, self._picture.sampling, range(len(self._layout)))
        asked = said(self._picture, view, self._shares.shape[1])
        return Regional(self._shares, lambda region, windows: condition(*asked[region], windows))

    def _crops(self) -> list[Crops]:
        """Returns what windows see of every control map."""
        crops: list[Crops] = [partial(self._layout.look, map_, self._family.geometry.cell) for map_ in self._maps]
        if self._kept is not None:
            for place, control in enumerate(self._picture.controls):
                if control == INPAINT:
                    crops.insert(place, partial(self._kept.map, self._family.hole(place)))
        return crops

    def _sync(self, config: SyncConfig, solver: Solver, batches: Batches) -> Sync | None:
        """Returns what keeps the windows together; None when there is nothing to do."""
        family = self._family
        anchors = of_canvas(config.anchor, self._layout, self._shares)
        anchor: int | Tensor | None = anchors.leading
        if not config.active or (isinstance(anchor, int) and len(self._layout) == 1):
            return None
        solver.require_moves()
        config.check_side(min(family.geometry.window_px))
        if config.perceptual:
            family.check_gradient(config.gradient == "full")
        if anchor is None:
            assert isinstance(config.anchor, Image.Image)
            anchor = self._anchor_picture(config.anchor).to(device=family.device, dtype=family.canvas_dtype)
        networks = Networks(
            decode=family.glimpse,
            encode=family.encode,
            kind=solver.kind,
            half=family.dtype == torch.float16,
            offloaded=family.offloaded,
        )
        objective = self._objective(config) if config.perceptual else None
        return Sync(config, objective, anchor, networks, batches, anchors)

    def _anchor_picture(self, picture: Image.Image) -> Tensor:
        """Returns a picture that all windows follow, (1, 3, H, W) in -1..1; of another aspect, its middle."""
        height, width = self._family.geometry.window_px
        upright = images.to_rgb(picture)
        fit = resize.plan(upright, height, width, "anchor", resize.CROP)
        if fit.note:
            self._note(f"of the anchor only the middle is followed: it is {upright.width}x{upright.height}, no window")
        return images.to_tensor(fit.show(upright)) * 2 - 1

    def _step(self, denoised: Denoised) -> Step:
        last = denoised.index + 1 == denoised.steps
        x0 = denoised.x_t if self._kept is None else self._kept.latents(denoised.x_t)
        return Step(
            index=denoised.index,
            steps=denoised.steps,
            done=(denoised.index + 1) / denoised.steps,
            x_t=denoised.x_t,
            result=self._result(x0) if last else None,
            render=partial(self._render, denoised.x0),
        )

    def _result(self, x0: Tensor) -> Result:
        family = self._family
        machine = made_with(",".join(map(str, family.devices)), str(family.dtype).removeprefix("torch."))
        return Result(
            image=self._decoded(x0, family.decode),
            latents=x0,
            seed=self._picture.seed,
            config=self._picture.settings() | machine,
            notes=tuple(self._notes),
        )

    def _render(self, x0: Tensor) -> Image.Image:
        with self._family.session():
            return self._decoded(x0, self._family.glimpse)

    @torch.no_grad()
    def _decoded(self, x0: Tensor, decode: Decode) -> Image.Image:
        """Returns the picture of clean latents; in smaller tiles when the device is out of memory."""
        picture, family, tile = self._picture, self._family, self._layout.tile
        while True:
            try:
                pixels = self._layout.decode(x0, decode, family.geometry.cell, picture.height, picture.width, tile)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if tile <= SMALLEST_TILE:
                    raise MemoryLimitError(
                        "the device is out of memory while decoding; what was denoised is this error's `latents`",
                        latents=x0,
                    ) from error
            else:
                drawn = Image.fromarray(pixels)
                return drawn if self._kept is None else self._kept.picture(drawn)
            tile = max(tile // 2, SMALLEST_TILE)
            self._note(f"the device was out of memory: the picture is decoded in tiles of {tile} cells")
            free()

    def _unit_noise(self, latents: Tensor | None) -> Tensor:
        if latents is not None:
            return check_latents(latents, self._family, self._layout)
        return torch.randn((1, self._family.geometry.channels, *self._layout.shape), generator=self._generator)

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)


def solver_of(family: AbstractFamily, sampling: SamplingConfig, generator: torch.Generator, skipped: int = 0) -> Solver:
    """Returns a model's solver, as `Solver`. Raises `ConfigError` if it cannot make so many steps."""
    scheduler, device, mu = family.pipe.scheduler, family.device, family.shift()
    return Solver(
        scheduler, sampling.scheduler, sampling.steps, device=device, generator=generator, mu=mu, skipped=skipped
    )


def check_latents(latents: object, family: AbstractFamily, layout: AbstractLayout) -> Tensor:
    """Returns the noise that a canvas starts from. Raises `ConfigError` if it is not of the canvas's shape."""
    shape = (1, family.geometry.channels, *layout.shape)
    if not isinstance(latents, Tensor):
        raise ConfigError(f"latents are {type(latents).__name__}; this canvas needs a tensor of shape {shape}")
    if latents.shape != shape:
        raise ConfigError(f"latents have shape {tuple(latents.shape)}; this canvas needs {shape}")
    return latents
