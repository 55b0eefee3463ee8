"""`Montage`, the object that users hold: a loaded model that makes wide pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor

from preprocess import Picture as AnyPicture
from synccontrol import families
from synccontrol.canvas.windows import lay_out
from synccontrol.config import SamplingConfig, SyncConfig, WindowConfig
from synccontrol.drawing import Drawing
from synccontrol.errors import ConfigError, InputError
from synccontrol.families.base import AbstractFamily
from synccontrol.files import fitting, images
from synccontrol.models import hub, presets
from synccontrol.picture import Picture
from synccontrol.result import Result, Step
from synccontrol.sampling import objectives
from synccontrol.sampling.objectives import AbstractObjective

ControlMaps: TypeAlias = "AnyPicture | Sequence[AnyPicture] | None"
Config = TypeVar("Config", SamplingConfig, WindowConfig, SyncConfig)
DIFFUSERS_NAMES = {  # what users of diffusers may try -> what it is called here
    "generator": "seed=0",
    "image": "control_map",
    "num_inference_steps": "sampling=SamplingConfig(steps=50)",
    "guidance_scale": "sampling=SamplingConfig(guidance_scale=7.5)",
    "controlnet_conditioning_scale": "sampling=SamplingConfig(control_scale=1.0)",
    "num_images_per_prompt": "one call for each seed",
    "callback_on_step_end": "on_step, or the iterator `steps`",
}


class Montage:
    """Makes wide pictures with one loaded model. Build it with `from_pretrained` or `from_pipe`.

    It may be used from several threads: pictures that are drawn at the same time take turns, step by step.

    Args:
        denoiser: the model.
        defaults: settings for calls that name none.
        origin: what pictures say of where the model comes from: fields of `Picture`.
        offline: objectives are not to be downloaded either.
    """

    def __init__(
        self,
        denoiser: AbstractFamily,
        defaults: "presets.Defaults | None" = None,
        *,
        origin: Mapping[str, Any] = MappingProxyType({}),
        offline: bool = False,
    ) -> None:
        self.denoiser = denoiser
        self.defaults = defaults or presets.Defaults.fitting(denoiser.geometry)
        self._origin = origin
        self._offline = offline
        self._objectives: dict[str, AbstractObjective] = {}

    @classmethod
    def from_pipe(cls, pipe: Any, controls: Sequence[str] = ()) -> "Montage":
        """Returns a montage around a loaded diffusers pipeline, with or without ControlNets.

        The pipeline's LoRAs, textual inversions, autoencoder, device, dtype and offloading are used as they are.

        Args:
            pipe: the pipeline.
            controls: the control type of each map, which union ControlNets must be told; others need it not.

        Raises:
            ModelError: no model family serves this pipeline, or a union ControlNet does not follow a control type.
            ConfigError: the number of controls is not that of the ControlNets.
        """
        controls = [controls] if isinstance(controls, str) else controls
        return cls(families.wrap(pipe, controls), origin={"controls": tuple(controls)})

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
                model's own; or one union ControlNet for all.
            device: 'cpu', 'cuda', 'cuda:1', 'mps', ...
            dtype: of the networks; the canvas is float32 at least.
            offline: never ask the network.

        Raises:
            ModelError: the model, a ControlNet or the device is not to be had; the message says what would work.
        """
        controls = [controls] if isinstance(controls, str) else controls
        pipe = hub.load(model, controls, controlnets, device=device, dtype=dtype, offline=offline)
        defaults = presets.PRESETS[model].defaults if model in presets.PRESETS else None
        origin = {"model": model, "controls": tuple(controls), "controlnets": tuple(controlnets)}
        return cls(families.wrap(pipe, controls), defaults, origin=origin, offline=offline)

    def __call__(
        self,
        prompt: str,
        control_map: ControlMaps = None,
        *,
        on_step: Callable[[Step], object] | None = None,
        **options: Any,
    ) -> Result:
        """Returns one wide picture. Arguments and errors are those of `steps`.

        Args:
            prompt: what to draw.
            control_map: what to follow.
            on_step: called after every denoising step.
            options: height, width, negative_prompt, seed, latents, sampling, windows, sync.
        """
        result = None
        for step in self.steps(prompt, control_map, **options):
            result = step.result
            if on_step is not None:
                on_step(step)
        assert result is not None
        return result

    def steps(
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
        **others: object,
    ) -> Iterator[Step]:
        """Returns an iterator over the denoising steps of one wide picture; the last one holds the result.

        Closing it cancels the picture and leaves the model as it was.

        Args:
            prompt: what to draw.
            control_map: a picture, array or tensor as `preprocess.to_rgb` takes them, or one per ControlNet; None
                draws from text only.
            height: px, at least one window; the control map's if not given.
            width: px, likewise. In a loop it must be whole cells; on a sphere, twice the height.
            negative_prompt: what to avoid.
            seed: of the CPU generator that all noise comes from.
            latents: Rarely needed: the initial unit-variance noise (1, c, h, w) in cells, instead of the seed's.
            sampling: how to denoise; the model's default if not given.
            windows: where windows lie; likewise.
            sync: how windows are kept coherent; likewise.
            others: none; what diffusers calls otherwise is named in the error.

        Raises:
            ConfigError: settings that contradict each other, or a size below one window.
            InputError: control maps that do not fit the canvas or the ControlNets.
            ModelError: the objective cannot be loaded.
            MemoryLimitError: the device cannot hold one window.
            NonFiniteError: NaN or infinity in latents or picture.
        """
        for name in others:
            raise ConfigError(f"there is no {name}{_instead(name)}")
        sampling = _config(sampling, self.defaults.sampling)
        windows = _config(windows, self.defaults.windows)
        sync = _config(sync, self.defaults.sync)
        maps = _as_list(control_map)
        height, width = _canvas_size(maps, height, width)
        layout = lay_out(height, width, self.denoiser.geometry, windows)
        self._check_controls(maps, sampling)
        picture = Picture(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            seed=seed,
            sampling=sampling,
            windows=windows,
            sync=sync,
            **self._origin,
        )
        fitted = [fitting.fit(map_, height, width, "control map", windows.closed) for map_ in maps]
        return Drawing(self.denoiser, picture, layout, fitted, latents, self._objective).steps()

    def _check_controls(self, maps: Sequence[Image.Image], sampling: SamplingConfig) -> None:
        nets = self.denoiser.controls
        if maps and len(maps) != nets:
            raise InputError(f"{len(maps)} control maps were given for {nets} ControlNets; give one for each, or none")
        sampling.check_controls(nets)

    def _objective(self, config: SyncConfig) -> AbstractObjective:
        key = config.objective
        if not isinstance(key, str):
            return objectives.load(key)
        if key not in self._objectives:
            self._objectives[key] = objectives.load(key, offline=self._offline)
        return self._objectives[key]


def _instead(name: str) -> str:
    return f"; use {DIFFUSERS_NAMES[name]}" if name in DIFFUSERS_NAMES else ""


def _config(given: Config | None, default: Config) -> Config:
    if given is not None and not isinstance(given, type(default)):
        raise ConfigError(f"{given!r} is no {type(default).__name__}; give {type(default).__name__}(...)")
    return default if given is None else given


def _as_list(control_map: ControlMaps) -> list[Image.Image]:
    if control_map is None:
        return []
    if isinstance(control_map, Sequence):
        return [images.to_rgb(map_) for map_ in control_map]
    return [images.to_rgb(control_map)]


def _canvas_size(maps: Sequence[Image.Image], height: int | None, width: int | None) -> tuple[int, int]:
    height = maps[0].height if maps and height is None else height
    width = maps[0].width if maps and width is None else width
    if height is None or width is None:
        raise ConfigError("a picture from text only needs a height and a width in pixels")
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, Integral):
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of pixels")
    return int(height), int(width)
