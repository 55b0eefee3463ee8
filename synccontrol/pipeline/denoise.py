"""One stage of an image: its inputs, its regional prompts, its denoising steps and its decoding."""

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
from synccontrol.families.base import AbstractFamily, Crops, WindowCondition
from synccontrol.io import images, masks, resize
from synccontrol.io.provenance import runtime_settings
from synccontrol.pipeline.inpaint import InitImage
from synccontrol.pipeline.output import Result, Step
from synccontrol.sampling.anchors import canvas_anchors
from synccontrol.sampling.batching import BatchedPredictor, free_memory, is_out_of_memory
from synccontrol.sampling.loop import DenoisedCanvas, Predict, montage_steps
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.sampling.region_mix import RegionMix
from synccontrol.sampling.schedulers import SchedulerRun
from synccontrol.sampling.sync import Sync, SyncNetworks
from synccontrol.spec.image_spec import INPAINT, ImageSpec
from synccontrol.spec.region import joined
from synccontrol.spec.settings import SamplingConfig, SyncConfig


def window_shares(
    spec: ImageSpec, region_map: Image.Image | None, layout: AbstractLayout, cell: int
) -> Float[Tensor, "n r h w"] | None:
    """Return the share of each region in each cell of each window; None for an image without regions.

    Raises:
        SyncControlError: as `canvas.regions.shares`.
    """
    if not spec.regions:
        regions.check_unused(region_map)
        return None
    size = spec.height, spec.width, cell
    closed, base = spec.windows.closed, bool(spec.prompt)
    shares = regions.shares(spec.regions, region_map, layout, size, closed, base)
    return layout.crop_image(shares[None], 1, range(len(layout)))


def region_conditions(
    spec: ImageSpec, condition: WindowCondition, count: int
) -> Sequence[tuple[WindowCondition, SamplingConfig]]:
    """Return condition and sampling of each of `count` regions; the last may be the part outside all regions."""
    regions = [
        (_regional_condition(condition, region.prompt, region.negative_prompt), region.control_scale)
        for region in spec.regions
    ]
    return [(regional, _scale_control(spec.sampling, scale)) for regional, scale in (*regions, (condition, 1.0))][
        :count
    ]


def _regional_condition(condition: WindowCondition, prompt: str, negative_prompt: str) -> WindowCondition:
    assert isinstance(condition.prompt, str) and isinstance(condition.negative_prompt, str)
    return dataclasses.replace(
        condition,
        prompt=joined(prompt, condition.prompt),
        negative_prompt=joined(negative_prompt, condition.negative_prompt),
    )


def _scale_control(sampling: SamplingConfig, factor: float) -> SamplingConfig:
    scale = sampling.control_scale
    scaled = tuple(each * factor for each in scale) if isinstance(scale, tuple) else scale * factor
    return sampling.replace(control_scale=scaled)


MIN_TILE = 16  # cells

LoadObjective = Callable[[SyncConfig], AbstractObjective]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageInputs:
    """The inputs of a stage beside its settings."""

    condition: WindowCondition  # shared by all windows
    maps: Sequence[Image.Image] = ()  # control maps on the canvas, one per ControlNet, or none
    region_map: Image.Image | None = None  # its levels of grey are regions
    init_image: Image.Image | None = None  # at the size of the canvas
    alpha: masks.Alpha | None = None  # share of each of its pixels that is generated; None: all
    latents: Tensor | None = None  # unit-variance noise to start from; None: the seed's
    restarts_sync: bool = False  # sync counts from the first step that is taken


