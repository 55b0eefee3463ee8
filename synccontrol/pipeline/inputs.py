"""The arguments of a montage, checked: images, sizes, configs and prompts; and the canvas, prepared once."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import ParamSpec, Protocol, TypeAlias, TypeVar

from PIL import Image
from torch import Tensor

from synccontrol.canvas import sphere
from synccontrol.canvas.base import AbstractLayout
from synccontrol.canvas.flat import lay_out
from synccontrol.errors import ConfigError, InputError, UnknownArgumentError
from synccontrol.families.base import AbstractFamily, PromptEmbeds, WindowCondition
from synccontrol.io import images, masks, resize
from synccontrol.pipeline.denoise import StageInputs
from synccontrol.preprocess import ImageLike
from synccontrol.spec.image_spec import (
    EMBEDDED,
    IN_MEMORY,
    INIT_IMAGE,
    INPAINT,
    MASK,
    NO_START,
    REGION_MAP,
    SINGLE,
    ImageSpec,
    Source,
)
from synccontrol.spec.region import Region
from synccontrol.spec.schema import Settings, flags
from synccontrol.spec.settings import (
    EQUIRECTANGULAR,
    Geometry,
    Img2ImgConfig,
    SamplingConfig,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
)

ControlMaps: TypeAlias = "ImageLike | Sequence[ImageLike] | None"
Config = TypeVar("Config", SamplingConfig, WindowConfig, SyncConfig, Img2ImgConfig, UpscaleConfig)
UNCHECKED = "the pipeline's safety checker is not run: it judges single images, not montages"
MOVED_ARGUMENTS = {  # names of earlier versions, and of diffusers -> what to write here
    "compose": "img2img",
    "enlarge": "upscale",
    "extras": "adapters",
    "generator": "seed=0",
    "image": "control_map",
    "num_inference_steps": "sampling=SamplingConfig(steps=50)",
    "callback_on_step_end": "on_step, or the iterator `steps`",
    "controlnet_conditioning_scale": "sampling=SamplingConfig(control_scale=1.0)",
    "ip_adapter_image": "ip_image",
    "num_images_per_prompt": "one call for each seed",
    "strength": "img2img=Img2ImgConfig(strength=0.6)",
    "torch_dtype": "dtype",
    **{
        flag.field: f"{argument}={kind.__name__}({flag.field}={flag.default!r})"
        for argument, kind in (("sync", SyncConfig), ("windows", WindowConfig), ("sampling", SamplingConfig))
        for flag in flags(kind).values()
    },
}

P = ParamSpec("P")
R = TypeVar("R")


def checked_arguments(moved: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that refuses unknown keywords with a line on what to write instead.

    Type checkers see the function's own signature.

    Args:
        moved: names of earlier versions or other libraries -> what to write here.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    raise UnknownArgumentError(f"Montage.{function.__name__}", name, known, moved)
            return function(*args, **kwargs)

        return checked

    return decorate


def preset_or_override(override: Config | None, default: Config, name: str) -> Config:
    """Return the settings of a preset, with the settings of `override` in their place.

    Args:
        override: a config; only settings that were set count. None changes nothing.
        default: of the preset.
        name: of the argument.

    Raises:
        ConfigError: `override` is no such config.
    """
    if override is None:
        return default
    if not isinstance(override, type(default)):
        kind = type(default).__name__
        raise ConfigError(f"{name} is {override!r}; give {kind}(...)", field=name, value=override, hint=f"{kind}(...)")
    return default.overridden_by(override)


def partial_keys(*configs: Settings | None) -> list[str]:
    """Return the keys of the settings that partial configs change; complete configs are left out."""
    return [
        flag.key
        for config in configs
        if isinstance(config, Settings) and len(config.model_fields_set) < len(type(config).model_fields)
        for flag in flags(config).values()
        if flag.field in config.model_fields_set
    ]


MAX_GUIDE_UPSCALE = 8  # a guide enlarged further has no detail left to follow


def canvas_size(
    guide: Image.Image | None, height: int | None, width: int | None, windows: WindowConfig, geometry: Geometry
) -> tuple[int, int]:
    """Return height and width, px: the arguments; else the guide's aspect, its shorter side the model's native one.

    Raises:
        ConfigError: there is neither guide nor size.
        InputError: the guide is so small that nothing is left to follow once it is enlarged.
    """
    native_h, native_w = geometry.window_px
    if guide is None and width is None and height is None:
        raise ConfigError("without a guide the image needs --width in pixels, and --height if not the native one")
    if windows.projection == EQUIRECTANGULAR:
        height, width = sphere.size(height, width, geometry)
    if guide is None:
        return native_h if height is None else height, native_w if width is None else width
    aspect = guide.width / guide.height
    if height is None and width is None:
        height = native_h if aspect >= native_w / native_h else round(native_w / aspect)
    if width is None:
        assert height is not None
        width = round(height * aspect)
        if windows.loop:  # whole cells, or the ring would not close
            width = max(round(width / geometry.cell) * geometry.cell, native_w)
    height = round(width / aspect) if height is None else height
    if min(height, width) > MAX_GUIDE_UPSCALE * min(guide.size):
        needed = -(-min(height, width) // MAX_GUIDE_UPSCALE)
        raise InputError(
            f"the guide is only {guide.width}x{guide.height}: to fill {width}x{height} it would be enlarged more than "
            f"{MAX_GUIDE_UPSCALE} times; its shorter side needs at least {needed} pixels"
        )
    return height, width


def outpainted_size(
    init_image: Image.Image, height: int | None, width: int | None, img2img: Img2ImgConfig
) -> tuple[int, int]:
    """Return height and width, px, of an image with an init image: the arguments, else the init image's, outpainted.

    Raises:
        ConfigError: outpainting adds more than the requested width.
    """
    added = sum(img2img.margins)
    if width is not None and width <= added:
        raise ConfigError(f"width {width} leaves nothing of the image that grows by {added} px; use more")
    old_width = None if width is None else width - added
    if height is None:
        scaled = init_image.height if old_width is None else old_width * init_image.height / init_image.width
        height = round(scaled)
    if old_width is None:
        old_width = round(height * init_image.width / init_image.height)
    return height, old_width + added


class CanvasSettings(Protocol):
    """The settings that a canvas depends on; `ImageSpec` and the recipe of a batch have them."""

    @property
    def sampling(self) -> SamplingConfig: ...
    @property
    def windows(self) -> WindowConfig: ...
    @property
    def img2img(self) -> Img2ImgConfig: ...
    @property
    def fit(self) -> str: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas:
    """The canvas of an image: its size, its windows, and how files come onto it."""

    height: int  # px
    width: int  # px
    layout: AbstractLayout
    sources: Mapping[int | None, Image.Image]  # ready-made control maps by their control's place; None: the guide
    fittings: Mapping[int | None, resize.Fitting]  # of each source
    start: Mapping[str, Image.Image]  # init image and mask by role, at the size of the part that they fill
    notes: tuple[str, ...]  # a line for every image whose aspect changes


def prepare_canvas(
    settings: CanvasSettings,
    size: tuple[int, int],
    geometry: Geometry,
    *,
    sources: Mapping[int | None, Image.Image],
    names: Mapping[int | None, str],
    start: Mapping[str, Image.Image],
) -> Canvas:
    """Return the canvas of an image.

    Args:
        settings: of the image.
        size: height and width, px.
        geometry: the model's native sizes.
        sources: guide and control maps, as in `Canvas`.
        names: what errors call each of them.
        start: init image and mask by their role.

    Raises:
        SyncControlError: an image of that size or stride cannot be generated, or an aspect does not fit.
    """
    height, width = size
    closed = settings.windows.closed
    layout = lay_out(height, width, geometry, settings.windows)
    fittings = {
        place: resize.plan(image, height, width, names[place], settings.fit, closed) for place, image in sources.items()
    }
    notes, fitted = [fitting.note for fitting in fittings.values()], {}
    if start:
        settings.img2img.skipped(settings.sampling.steps)  # raises if no step is left
    for role, image in start.items():
        old_width = width - sum(settings.img2img.margins)
        fitting = resize.plan(image, height, old_width, role.replace("_", " "), settings.fit, closed)
        notes.append(fitting.note)
        fitted[role] = fitting.pad(fitting.apply(image), None)
    return Canvas(
        height=height,
        width=width,
        layout=layout,
        sources=sources,
        fittings=fittings,
        start=fitted,
        notes=tuple(note for note in notes if note),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputImages:
    """The images that a montage is called with, RGB."""

    maps: Sequence[Image.Image]
    others: Mapping[str, Image.Image]  # by role: `IP_IMAGE`, `REGION_MAP`, `INIT_IMAGE`, `MASK`

    @classmethod
    def from_arguments(cls, control_map: ControlMaps, **others: "ImageLike | None") -> "InputImages":
        """Return a caller's images as RGB. Raises `InputError` for an argument that is no image."""
        maps = [] if control_map is None else control_map
        return cls(
            maps=[images.to_rgb(map_) for map_ in (maps if isinstance(maps, Sequence) else [maps])],
            others={role: images.to_rgb(image) for role, image in others.items() if image is not None},
        )

    def size(self, height: int | None, width: int | None, img2img: Img2ImgConfig) -> tuple[int, int]:
        """Return height and width, px: the arguments, else the size of the init image or of the control map.

        Outpainting adds to the width of the init image.

        Raises:
            ConfigError: no size is known, a size is no whole number, or `img2img` has no init image.
        """
        outpainted = sum(img2img.margins)
        if img2img != Img2ImgConfig() and INIT_IMAGE not in self.others:
            raise ConfigError("img2img has settings for an init image, and there is none; give one, or leave it out")
        reference = self.others.get(INIT_IMAGE) or next(iter(self.maps), None)
        if reference is not None:
            height = reference.height if height is None else height
            width = reference.width + (outpainted if INIT_IMAGE in self.others else 0) if width is None else width
        if height is None or width is None:
            raise ConfigError("an image from text only needs a height and a width in pixels")
        for name, value in (("height", height), ("width", width)):
            if not isinstance(value, Integral):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of pixels")
        return int(height), int(width)

    def sources(self) -> tuple[Source, ...]:
        """Return the sources that an `ImageSpec` records for images in memory."""
        return tuple(Source(role=role, path=IN_MEMORY) for role in SINGLE if role in self.others)

    def on_canvas(self, condition: WindowCondition, spec: ImageSpec, latents: Tensor | None, side: int) -> StageInputs:
        """Return the inputs of a stage, fitted to its canvas.

        Args:
            condition: what all windows have in common.
            spec: the image.
            latents: unit-variance noise to start from; None: the seed's.
            side: the shorter side of a window, px.

        Raises:
            InputError: an image has another aspect than the canvas, or a mask is black.
        """
        closed = spec.windows.closed
        maps = [resize.fit(map_, spec.height, spec.width, "control map", closed) for map_ in self.maps]
        init_image, alpha = self.others.get(INIT_IMAGE), None
        if init_image is not None:
            old_width = spec.width - sum(spec.img2img.margins)
            init_image, mask = (
                None if image is None else resize.fit(image, spec.height, old_width, name, closed)
                for image, name in ((init_image, "init image"), (self.others.get(MASK), "mask"))
            )
            assert init_image is not None
            init_image, alpha = masks.prepare_init_image(init_image, mask, spec.img2img, side, closed)
        return StageInputs(
            condition=condition,
            maps=maps,
            region_map=self.others.get(REGION_MAP),
            init_image=init_image,
            alpha=alpha,
            latents=latents,
        )


