"""`Montage`: a loaded model that generates wide images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from synccontrol import families
from synccontrol.errors import for_library
from synccontrol.families.base import AbstractFamily, WindowCondition
from synccontrol.models import devices, loader, registry
from synccontrol.models.adapters import add_tiny_vae
from synccontrol.models.presets import PresetSettings, family_default_preset, preset_variants, select_preset
from synccontrol.pipeline import inputs
from synccontrol.pipeline.inputs import MOVED_ARGUMENTS, ControlMaps, InputImages, checked_arguments
from synccontrol.pipeline.output import Result, Step
from synccontrol.pipeline.stages import Stages
from synccontrol.preprocess import ImageLike
from synccontrol.sampling import objectives
from synccontrol.sampling.objectives import AbstractObjective
from synccontrol.spec.image_settings import DEFAULT, PresetName
from synccontrol.spec.image_spec import IP_IMAGE, ImageSpec
from synccontrol.spec.region import Region
from synccontrol.spec.settings import Adapters, Img2ImgConfig, SamplingConfig, SyncConfig, UpscaleConfig, WindowConfig


class Montage:
    """Generates wide images with one loaded model. Build it with `from_pretrained` or `from_pipe`.

    Several threads may use one montage: images that are generated at the same time take turns, step by step.

    Args:
        denoiser: the model.
        defaults: preset of calls that name none; that of the model's family if not given.
        origin: fields of `ImageSpec` that record where the model comes from.
        offline: never download an objective.
        notes: lines about the model for the user; every result has them.
    """

    def __init__(
        self,
        denoiser: AbstractFamily,
        defaults: PresetSettings | None = None,
        *,
        origin: Mapping[str, Any] = MappingProxyType({}),
        offline: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self.denoiser = denoiser
        scheduler = type(denoiser.pipe.scheduler).__name__
        self.defaults = defaults or family_default_preset(families.family_name(denoiser), denoiser.geometry, scheduler)
        self._origin = origin
        self._offline = offline
        self._notes = notes
        self._objectives: dict[str, AbstractObjective] = {}

    def settings(self, preset: PresetName = DEFAULT) -> PresetSettings:
        """Return the settings of a preset for this model: `.sampling`, `.windows` and `.sync`, each of them complete.

        Raises:
            ConfigError: there is no such preset.
        """
        return select_preset(preset_variants(self.defaults, self.denoiser.geometry), preset)

    @classmethod
    @checked_arguments(MOVED_ARGUMENTS)
    def from_pipe(cls, pipe: Any, controls: Sequence[str] = ()) -> "Montage":
        """Return a montage around a loaded diffusers pipeline, with or without ControlNets.

        The pipeline's LoRAs, textual inversions, autoencoder, device, dtype and offloading are used as they are.

        Args:
            pipe: the pipeline.
            controls: the control type of each map; only union ControlNets need it.

        Raises:
            ModelError: no model family serves this pipeline, or a union ControlNet does not follow a control type.
            ConfigError: the number of controls is not that of the ControlNets.
        """
        controls = (controls,) if isinstance(controls, str) else tuple(controls)
        family, checker = families.wrap(pipe, controls), pipe.components.get("safety_checker")
        return cls(family, origin={"controls": controls}, notes=[inputs.UNCHECKED] if checker is not None else [])

    @classmethod
    @checked_arguments(MOVED_ARGUMENTS)
    def from_pretrained(
        cls,
        model: str = "tiny",
        controls: Sequence[str] = (),
        *,
        controlnets: Sequence[str] = (),
        adapters: Adapters = Adapters(),
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: str = "none",
        offline: bool = False,
    ) -> "Montage":
        """Load a model and return a montage around it.

        Args:
            model: a preset ('tiny', 'sd15', ...), a diffusers folder, a hub id, or a .safetensors file of a
                whole Stable Diffusion.
            controls: control types, one ControlNet each ('depth', 'canny', 'pose'); none for text only.
            controlnets: Rarely needed: folders or hub ids in place of the model's own: one per control, or one union.
            adapters: LoRAs, an IP-Adapter, other autoencoders.
            device: 'cpu', 'cuda', 'cuda:1', 'mps'; several ('cuda:0,cuda:1') hold the model each, and share windows.
            dtype: of the networks; the canvas is float32 at least.
            offload: 'none', 'model' (networks wait in memory for their turn on the device) or 'sequential' (layers do).
            offline: never ask the network.

        Raises:
            ModelError: the model, a ControlNet or a device is not available; the message says what would work.
            ConfigError: the devices cannot be combined, or not with this offloading.
        """
        controls = [controls] if isinstance(controls, str) else controls
        notes: list[str] = []
        options: dict[str, Any] = {"dtype": dtype, "offload": offload, "offline": offline, "note": notes.append}
        load = partial(loader.load, model, controls, controlnets, adapters=adapters, **options)
        family = families.wrap_replicas(
            [load(device=name) for name in devices.parse_devices(device, offload)], controls
        )
        defaults = registry.PRESETS[model].defaults if model in registry.PRESETS else None
        origin = {"model": model, "controls": tuple(controls), "controlnets": tuple(controlnets), "adapters": adapters}
        add_tiny_vae(family, model, adapters, offline)
        return cls(family, defaults, origin=origin, offline=offline, notes=list(dict.fromkeys(notes)))

    @checked_arguments(MOVED_ARGUMENTS)
    def __call__(
        self,
        prompt: str = "",
        control_map: ControlMaps = None,
        *,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str = "",
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_image: "ImageLike | None" = None,
        regions: Sequence[Region] = (),
        region_map: "ImageLike | None" = None,
        init_image: "ImageLike | None" = None,
        mask: "ImageLike | None" = None,
        img2img: Img2ImgConfig | None = None,
        upscale: UpscaleConfig | None = None,
        seed: int = 0,
        latents: Tensor | None = None,
        sampling: SamplingConfig | None = None,
        windows: WindowConfig | None = None,
        sync: SyncConfig | None = None,
        preset: PresetName = DEFAULT,
        on_step: Callable[[Step], object] | None = None,
    ) -> Result:
        """Generate one wide image. Arguments and errors are those of `steps`.

        Args:
            on_step: called after every denoising step, in this thread; an exception that it raises ends the image.
        """
        steps = self.steps(
            prompt,
            control_map,
            height=height,
            width=width,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            ip_image=ip_image,
            regions=regions,
            region_map=region_map,
            init_image=init_image,
            mask=mask,
            img2img=img2img,
            upscale=upscale,
            seed=seed,
            latents=latents,
            sampling=sampling,
            windows=windows,
            sync=sync,
            preset=preset,
        )
        return _last(steps, on_step)

    def generate(self, spec: ImageSpec, images: InputImages, on_step: Callable[[Step], object] | None = None) -> Result:
        """Generate the image of a spec, all of whose configs are complete. Errors are those of `steps`.

        Args:
            spec: what decides the image; where its sources lie plays no part.
            images: what it is generated from, in place of the files of `spec`.
            on_step: as of a call.
        """
        condition = WindowCondition(
            window=0,
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            reference=images.others.get(IP_IMAGE),
        )
        return _last(self._stages(spec, images, condition, None).steps(), on_step)

    @checked_arguments(MOVED_ARGUMENTS)
    def steps(
        self,
        prompt: str = "",
        control_map: ControlMaps = None,
        *,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str = "",
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_image: "ImageLike | None" = None,
        regions: Sequence[Region] = (),
        region_map: "ImageLike | None" = None,
        init_image: "ImageLike | None" = None,
        mask: "ImageLike | None" = None,
        img2img: Img2ImgConfig | None = None,
        upscale: UpscaleConfig | None = None,
        seed: int = 0,
        latents: Tensor | None = None,
        sampling: SamplingConfig | None = None,
        windows: WindowConfig | None = None,
        sync: SyncConfig | None = None,
        preset: PresetName = DEFAULT,
    ) -> Iterator[Step]:
        """Return an iterator over the denoising steps of one wide image; the last step holds the result.

        Closing the iterator cancels the image and leaves the model as it was.

        Args:
            prompt: what the image shows.
            control_map: an image, array or tensor as `preprocess.to_rgb` takes them, or one per ControlNet, apart from
                that for `inpaint`, which follows `init_image` and `mask`; None generates from text only.
            height: px, at least one window; the init image's if not given, or else the control map's.
            width: px, likewise. With `WindowConfig(loop=True)` it must be whole cells; of an equirectangular
                panorama, twice the height.
            negative_prompt: what the image must not show.
            prompt_embeds: Rarely needed: the encoded prompt (1, tokens, features) in place of a text, likewise the
                negative one, and the pooled ones (1, features) of models that take them, as in diffusers.
            negative_prompt_embeds: as `prompt_embeds`.
            pooled_prompt_embeds: as `prompt_embeds`.
            negative_pooled_prompt_embeds: as `prompt_embeds`.
            ip_image: the image for the model's IP-Adapter, for all windows.
            regions: parts of the image with regional prompts, which stand before the prompt above.
            region_map: an image whose levels of grey are regions (`grey 128`).
            init_image: the image to start from (img2img).
            mask: its white part is generated anew (inpainting).
            img2img: strength, outpainting, feathering of the mask; settings that are not set have their defaults.
            upscale: whether the finished image is upscaled, and how.
            seed: 0 to 2**64 - 1, of the CPU generator that all noise comes from.
            latents: Rarely needed: the initial unit-variance noise (1, c, h, w) in cells, instead of the seed's.
            sampling: settings that change the preset's: `SamplingConfig(steps=3)` changes the steps and nothing else.
            windows: where windows lie; likewise.
            sync: how windows are kept coherent; likewise.
            preset: 'default', 'paper' (SyncDiffusion as published, arXiv 2306.05178), 'fast' or 'best', made for the
                model; `settings` returns its values.

        Raises:
            ConfigError: settings that contradict each other, or a size below one window.
            UnknownArgumentError: there is no such argument; it is a `TypeError` and a `ConfigError`.
            InputError: control maps that do not fit the canvas or the ControlNets.
            ModelError: the objective cannot be loaded.
            MemoryLimitError: the device cannot hold one window.
            NonFiniteError: NaN or infinity in latents or image.
        """
        given = inputs.partial_keys(sampling, windows, sync, img2img, upscale)
        settings = self.settings(preset)
        sampling = inputs.preset_or_override(sampling, settings.sampling, "sampling")
        windows = inputs.preset_or_override(windows, settings.windows, "windows")
        sync = inputs.preset_or_override(sync, settings.sync, "sync")
        others: dict[str, ImageLike | None] = {"region_map": region_map, "init_image": init_image, "mask": mask}
        images = InputImages.from_arguments(control_map, ip_image=ip_image, **others)
        img2img = inputs.preset_or_override(img2img, Img2ImgConfig().complete(), "img2img")
        height, width = images.size(height, width, img2img)
        condition = WindowCondition(
            window=0,
            prompt=inputs.prompt_condition(self.denoiser, "prompt", prompt, prompt_embeds, pooled_prompt_embeds),
            negative_prompt=inputs.prompt_condition(
                self.denoiser, "negative_prompt", negative_prompt, negative_prompt_embeds, negative_pooled_prompt_embeds
            ),
            reference=images.others.get(IP_IMAGE),
        )
        inputs.check_regions(regions, condition.prompt, condition.negative_prompt)
        spec = ImageSpec(
            prompt=inputs.recorded_prompt(condition.prompt),
            negative_prompt=inputs.recorded_prompt(condition.negative_prompt),
            height=height,
            width=width,
            seed=seed,
            sampling=sampling,
            windows=windows,
            sync=sync,
            regions=tuple(regions),
            img2img=img2img,
            upscale=inputs.preset_or_override(upscale, UpscaleConfig().complete(), "upscale"),
            sources=images.sources(),
            **self._origin,
        )
        if not spec.controls and self.denoiser.controls:  # their types are unknown, of a caller's pipeline
            given = [key for key in given if not key.startswith(("control_", "guess_"))]
        return self._stages(spec, images, condition, latents, [for_library(note) for note in spec.idle(given)]).steps()

    def _stages(
        self,
        spec: ImageSpec,
        images: InputImages,
        condition: WindowCondition,
        latents: Tensor | None,
        notes: Sequence[str] = (),
    ) -> Stages:
        inputs.check_controls(self.denoiser, images, spec.sampling, spec.controls)
        notes = [*self._notes, *notes]
        return Stages(self.denoiser, spec, images, condition, latents, self._objective, notes)

    def _objective(self, config: SyncConfig) -> AbstractObjective:
        key = config.objective
        if not isinstance(key, str):
            return objectives.load(key)
        if key not in self._objectives:
            self._objectives[key] = objectives.load(key, offline=self._offline)
        return self._objectives[key]


def _last(steps: Iterator[Step], on_step: Callable[[Step], object] | None) -> Result:
    """Return the result of the last step; `on_step` is called with each."""
    result = None
    for step in steps:
        result = step.result
        if on_step is not None:
            on_step(step)
    assert result is not None
    return result