class StageRun:
    """Generates the image of one stage; it uses the model's session step by step.

    Args:
        family: the model.
        spec: the image.
        layout: where its windows lie.
        inputs: control maps and other inputs.
        objective: loads the objective of sync; called only if sync is on.
        notes: lines about the model for the user.
    """

    def __init__(
        self,
        family: AbstractFamily,
        spec: ImageSpec,
        layout: AbstractLayout,
        inputs: StageInputs,
        objective: LoadObjective,
        notes: Sequence[str] = (),
    ) -> None:
        self._family = family
        self._spec = spec
        self._layout = layout
        self._inputs = inputs
        self._maps = [images.to_uint8(map_) for map_ in inputs.maps]
        self._generator = torch.Generator("cpu").manual_seed(spec.seed)
        self._noise = self._unit_noise(inputs.latents)
        self._shares = window_shares(spec, inputs.region_map, layout, family.geometry.cell)
        self._init_image = (
            None if inputs.init_image is None else InitImage(family, layout, inputs.init_image, inputs.alpha, spec)
        )
        self._objective = objective
        self._notes = list(notes)

    def steps(self) -> Iterator[Step]:
        """Yield the denoising steps; closing the generator cancels the image."""
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

    def _loop(self) -> Iterator[DenoisedCanvas]:
        """Return the sampling loop, with everything prepared that does not change between steps."""
        family, spec, layout = self._family, self._spec, self._layout
        init_image = self._init_image
        skipped = spec.img2img.skipped(spec.sampling.steps) if init_image is not None else 0
        solver = solver_of(family, spec.sampling, self._generator, skipped)
        if solver.note:
            self._note(solver.note)
        batches = BatchedPredictor(spec.windows.batch * len(family.devices), self._note)
        sync = self._sync(spec.sync.later(0 if self._inputs.restarts_sync else skipped), solver, batches)
        noise = self._noise.to(device=family.device, dtype=family.canvas_dtype)
        if self._inputs.restarts_sync:
            noise = noise * spec.sync.draft_noise
        x_t = solver.start(noise, None if init_image is None else init_image.start(skipped))
        predict = self._predict(len(solver.levels))
        if init_image is not None:
            predict = init_image.within(predict, solver.prediction_type)
        merge = Merger(layout, spec.windows.weights, x_t)
        return montage_steps(x_t, layout, solver, predict, merge, batches, sync)

    def _predict(self, steps: int) -> Predict:
        """Return the predictor of windows; it mixes the predictions of regional prompts."""
        family, base = self._family, self._inputs.condition
        crops = self._crops()
        extra_channels = self._init_image.inpaint_channels() if self._init_image is not None else []

        def predict_with(condition: WindowCondition, sampling: SamplingConfig, windows: Sequence[int]) -> Predict:
            conditions = [
                dataclasses.replace(
                    condition, window=window, inpaint_channels=extra_channels[window] if extra_channels else None
                )
                for window in windows
            ]
            return family.condition(conditions, crops, sampling, steps, self._note)

        if self._shares is None:
            return predict_with(base, self._spec.sampling, range(len(self._layout)))
        regional = region_conditions(self._spec, base, self._shares.shape[1])
        return RegionMix(self._shares, lambda region, windows: predict_with(*regional[region], windows))

    def _crops(self) -> list[Crops]:
        """Return a function for each control map that crops windows from it."""
        crops: list[Crops] = [partial(self._layout.crop_image, map_, self._family.geometry.cell) for map_ in self._maps]
        if self._init_image is not None:
            for index, control in enumerate(self._spec.controls):
                if control == INPAINT:
                    crops.insert(index, partial(self._init_image.map, self._family.masked_value(index)))
        return crops

    def _sync(self, config: SyncConfig, solver: SchedulerRun, batches: BatchedPredictor) -> Sync | None:
        """Return the sync of the windows; None if it is off, or there is a single window."""
        family = self._family
        anchors = canvas_anchors(config.anchor, self._layout, self._shares)
        anchor: int | Tensor | None = anchors.leading
        if not config.active or (isinstance(anchor, int) and len(self._layout) == 1):
            return None
        solver.check_sync_support()
        config.check_side(min(family.geometry.window_px))
        if config.perceptual:
            family.check_gradient(config.gradient == "full")
        if anchor is None:
            assert isinstance(config.anchor, Image.Image)
            anchor = self._anchor_image(config.anchor).to(device=family.device, dtype=family.canvas_dtype)
        networks = SyncNetworks(
            decode=family.decode_preview,
            encode=family.encode,
            kind=solver.prediction_type,
            half=family.dtype == torch.float16,
            offloaded=family.offloaded,
        )
        objective = self._objective(config) if config.perceptual else None
        return Sync(config, objective, anchor, networks, batches, anchors)

    def _anchor_image(self, image: Image.Image) -> Tensor:
        """Return the anchor image, (1, 3, H, W) in -1..1, cropped to the aspect of a window."""
        height, width = self._family.geometry.window_px
        upright = images.to_rgb(image)
        fit = resize.plan(upright, height, width, "anchor", resize.CROP)
        if fit.note:
            self._note(f"the anchor is cropped to the aspect of a window: it is {upright.width}x{upright.height}")
        return images.to_tensor(fit.apply(upright)) * 2 - 1

    def _step(self, denoised: DenoisedCanvas) -> Step:
        last = denoised.index + 1 == denoised.steps
        x0 = denoised.x_t if self._init_image is None else self._init_image.latents(denoised.x_t)
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
        machine = runtime_settings(",".join(map(str, family.devices)), str(family.dtype).removeprefix("torch."))
        return Result(
            image=self._decoded(x0, family.decode),
            latents=x0,
            seed=self._spec.seed,
            config=self._spec.settings() | machine,
            notes=tuple(self._notes),
        )

    def _render(self, x0: Tensor) -> Image.Image:
        with self._family.session():
            return self._decoded(x0, self._family.decode_preview)

    @torch.no_grad()
    def _decoded(self, x0: Tensor, decode: Decode) -> Image.Image:
        """Return the image of clean latents. Out of memory, decoding tries smaller tiles."""
        spec, family, tile = self._spec, self._family, self._layout.tile
        while True:
            try:
                pixels = self._layout.decode(x0, decode, family.geometry.cell, spec.height, spec.width, tile)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if tile <= MIN_TILE:
                    raise MemoryLimitError(
                        "the device is out of memory while decoding; the finished latents are this error's `latents`",
                        latents=x0,
                    ) from error
            else:
                image = Image.fromarray(pixels)
                return image if self._init_image is None else self._init_image.composite(image)
            tile = max(tile // 2, MIN_TILE)
            self._note(f"the device was out of memory: the image is decoded in tiles of {tile} cells")
            free_memory()

    def _unit_noise(self, latents: Tensor | None) -> Tensor:
        if latents is not None:
            return check_latents(latents, self._family, self._layout)
        return torch.randn((1, self._family.geometry.channels, *self._layout.shape), generator=self._generator)

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)


def solver_of(
    family: AbstractFamily, sampling: SamplingConfig, generator: torch.Generator, skipped: int = 0
) -> SchedulerRun:
    """Return the run of a model's scheduler. Raises `ConfigError` if the scheduler does not support the steps."""
    scheduler, device, mu = family.pipe.scheduler, family.device, family.shift()
    return SchedulerRun(
        scheduler, sampling.scheduler, sampling.steps, device=device, generator=generator, mu=mu, skipped=skipped
    )


def check_latents(latents: object, family: AbstractFamily, layout: AbstractLayout) -> Tensor:
    """Return the initial noise of a canvas. Raises `ConfigError` for noise of another shape."""
    shape = (1, family.geometry.channels, *layout.shape)
    if not isinstance(latents, Tensor):
        raise ConfigError(f"latents are {type(latents).__name__}; this canvas needs a tensor of shape {shape}")
    if latents.shape != shape:
        raise ConfigError(f"latents have shape {tuple(latents.shape)}; this canvas needs {shape}")
    return latents
