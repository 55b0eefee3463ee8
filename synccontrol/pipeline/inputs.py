"""What a montage is called with: pictures, sizes, configs and encoded prompts, or a line on what is wrong with them."""

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
from synccontrol.families.base import AbstractFamily, Encoded, View
from synccontrol.io import images, masks, resize
from synccontrol.pipeline.denoise import Given
from synccontrol.preprocess import ImageLike
from synccontrol.spec.image_spec import (
    EMBEDDED,
    INIT_IMAGE,
    INPAINT,
    MASK,
    NO_FILE,
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
UNCHECKED = "the pipeline's safety checker is not run: it judges single pictures, no montages"
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


def config(given: Config | None, default: Config, name: str) -> Config:
    """Return the settings of a preset with those that are given in their place.

    Args:
        given: a config, of which the settings that were set count; None: there are none.
        default: the preset's.
        name: the argument's.

    Raises:
        ConfigError: it is something else.
    """
    if given is None:
        return default
    if not isinstance(given, type(default)):
        kind = type(default).__name__
        raise ConfigError(f"{name} is {given!r}; give {kind}(...)", field=name, value=given, hint=f"{kind}(...)")
    return default.overridden_by(given)


def partial_keys(*configs: Settings | None) -> list[str]:
    """Return the keys of the settings that partial configs change; complete ones change nothing in particular."""
    return [
        flag.key
        for given in configs
        if isinstance(given, Settings) and len(given.model_fields_set) < len(type(given).model_fields)
        for flag in flags(given).values()
        if flag.field in given.model_fields_set
    ]


LARGEST_ENLARGEMENT = 8  # a guide enlarged further has nothing left to follow


def canvas_size(
    guide: Image.Image | None, height: int | None, width: int | None, windows: WindowConfig, geometry: Geometry
) -> tuple[int, int]:
    """Return height and width, px: as asked; else the guide's aspect, its shorter side the model's native one.

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
    if min(height, width) > LARGEST_ENLARGEMENT * min(guide.size):
        needed = -(-min(height, width) // LARGEST_ENLARGEMENT)
        raise InputError(
            f"the guide is only {guide.width}x{guide.height}: to fill {width}x{height} it would be enlarged more than "
            f"{LARGEST_ENLARGEMENT} times; its shorter side needs at least {needed} pixels"
        )
    return height, width


def outpainted_size(
    init_image: Image.Image, height: int | None, width: int | None, img2img: Img2ImgConfig
) -> tuple[int, int]:
    """Return height and width, px, of an image that starts from another: as asked, else the other's, outpainted.

    Raises:
        ConfigError: outpainting adds more than the width that is asked for.
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
    start: Mapping[str, Image.Image]  # init image and mask by their role, at the size of the part that they fill
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
        fitted[role] = fitting.pad(fitting.show(image), None)
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
    others: Mapping[str, Image.Image]  # by their role in `ImageSpec`: one of `IP_IMAGE`, `REGION_MAP`, `INIT_IMAGE`

    @classmethod
    def from_arguments(cls, control_map: ControlMaps, **others: "ImageLike | None") -> "InputImages":
        """Return a caller's images as RGB. Raises `InputError` for an argument that is no image."""
        maps = [] if control_map is None else control_map
        return cls(
            maps=[images.to_rgb(map_) for map_ in (maps if isinstance(maps, Sequence) else [maps])],
            others={role: images.to_rgb(picture) for role, picture in others.items() if picture is not None},
        )

    def size(self, height: int | None, width: int | None, img2img: Img2ImgConfig) -> tuple[int, int]:
        """Returns height and width, px: as asked, or those of what is started from, or else of the control map.

        What is started from grows in width as `img2img` says.

        Raises:
            ConfigError: there is none of them, one is no whole number, or there is nothing to start from.
        """
        grown = sum(img2img.margins)
        if img2img != Img2ImgConfig() and INIT_IMAGE not in self.others:
            raise ConfigError(
                "img2img says how an init image is drawn anew, and there is none; give one, or leave it out"
            )
        shown = [self.others[INIT_IMAGE]] if INIT_IMAGE in self.others else [*self.maps[:1]]
        height = shown[0].height if shown and height is None else height
        width = shown[0].width + (grown if INIT_IMAGE in self.others else 0) if shown and width is None else width
        if height is None or width is None:
            raise ConfigError("a picture from text only needs a height and a width in pixels")
        for name, value in (("height", height), ("width", width)):
            if not isinstance(value, Integral):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of pixels")
        return int(height), int(width)

    def sources(self) -> tuple[Source, ...]:
        """Returns what a `ImageSpec` says of them: they are no files."""
        return tuple(Source(role=role, path=NO_FILE) for role in SINGLE if role in self.others)

    def on_canvas(self, view: View, picture: ImageSpec, latents: Tensor | None, side: int) -> Given:
        """Returns what a picture is drawn from, with windows whose shorter side is so many px.

        Raises:
            InputError: an aspect is another than the canvas's, or a mask is black.
        """

        def fit(shown: Image.Image, what: str) -> Image.Image:
            return resize.fit(shown, picture.height, picture.width, what, picture.windows.closed)

        start, new = self.others.get(INIT_IMAGE), None
        if start is not None:
            kept = picture.width - sum(picture.img2img.margins)
            start, mask = (
                None if shown is None else resize.fit(shown, picture.height, kept, what, picture.windows.closed)
                for shown, what in ((start, "init image"), (self.others.get(MASK), "mask"))
            )
            assert start is not None
            start, new = masks.prepare_init_image(start, mask, picture.img2img, side, picture.windows.closed)
        return Given(
            view=view,
            maps=[fit(map_, "control map") for map_ in self.maps],
            region_map=self.others.get(REGION_MAP),
            init_image=start,
            new=new,
            latents=latents,
        )


def check_controls(
    family: AbstractFamily, shown: InputImages, sampling: SamplingConfig, controls: Sequence[str] = ()
) -> None:
    """Raises `SyncControlError` unless there are maps for all ControlNets or none, and strengths for all.

    Those for `INPAINT`, of these controls, need none: they follow the picture that is started from.
    """
    own = controls.count(INPAINT)
    nets, given = family.controls - own, len(shown.maps)
    if own and INIT_IMAGE not in shown.others:
        raise ConfigError(NO_START)
    if given != nets and (given or own):
        raise InputError(
            f"{given} control maps were given for {nets} ControlNets"
            + (" beside that for inpaint; give one for each" if own else "; give one for each, or none")
        )
    sampling.check_controls(family.controls)


def said(family: AbstractFamily, name: str, text: str, embeds: Tensor | None, pooled: Tensor | None) -> str | Encoded:
    """Returns a prompt: a text, or an encoded one that fits the model. Raises `ConfigError` as `embeddings`."""
    encoded = embeddings(name, text, embeds, pooled)
    if encoded:
        family.check_encoded(encoded)
    return encoded or text


def embeddings(name: str, text: object, embeds: Tensor | None, pooled: Tensor | None) -> Encoded:
    """Returns an encoded prompt; an empty one where a text is given.

    Raises:
        ConfigError: there is no text, or both, or pooled states alone.
    """
    given = tuple(one for one in (embeds, pooled) if one is not None)
    if not isinstance(text, str):
        raise ConfigError(f"the {name.replace('_', ' ')} is {text!r}; it must be text")
    if not given:
        return ()
    if text or embeds is None:
        raise ConfigError(f"give either a {name.replace('_', ' ')}, or {name}_embeds with what belongs to them")
    if any(not isinstance(one, Tensor) for one in given):
        raise ConfigError(f"{name}_embeds are {type(embeds).__name__}; give a tensor (1, tokens, features)")
    return given


def recorded(prompt: str | Encoded) -> str:
    """Returns a prompt as settings say it."""
    return prompt if isinstance(prompt, str) else EMBEDDED


def check_regions(regions: Sequence[Region], *prompts: str | Encoded) -> None:
    """Raises `ConfigError` unless regions are regions, and the prompts that follow theirs are texts."""
    if isinstance(regions, str) or not all(isinstance(region, Region) for region in regions):
        raise ConfigError("regions are a list of Region(area='0-35%', prompt='a forest')")
    if regions and not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError("regions have prompts in words, which encoded ones cannot follow; give all in words")