def check_controls(
    family: AbstractFamily, input_images: InputImages, sampling: SamplingConfig, controls: Sequence[str] = ()
) -> None:
    """Raise `SyncControlError` unless there is one control map for each ControlNet, or none, and a strength for each.

    The control `INPAINT` needs no map: it follows the init image.
    """
    inpainting = controls.count(INPAINT)
    nets, maps = family.controls - inpainting, len(input_images.maps)
    if inpainting and INIT_IMAGE not in input_images.others:
        raise ConfigError(NO_START)
    if maps != nets and (maps or inpainting):
        raise InputError(
            f"{maps} control maps were given for {nets} ControlNets"
            + (" beside that for inpaint; give one for each" if inpainting else "; give one for each, or none")
        )
    sampling.check_controls(family.controls)


def prompt_condition(
    family: AbstractFamily, name: str, text: str, embeds: Tensor | None, pooled: Tensor | None
) -> str | PromptEmbeds:
    """Return a prompt: a text, or embeddings that fit the model. Raises `ConfigError` as `embeddings`."""
    encoded = embeddings(name, text, embeds, pooled)
    if encoded:
        family.check_encoded(encoded)
    return encoded or text


def embeddings(name: str, text: object, embeds: Tensor | None, pooled: Tensor | None) -> PromptEmbeds:
    """Return an encoded prompt, or an empty tuple if the prompt is a text.

    Raises:
        ConfigError: the text is no text, there are both text and embeddings, or pooled embeddings alone.
    """
    tensors = tuple(tensor for tensor in (embeds, pooled) if tensor is not None)
    if not isinstance(text, str):
        raise ConfigError(f"the {name.replace('_', ' ')} is {text!r}; it must be text")
    if not tensors:
        return ()
    if text or embeds is None:
        raise ConfigError(
            f"give either a {name.replace('_', ' ')}, or {name}_embeds (with pooled ones, where the model takes them)"
        )
    if any(not isinstance(tensor, Tensor) for tensor in tensors):
        raise ConfigError(f"{name}_embeds are {type(embeds).__name__}; give a tensor (1, tokens, features)")
    return tensors


def recorded_prompt(prompt: str | PromptEmbeds) -> str:
    """Return a prompt as recorded in settings."""
    return prompt if isinstance(prompt, str) else EMBEDDED


def check_regions(regions: Sequence[Region], *prompts: str | PromptEmbeds) -> None:
    """Raise `ConfigError` unless regions are `Region` objects, and the prompts of the whole image are texts."""
    if isinstance(regions, str) or not all(isinstance(region, Region) for region in regions):
        raise ConfigError("regions are a list of Region(area='0-35%', prompt='a forest')")
    if regions and not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError("regional prompts are texts and cannot be joined with embeddings; give all prompts as texts")
