"""A model's native sizes."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

from synccontrol.errors import ConfigError
from synccontrol.spec.schema import flags as flags
from synccontrol.spec.schema import option, require, require_before, require_choice, require_number, require_whole
from synccontrol.spec.schema import record as record

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """A model's native sizes."""

    window: tuple[int, int]  # height, width in cells
    cell: int  # pixels per cell
    channels: int  # of a latent

    @property
    def window_px(self) -> tuple[int, int]:
        """Returns the window's height and width in pixels."""
        return self.window[0] * self.cell, self.window[1] * self.cell


MODEL = "model"  # whatever the model comes with


class Scheduler(NamedTuple):
    """What others call a scheduler."""

    diffusers: str  # its class; empty: whatever the model comes with
    automatic1111: str


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType(
    {
        MODEL: Scheduler("", "model default"),
        "ddim": Scheduler("DDIMScheduler", "DDIM"),
        "euler": Scheduler("EulerDiscreteScheduler", "Euler"),
        "euler_a": Scheduler("EulerAncestralDiscreteScheduler", "Euler a"),
        "dpmpp_2m": Scheduler("DPMSolverMultistepScheduler", "DPM++ 2M"),
        "unipc": Scheduler("UniPCMultistepScheduler", "UniPC"),
    }
)


MIDDLE = "middle"
WEIGHTS = ("uniform", "ramp", "gaussian")
GRADIENTS = ("full", "x0")
STEP_SIZES = ("gradient", "rms")
AGAIN, ONCE = PREDICTS = ("again", "once")
FLAT, EQUIRECTANGULAR = "flat", "equirectangular"
PROJECTIONS = (FLAT, EQUIRECTANGULAR)
OBJECTIVES = ("lpips", "lpips-alex", "lpips-squeeze", "stlpips", "stlpips-vgg")
LEAST_SIDE = {"lpips": 32, "lpips-alex": 63, "lpips-squeeze": 17, "stlpips": 24, "stlpips-vgg": 20}  # px they can see
FITS = ("exact", "crop", "pad", "stretch")
LARGEST_SEED = 2**64 - 1


