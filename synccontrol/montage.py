"""`Montage`, the object that users hold: a loaded model that makes wide pictures."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from synccontrol import families
from synccontrol.canvas.layout import AbstractLayout
from synccontrol.canvas.windows import lay_out
from synccontrol.config import SamplingConfig, SyncConfig, WindowConfig, record
from synccontrol.errors import ConfigError, InputError, NonFiniteError
from synccontrol.families.base import AbstractDenoiser
from synccontrol.files import fitting, images
from synccontrol.models import hub, presets
from synccontrol.sampling import objectives, sync
from synccontrol.sampling.loop import Step, montage_steps
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.sampling.solvers import Schedule

ControlMaps = Image.Image | Sequence[Image.Image] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A finished montage."""

    image: Image.Image  # RGB, exactly the size asked for
    latents: Tensor  # (1, c, h, w) clean, padded to whole cells; of a sphere its points, (1, c, 1, p)
    seed: int
    config: dict[str, Any]  # all settings, as JSON values, by the names of the CLI's flags


class Montage:
    """Makes wide pictures with one loaded model. Build it with `from_pretrained` or `from_pipe`.

    Args:
        denoiser: the model.
        defaults: settings for calls that name none.
    """

    def __init__(self, denoiser: AbstractDenoiser, defaults: "presets.Defaults | None" = None) -> None:
        self.denoiser = denoiser
        self.defaults = defaults or presets.Defaults.fitting(denoiser.geometry)
        self._objectives: dict[str, AbstractObjective] = {}

    @classmethod
    def from_pipe(cls, pipe: Any) -> "Montage":
        """Returns a montage around a loaded diffusers Stable Diffusion pipeline, with or without ControlNets.

        The pipeline's LoRAs, adapters, device, dtype and offloading are used as they are.

        Raises:
            ModelError: no model family serves this pipeline.
        """
        return cls(families.wrap(pipe))

    @classmethod
    def from_pretrained(
        cls,
        model: str = "tiny",
        controls: Sequence[str] = (),
        *,
        controlnets: Sequence[str] = (),
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        offline: bool = False,
    ) -> "Montage":
        """Returns a montage with a model loaded.

        Args:
            model: a preset ('tiny', 'sd15', ...), a diffusers folder or a hub id.
            controls: control types, one ControlNet each ('depth', 'canny', 'pose'); none for text only.
            controlnets: Rarely needed: folders or hub ids to use for the controls, in their order, instead of the
                model's own.
            device: 'cpu', 'cuda', 'cuda:1', 'mps', ...
            dtype: of weights and latents.
            offline: never ask the network.

        Raises:
            ModelError: the model, a ControlNet or the device is not to be had; the message says what would work.
        """
        pipe = hub.load(model, controls, controlnets, device=device, dtype=dtype, offline=offline)
        return cls(families.wrap(pipe), presets.PRESETS[model].defaults if model in presets.PRESETS else None)

    def __call__(
        self,
        prompt: str,
        control_map: ControlMaps = None,
        *,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str = "",
        seed: int = 0,
        latents: Tensor | None = None,
        sampling: SamplingConfig | None = None,
        windows: WindowConfig | None = None,
        sync: SyncConfig | None = None,
        on_step: Callable[[Step], object] | None = None,
    ) -> Result:
        """Returns one wide picture.

        Args:
            prompt: what to draw.
            control_map: RGB control map, or one per ControlNet; None draws from text only.
            height: px, at least one window; the control map's if not given.
            width: px, likewise. In a loop it must be whole cells; on a sphere, twice the height.
            negative_prompt: what to avoid.
            seed: of the CPU generator that all noise comes from.
            latents: Rarely needed: the initial unit-variance noise (1, c, h, w) in cells, instead of the seed's.
            sampling: how to denoise; the model's default if not given.
            windows: where windows lie; likewise.
            sync: how windows are kept coherent; likewise.
            on_step: called after every denoising step.

        Raises:
            ConfigError: settings that contradict each other, or a size below one window.
            InputError: control maps that do not fit the canvas or the ControlNets.
            ModelError: the objective cannot be loaded.
            NonFiniteError: NaN or infinity in latents or picture.
        """
        sampling = sampling or self.defaults.sampling
        windows = windows or self.defaults.windows
        sync = sync or self.defaults.sync
        maps = _as_list(control_map)
        height, width = _canvas_size(maps, height, width)
        layout = lay_out(height, width, self.denoiser.geometry, windows)
        self._check_controls(maps, sampling)
        generator = torch.Generator("cpu").manual_seed(seed)
        with self.denoiser.running(), torch.no_grad():
            device, dtype = self.denoiser.device, self.denoiser.dtype
            fitted = [
                images.to_tensor(fitting.fit(map_, height, width, "control map", windows.closed)) for map_ in maps
            ]
            crops = [layout.look(map_, self._cell) for map_ in fitted]
            noise = self._noise(latents, layout, generator).to(device=device, dtype=dtype)
            schedule = Schedule(self.denoiser.pipe.scheduler, sampling.scheduler, sampling.steps, device, generator)
            predict = self.denoiser.encode(prompt, negative_prompt, crops, sampling, schedule.timesteps)
            objective, anchor = self._objective(sync, len(layout))
            x_t = schedule.start(noise)
            loop = montage_steps(x_t, layout, schedule, predict, self.denoiser.decode, windows, sync, objective, anchor)
            for step in loop:
                x_t = step.x_t
                if on_step is not None:
                    on_step(step)
            image = self._decode(x_t, layout, height, width)
        settings = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "width": width,
            "height": height,
            "seed": seed,
            **record(sampling, windows, sync),
        }
        return Result(image=image, latents=x_t, seed=seed, config=settings)

    @property
    def _cell(self) -> int:
        return self.denoiser.geometry.cell

    def _check_controls(self, maps: Sequence[Image.Image], sampling: SamplingConfig) -> None:
        nets = self.denoiser.controls
        if maps and len(maps) != nets:
            raise InputError(f"{len(maps)} control maps were given for {nets} ControlNets; give one for each, or none")
        for name in ("control_scale", "control_start", "control_end"):
            value = getattr(sampling, name)
            if isinstance(value, tuple) and len(value) != nets:
                raise ConfigError(f"{name} has {len(value)} values for {nets} ControlNets; give one, or one for each")

    def _noise(self, latents: Tensor | None, layout: AbstractLayout, generator: torch.Generator) -> Tensor:
        shape = (1, self.denoiser.geometry.channels, *layout.shape)
        if latents is None:
            return torch.randn(shape, generator=generator)
        if latents.shape != shape:
            raise ConfigError(f"latents have shape {tuple(latents.shape)}; this canvas needs {shape}")
        return latents

    def _objective(self, config: SyncConfig, n: int) -> tuple[AbstractObjective | None, int | Tensor]:
        """Returns the loaded objective, if sync is on, and the anchor as an index or an image (1, 3, H, W)."""
        index = sync.anchor_index(config.anchor, n)
        if not config.active:
            return None, 0
        key = config.objective
        if not isinstance(key, str):
            objective = objectives.load(key)
        else:
            objective = self._objectives.setdefault(key, self._objectives.get(key) or objectives.load(key))
        if index is not None:
            return objective, index
        h, w = self.denoiser.geometry.window_px
        assert isinstance(config.anchor, Image.Image)
        picture = config.anchor.convert("RGB").resize((w, h), Image.Resampling.LANCZOS)
        return objective, (images.to_tensor(picture) * 2 - 1).to(device=self.denoiser.device, dtype=self.denoiser.dtype)

    def _decode(self, x0: Tensor, layout: AbstractLayout, height: int, width: int) -> Image.Image:
        decoded = layout.decode(x0, self.denoiser.decode, self._cell, height, width)
        if not decoded.isfinite().all():
            raise NonFiniteError("the decoded picture is not finite; try dtype float32 or bfloat16")
        return images.to_pil(decoded)


def _as_list(control_map: ControlMaps) -> list[Image.Image]:
    if control_map is None:
        return []
    return [control_map] if isinstance(control_map, Image.Image) else list(control_map)


def _canvas_size(maps: Sequence[Image.Image], height: int | None, width: int | None) -> tuple[int, int]:
    if maps:
        return maps[0].height if height is None else height, maps[0].width if width is None else width
    if height is None or width is None:
        raise ConfigError("a picture from text only needs a height and a width in pixels")
    return height, width
