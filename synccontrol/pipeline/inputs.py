"""What a montage is called with: pictures, sizes, configs and encoded prompts, or a line on what is wrong with them."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import ParamSpec, TypeAlias, TypeVar

from PIL import Image
from torch import Tensor

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
from synccontrol.spec.schema import flags
from synccontrol.spec.settings import Img2ImgConfig, SamplingConfig, SyncConfig, UpscaleConfig, WindowConfig

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures that a montage is called with, RGB."""

    maps: Sequence[Image.Image]
    others: Mapping[str, Image.Image]  # by their role in `ImageSpec`: one of `IP_IMAGE`, `REGION_MAP`, `INIT_IMAGE`

    @classmethod
    def given(cls, control_map: ControlMaps, **others: "ImageLike | None") -> "Pictures":
        """Returns what a user holds, as RGB. Raises `InputError` for what is no picture."""
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
            start, new = masks.placed(start, mask, picture.img2img, side, picture.windows.closed)
        return Given(
            view=view,
            maps=[fit(map_, "control map") for map_ in self.maps],
            region_map=self.others.get(REGION_MAP),
            init_image=start,
            new=new,
            latents=latents,
        )


def check_controls(
    family: AbstractFamily, shown: Pictures, sampling: SamplingConfig, controls: Sequence[str] = ()
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