Objective: TypeAlias = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def check_seed(seed: object) -> None:
    """Raises `ConfigError` for what is no seed of a picture."""
    require(
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST_SEED,
        f"seed is {seed!r}; it must be a whole number between 0 and {LARGEST_SEED}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the canvas is denoised. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    steps: int = option(50, "denoising steps")
    guidance_scale: float = option(7.5, "classifier-free guidance; 1 turns it off")
    guidance_start: float = option(0.0, "fraction of the steps at which guidance starts, 0..1")
    guidance_end: float = option(1.0, "fraction of the steps at which it ends, 0..1; steps without it cost half")
    guidance_rescale: float = option(0.0, "how far guidance keeps the contrast of the unguided prediction, 0..1")
    clip_skip: int = option(0, "last layers of the CLIP text encoders that are left out (AUTOMATIC1111 counts from 1)")
    control_scale: float | tuple[float, ...] = option(1.0, "strength of the control, one for all or one per control")
    control_start: float | tuple[float, ...] = option(0.0, "fraction of the steps at which the control starts, 0..1")
    control_end: float | tuple[float, ...] = option(1.0, "fraction of the steps at which the control ends, 0..1")
    guess_mode: bool = option(False, "let the control act on the prompted half only, deeper layers more strongly")
    scheduler: str = option(MODEL, "sampler; 'model' is the model's own", choices=SCHEDULERS)

    def __post_init__(self) -> None:
        for name in ("control_scale", "control_start", "control_end"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        require_whole("steps", self.steps, 1)
        require_number("guidance scale", self.guidance_scale, 1.0)
        require_number("guidance start", self.guidance_start, 0.0, 1.0)
        require_number("guidance end", self.guidance_end, 0.0, 1.0)
        require_before("guidance", self.guidance_start, self.guidance_end)
        require_number("guidance rescale", self.guidance_rescale, 0.0, 1.0)
        require_whole("clip skip", self.clip_skip, 0)
        require_number("control scale", self.control_scale, 0.0)
        require_number("control start", self.control_start, 0.0, 1.0)
        require_number("control end", self.control_end, 0.0, 1.0)
        require_before("control", self.control_start, self.control_end)
        require_choice("scheduler", self.scheduler, SCHEDULERS)

    def guided(self, index: int, steps: int) -> bool:
        """Returns whether step `index` (from 0) of `steps` is guided: it lies wholly between start and end.

        Guidance in an interval of the levels: arXiv 2404.07724.
        """
        return (
            self.guidance_scale > 1
            and self.guidance_start <= index / steps
            and (index + 1) / steps <= self.guidance_end
        )

    def check_controls(self, controls: int) -> None:
        """Raises `ConfigError` unless every strength is one for all of so many controls, or one for each."""
        for name in ("control_scale", "control_start", "control_end"):
            value = getattr(self, name)
            require(
                not isinstance(value, tuple) or len(value) == controls,
                f"{name.replace('_', ' ')} has {len(value) if isinstance(value, tuple) else 1} values for {controls} "
                "controls; give one for all, or one for each",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Where windows lie and how they blend. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = "window-"  # of flags

    stride: int = option(16, "cells between neighbouring windows; below the window's size", flag="stride")
    batch: int = option(4, "windows in one network call; changes memory and speed only")
    loop: bool = option(False, "close the picture to a ring: the right edge continues at the left", flag="loop")
    weights: str = option("uniform", "weights of overlapping windows; uniform is MultiDiffusion's", choices=WEIGHTS)
    projection: str = option(
        FLAT, "a flat picture, or the whole sphere (360 x 180 degrees)", flag="projection", choices=PROJECTIONS
    )

    @property
    def closed(self) -> bool:
        """Returns whether the picture's right edge continues at its left."""
        return self.loop or self.projection == EQUIRECTANGULAR

    def __post_init__(self) -> None:
        require_whole("stride", self.stride, 1)
        require_whole("window batch", self.batch, 1)
        require_choice("window weights", self.weights, WEIGHTS)
        require_choice("projection", self.projection, PROJECTIONS)
        require(
            not (self.loop and self.projection == EQUIRECTANGULAR),
            "loop and projection equirectangular exclude each other: a sphere closes by itself; leave out the loop",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """How windows are kept coherent (SyncDiffusion, arXiv 2306.05178). Raises `ConfigError` for a bad value."""

    prefix: ClassVar[str] = "sync-"  # of flags

    weight: float = option(20.0, "size of the nudge (see the step size); 0: the objective does nothing")
    steps: int = option(5, "denoising steps, from the first, in which the objective acts")
    every: int = option(1, "of those steps, every how-manieth syncs")
    decay: float = option(0.95, "factor on the weight per denoising step, 0..1")
    gradient: str = option("full", "through the networks (the paper's), or at x0 only (cheaper)", choices=GRADIENTS)
    step_size: str = option(
        "gradient",
        "what the weight multiplies: the gradient (the paper's), or the gradient at RMS 0.003 per window",
        choices=STEP_SIZES,
    )
    predict: str = option(
        AGAIN,
        "whether a nudged window is predicted again (the paper's), or once: it keeps the prediction of its gradient",
        choices=PREDICTS,
    )
    objective: str | Objective = option(
        "lpips", "perceptual distance to the anchor", flag="objective", choices=OBJECTIVES
    )
    shrink: int = option(1, "factor by which the objective sees the windows smaller")
    adain: float = option(
        0.0, "how far windows take on mean and deviation of the anchor's latents, 0..1; 0 turns it off"
    )
    adain_steps: int = option(6, "denoising steps, from the first, in which they do")
    across: float = option(0.1, "how far regions take on the anchor's statistics in place of their own anchor's, 0..1")
    scaffold: float = option(
        0.0,
        "how far a canvas is drawn anew over a rough picture of all of it in one window, 0..1; 0: there is none",
    )
    scaffold_noise: float = option(
        1.0, "factor on the noise that is laid over the rough picture, 0..2; above 1: more detail, less of one scene"
    )
    anchor: "int | str | Image.Image" = option(
        MIDDLE,
        "window that the others follow: middle, an index from the top left, or an image",
        flag="anchor",
    )
    skipped: int = dataclasses.field(default=0, init=False)  # denoising steps that `later` left out, from the first

    def __post_init__(self) -> None:
        require_number("sync weight", self.weight, 0.0)
        require_whole("sync steps", self.steps, 0)
        require_whole("sync every", self.every, 1)
        require_number("sync decay", self.decay, 0.0, 1.0)
        require_choice("sync gradient", self.gradient, GRADIENTS)
        require_choice("sync step size", self.step_size, STEP_SIZES)
        require_choice("sync predict", self.predict, PREDICTS)
        require_whole("sync shrink", self.shrink, 1)
        require_number("sync adain", self.adain, 0.0, 1.0)
        require_whole("sync adain steps", self.adain_steps, 0)
        require_number("sync across", self.across, 0.0, 1.0)
        require_number("sync scaffold", self.scaffold, 0.0, 1.0)
        require_number("sync scaffold noise", self.scaffold_noise, 0.0, 2.0)
        if not callable(self.objective):
            require_choice("objective", self.objective, OBJECTIVES)
        if self.anchor != MIDDLE and (isinstance(self.anchor, bool) or not isinstance(self.anchor, int)):
            from PIL import Image

            require(
                isinstance(self.anchor, Image.Image),
                f"anchor is {self.anchor!r}; it must be {MIDDLE}, the index of a window, or a PIL picture",
            )

    @property
    def active(self) -> bool:
        """Returns whether sync does anything at all."""
        return self.perceptual or (self.adain > 0 and self.adain_steps > self.skipped)

    @property
    def perceptual(self) -> bool:
        """Returns whether the objective has anything to do."""
        return self.weight > 0 and self.steps > self.skipped

    def later(self, skipped: int) -> "SyncConfig":
        """Returns what is left of it when so many denoising steps, from the first, are left out."""
        left = dataclasses.replace(self)
        object.__setattr__(left, "skipped", skipped)
        return left

    def check_side(self, side: int) -> None:
        """Raises `ConfigError` when windows of that side, px, are too small for the objective once they are shrunk."""
        least = LEAST_SIDE[self.objective] if isinstance(self.objective, str) else 1
        require(
            not self.perceptual or side // self.shrink >= least,
            f"sync shrink {self.shrink} leaves {side // self.shrink} px of a window of {side} px, and objective "
            f"{self.objective} needs {least}; use at most {max(side // least, 1)}"
            + (", or another objective" if side < least else ""),
        )

    def due(self, index: int) -> bool:
        """Returns whether the objective moves the windows at denoising step `index` (from 0) of those that are left."""
        return self.perceptual and (step := index + self.skipped) < self.steps and step % self.every == 0

    def adain_due(self, index: int) -> bool:
        """Returns whether windows take on the anchor's statistics at denoising step `index` (from 0)."""
        return self.adain > 0 and index + self.skipped < self.adain_steps

    def further_looks(self, index: int) -> int:
        """Returns how often the networks see each window but the anchor at a step, beyond the first time."""
        due, restyled = self.due(index), self.adain_due(index)
        again = self.predict == AGAIN and (due or restyled)
        # A gradient through the networks is taken of a prediction of its own, where the first one was made without.
        own = due and self.gradient == "full" and (restyled or self.predict == ONCE)
        return int(again) + int(own)

    def weight_at(self, index: int) -> float:
        """Returns w_i = weight * decay^i, the weight at denoising step `index` (paper, section 4.2)."""
        return self.weight * self.decay ** (index + self.skipped)


CHOSEN = -1.0  # a strength that follows from what is done
REDRAWN, REPAINTED = 0.6, 1.0  # the strength of a whole picture; of what a mask or an extension leaves free
LEFT, RIGHT, BOTH = SIDES = ("left", "right", "both")
DRAWN, KEPT = COLOURS = ("drawn", "kept")


class Margins(NamedTuple):
    """By how much a picture grows, px."""

    left: int
    right: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Img2ImgConfig:
    """How a picture starts from another one. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    strength: float = option(CHOSEN, "how far the picture that is started from is drawn anew, above 0, up to 1")
    colours: str = option(
        DRAWN,
        "colours of larger parts: as they are drawn, or as the picture has them that is started from",
        choices=COLOURS,
    )
    extend: str = option("", "side and pixels by which the picture grows: left 256, right 256, or both 256")
    mask_soft: float = option(0.125, "how wide what is repainted passes into what is kept, in sides of a window")

    def __post_init__(self) -> None:
        if self.strength != CHOSEN:
            require_number("strength", self.strength, 0.0, 1.0)
            require(self.strength > 0, "strength is 0, which leaves the picture as it is; it must be above 0, up to 1")
        require_choice("colours", self.colours, COLOURS)
        require_number("mask soft", self.mask_soft, 0.0, 1.0)
        self.margins  # noqa: B018 it raises where it cannot be read

    @property
    def margins(self) -> Margins:
        """Returns by how much the picture grows; of both sides, each by half."""
        side, _, pixels = self.extend.strip().partition(" ")
        if not side:
            return Margins(0, 0)
        require_choice("side to extend", side, SIDES)
        number = int(pixels) if pixels.isascii() and pixels.strip().isdecimal() else 0
        if number < 1:
            raise ConfigError(f"extend is {self.extend!r}; write a side and pixels, like 'right 256'")
        left = {LEFT: number, RIGHT: 0, BOTH: number // 2}[side]
        return Margins(left, number - left)

    def chosen(self, repaints: bool) -> "Img2ImgConfig":
        """Returns it with a strength; `repaints` says whether there is a mask or an extension."""
        if self.strength != CHOSEN:
            return self
        return dataclasses.replace(self, strength=REPAINTED if repaints or self.extend else REDRAWN)

    def skipped(self, steps: int) -> int:
        """Returns how many of so many denoising steps are left out, from the first: the rule of diffusers' pipelines.

        Raises:
            ConfigError: that would be all of them.
        """
        left = min(int(steps * self.chosen(False).strength), steps)
        require(
            left > 0,
            f"strength {self.strength:g} leaves none of {steps} steps; use at least {1 / steps:.2g}, or more steps",
        )
        return steps - left


TIMES = (1, 2, 4)
ROWS, UPSCALE = TALL = ("rows", "upscale")
AT_ONCE = 2  # times that a picture is enlarged before it is drawn over

Size = tuple[int, int]  # height, width, px


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscaleConfig:
    """How a finished picture is enlarged. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    upscale: int = option(1, "times that the finished picture is enlarged and drawn over: 1, 2 or 4")
    upscale_strength: float = option(0.3, "how far it is drawn anew then, above 0, up to 1; one step at least")
    upscale_colours: str = option(
        KEPT, "colours of larger parts then: as they are drawn, or as the picture had them", choices=COLOURS
    )
    tall: str = option(
        ROWS,
        "how a landscape higher than a window is drawn: in rows of windows, or as one row that is upscaled",
        choices=TALL,
    )

    def __post_init__(self) -> None:
        require(self.upscale in TIMES, f"upscale is {self.upscale!r}; it must be 1, 2 or 4")
        require_number("upscale strength", self.upscale_strength, 0.0, 1.0)
        require(self.upscale_strength > 0, "upscale strength is 0, which would only upscale; it must be above 0")
        require_choice("upscale colours", self.upscale_colours, COLOURS)
        require_choice("tall", self.tall, TALL)

    def over(self, steps: int) -> Img2ImgConfig:
        """Returns how a pass starts from the enlarged picture: of so many steps one is drawn at least."""
        return drawn_over(self.upscale_strength, steps, self.upscale_colours)

    def one_row(self, size: Size, geometry: Geometry, windows: WindowConfig) -> Size | None:
        """Returns the size at which a landscape that is higher than a window is drawn in one row; None: as it is."""
        (height, width), (window_h, window_w) = size, geometry.window_px
        small = round(width * window_h / height)
        if windows.loop:
            small = round(small / geometry.cell) * geometry.cell
        if self.tall == ROWS or windows.projection != FLAT or not window_h < height < width or small < window_w:
            return None
        return window_h, small

    def sizes(self, size: Size, geometry: Geometry, windows: WindowConfig, starts: bool) -> tuple[Size, ...]:
        """Returns the sizes that a picture is drawn at, one after the other; the last is that of what comes out.

        Args:
            size: that is asked for, before it is upscaled.
            geometry: the model's native sizes.
            windows: how windows lie.
            starts: from another picture, which says what is where, so that rows of windows need no other.
        """
        height, width = size
        row = None if starts else self.one_row(size, geometry, windows)
        found, last = [row or size], (height * self.upscale, width * self.upscale)
        while found[-1] != last:
            h, w = (AT_ONCE * side for side in found[-1])
            found.append((h, w) if h < last[0] else last)
        return tuple(found)


def drawn_over(strength: float, steps: int, colours: str = DRAWN) -> Img2ImgConfig:
    least = (1 + 1e-9) / steps  # or it might be rounded to less than one
    return Img2ImgConfig(strength=min(max(strength, least), 1.0), colours=colours)


AUTO = "auto"  # the small autoencoder that is known to fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapters:
    """LoRAs, an IP-Adapter, other autoencoders. Raises `ConfigError` for a value outside its range."""

    prefix: ClassVar[str] = ""  # of flags

    lora: tuple[str, ...] = option(
        (), "LoRA: file, folder or hub id, with a weight or none (a.safetensors:0.8); repeat it"
    )
    ip_adapter: str = option("", "IP-Adapter: hub id, or file in a folder or on the hub")
    ip_scale: float = option(1.0, "strength of the IP-Adapter")
    vae: str = option("", "autoencoder in place of the model's own: file, folder or hub id")
    tiny_vae: str = option(
        "", "small autoencoder (TAESD) that the objective and previews look through: auto, folder or hub id"
    )

    def __post_init__(self) -> None:
        if isinstance(self.lora, str) or not all(isinstance(one, str) for one in self.lora):
            raise ConfigError(f"lora is {self.lora!r}; give a list of files, folders or hub ids")
        object.__setattr__(self, "lora", tuple(self.lora))
        require_number("ip scale", self.ip_scale, 0.0)

    @property
    def loras(self) -> list[tuple[str, float]]:
        """Returns where each LoRA comes from, and its weight; 1 where none is given."""
        return [_weighted(one) for one in self.lora]

    @property
    def unweighed(self) -> "Adapters":
        """Returns the same, each with its full strength: what is to be loaded, however strong it is then."""
        return dataclasses.replace(self, lora=tuple(source for source, _ in self.loras), ip_scale=1.0)


def _weighted(lora: str) -> tuple[str, float]:
    source, _, weight = lora.rpartition(":")
    try:
        return (source, float(weight)) if source else (lora, 1.0)
    except ValueError:  # a colon in a file name
        return lora, 1.0
