"""One picture on its way: what is made ready for it, its steps, and its decoding."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from synccontrol.canvas.layout import AbstractLayout
from synccontrol.canvas.merge import Merger
from synccontrol.config import SyncConfig
from synccontrol.errors import ConfigError, MemoryLimitError
from synccontrol.families.base import AbstractFamily, View
from synccontrol.files import fitting, images
from synccontrol.files.provenance import made_with
from synccontrol.picture import Picture
from synccontrol.result import Result, Step
from synccontrol.sampling.batches import Batches, free, is_out_of_memory
from synccontrol.sampling.loop import Denoised, montage_steps
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.sampling.solvers import Solver
from synccontrol.sampling.sync import Networks, Sync, anchor_index

SMALLEST_TILE = 16  # cells

Objectives = Callable[[SyncConfig], AbstractObjective]  # loads an objective


class Drawing:
    """Draws one picture with a loaded model, whose turn it takes step by step.

    Args:
        family: the model.
        picture: what to draw.
        view: what its windows have in common.
        layout: where its windows lie.
        maps: its control maps on the canvas, one per ControlNet, or none.
        latents: unit-variance noise to start from, instead of the seed's.
        objective: loads the objective of sync, if there is anything to sync.
        notes: what the user should know of the model.
    """

    def __init__(
        self,
        family: AbstractFamily,
        picture: Picture,
        view: View,
        layout: AbstractLayout,
        maps: Sequence[Image.Image],
        latents: Tensor | None,
        objective: Objectives,
        notes: Sequence[str] = (),
    ) -> None:
        self._family = family
        self._picture = picture
        self._view = view
        self._layout = layout
        self._maps = [images.to_tensor(map_) for map_ in maps]
        self._generator = torch.Generator("cpu").manual_seed(picture.seed)
        self._noise = self._unit_noise(latents)
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
        device = family.device
        solver = Solver(
            family.pipe.scheduler,
            picture.sampling.scheduler,
            picture.sampling.steps,
            device=device,
            generator=self._generator,
            mu=family.shift(),
        )
        if solver.note:
            self._note(solver.note)
        batches = Batches(picture.windows.batch, self._note)
        sync = self._sync(solver, batches)
        x_t = solver.start(self._noise.to(device=device, dtype=family.canvas_dtype))
        views = [dataclasses.replace(self._view, window=window) for window in range(len(layout))]
        crops = [partial(layout.look, map_, family.geometry.cell) for map_ in self._maps]
        predict = family.condition(views, crops, picture.sampling, len(solver.levels), self._note)
        merge = Merger(layout, picture.windows.weights, x_t)
        return montage_steps(x_t, layout, solver, predict, merge, batches, sync)

    def _sync(self, solver: Solver, batches: Batches) -> Sync | None:
        """Returns what keeps the windows together; None when there is nothing to do."""
        family, config = self._family, self._picture.sync
        anchor: int | Tensor | None = anchor_index(config.anchor, self._layout)
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
            decode=family.decode,
            encode=family.encode,
            kind=solver.kind,
            half=family.dtype == torch.float16,
            offloaded=family.offloaded,
        )
        objective = self._objective(config) if config.perceptual else None
        return Sync(config, objective, anchor, networks, batches)

    def _anchor_picture(self, picture: Image.Image) -> Tensor:
        """Returns a picture that all windows follow, (1, 3, H, W) in -1..1; of another aspect, its middle."""
        height, width = self._family.geometry.window_px
        upright = images.to_rgb(picture)
        fit = fitting.plan(upright, height, width, "anchor", fitting.CROP)
        if fit.note:
            self._note(f"of the anchor only the middle is followed: it is {upright.width}x{upright.height}, no window")
        return images.to_tensor(fit.show(upright)) * 2 - 1

    def _step(self, denoised: Denoised) -> Step:
        last = denoised.index + 1 == denoised.steps
        return Step(
            index=denoised.index,
            steps=denoised.steps,
            x_t=denoised.x_t,
            result=self._result(denoised.x_t) if last else None,
            render=partial(self._render, denoised.x0),
        )

    def _result(self, x0: Tensor) -> Result:
        family = self._family
        return Result(
            image=self._decoded(x0),
            latents=x0,
            seed=self._picture.seed,
            config=self._picture.settings() | made_with(str(family.device), str(family.dtype).removeprefix("torch.")),
            notes=tuple(self._notes),
        )

    def _render(self, x0: Tensor) -> Image.Image:
        with self._family.session():
            return self._decoded(x0)

    @torch.no_grad()
    def _decoded(self, x0: Tensor) -> Image.Image:
        """Returns the picture of clean latents; in smaller tiles when the device is out of memory."""
        picture, family, tile = self._picture, self._family, self._layout.tile
        while True:
            try:
                pixels = self._layout.decode(
                    x0, family.decode, family.geometry.cell, picture.height, picture.width, tile
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if tile <= SMALLEST_TILE:
                    raise MemoryLimitError(
                        "the device is out of memory while decoding; what was denoised is this error's `latents`",
                        latents=x0,
                    ) from error
            else:
                return Image.fromarray(pixels)
            tile = max(tile // 2, SMALLEST_TILE)
            self._note(f"the device was out of memory: the picture is decoded in tiles of {tile} cells")
            free()

    def _unit_noise(self, latents: Tensor | None) -> Tensor:
        shape = (1, self._family.geometry.channels, *self._layout.shape)
        if latents is None:
            return torch.randn(shape, generator=self._generator)
        if not isinstance(latents, Tensor):
            raise ConfigError(f"latents are {type(latents).__name__}; this canvas needs a tensor of shape {shape}")
        if latents.shape != shape:
            raise ConfigError(f"latents have shape {tuple(latents.shape)}; this canvas needs {shape}")
        return latents

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)
