"""The settings of an image: the only home of their names, types, ranges, units and defaults."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from pydantic import PrivateAttr

from synccontrol.errors import ConfigError
from synccontrol.spec.schema import Settings, out_of_order, require, require_choice, setting
from synccontrol.spec.schema import flags as flags
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


if TYPE_CHECKING:
    Objective: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    AnyObjective: TypeAlias = str | Objective
    Anchor: TypeAlias = int | str | Image.Image
else:
    Objective = AnyObjective = Anchor = Any  # their classes take seconds to load

FRACTION: Mapping[str, Any] = MappingProxyType({"minimum": 0.0, "maximum": 1.0})


def check_seed(seed: object) -> None:
    """Raises `ConfigError` for what is no seed of a picture."""
    require(
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST_SEED,
        f"seed is {seed!r}; it must be a whole number between 0 and {LARGEST_SEED}",
    )


class SamplingConfig(Settings):
    """How the canvas is denoised. Given to a montage, the settings that are set change its preset's."""

    steps: int = setting(50, "denoising steps", minimum=1)
    guidance_scale: float = setting(7.5, "classifier-free guidance; 1 turns it off", minimum=1.0)
    guidance_start: float = setting(0.0, "fraction of the steps at which guidance starts, 0..1", **FRACTION)
    guidance_end: float = setting(
        1.0, "fraction of the steps at which guidance ends, 0..1; steps without it cost half", **FRACTION
    )
    guidance_rescale: float = setting(
        0.0, "how far guidance keeps the contrast of the unguided prediction, 0..1", **FRACTION
    )
    clip_skip: int = setting(
        0, "last layers of the CLIP text encoders that are left out (AUTOMATIC1111 counts from 1)", minimum=0
    )
    control_scale: float | tuple[float, ...] = setting(
        1.0, "strength of the control, one for all or one per control", minimum=0.0, per_control=True
    )
    control_start: float | tuple[float, ...] = setting(
        0.0, "fraction of the steps at which the control starts, 0..1", per_control=True, **FRACTION
    )
    control_end: float | tuple[float, ...] = setting(
        1.0, "fraction of the steps at which the control ends, 0..1", per_control=True, **FRACTION
    )
    guess_mode: bool = setting(False, "let the control act on the prompted half only, deeper layers more strongly")
    scheduler: str = setting(MODEL, "diffusers scheduler; 'model' is the model's own", choices=SCHEDULERS)

    def check(self) -> None:
        if not self.guidance_start < self.guidance_end:
            raise out_of_order("guidance", self.guidance_start, self.guidance_end)
        starts, ends = (
            value if isinstance(value, tuple) else (value,) for value in (self.control_start, self.control_end)
        )
        count = max(len(starts), len(ends))  # a single value stands for all controls
        starts, ends = (values * count if len(values) == 1 else values for values in (starts, ends))
        for start, end in zip(starts, ends, strict=False):
            if not start < end:
                raise out_of_order("control", start, end)

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
        for flag in flags(self).values():
            value = getattr(self, flag.field)
            if flag.setting.per_control and isinstance(value, tuple) and len(value) != controls:
                raise ConfigError(
                    f"{flag.words} has {len(value)} values for {controls} controls; give one for all, or one for each",
                    field=flag.field,
                )


class WindowConfig(Settings):
    """Where windows lie and how they blend. Given to a montage, the settings that are set change its preset's."""

    prefix: ClassVar[str] = "window-"

    stride: int = setting(16, "cells between neighbouring windows; below the window's size", flag="stride", minimum=1)
    batch: int = setting(4, "windows in one network call; changes memory and speed only", minimum=1)
    loop: bool = setting(
        False, "close the image to a ring (cylindrical panorama): the right edge continues at the left", flag="loop"
    )
    weights: str = setting("uniform", "weights of overlapping windows; uniform is MultiDiffusion's", choices=WEIGHTS)
    projection: str = setting(
        FLAT,
        "a flat image, or a whole sphere (equirectangular, 360 x 180 degrees)",
        flag="projection",
        choices=PROJECTIONS,
    )

    @property
    def closed(self) -> bool:
        """Returns whether the image's right edge continues at its left."""
        return self.loop or self.projection == EQUIRECTANGULAR

    def check(self) -> None:
        if self.loop and self.projection == EQUIRECTANGULAR:
            raise ConfigError(
                "loop and projection equirectangular exclude each other: a sphere closes by itself; leave out the loop",
                field="loop",
            )


class SyncConfig(Settings):
    """How windows are kept coherent (SyncDiffusion, arXiv 2306.05178).

    Given to a montage, the settings that are set change its preset's.
    """

    prefix: ClassVar[str] = "sync-"
    renamed: ClassVar[Mapping[str, str]] = {
        "scaffold": "draft_strength",
        "scaffold_noise": "draft_noise",
        "across": "shared_style",
    }

    weight: float = setting(20.0, "size of the nudge (see the step size); 0: the objective does nothing", minimum=0.0)
    steps: int = setting(5, "denoising steps, from the first, in which the objective acts", minimum=0)
    every: int = setting(1, "interval between synced steps: 1 syncs in each, 2 in every second one", minimum=1)
    decay: float = setting(0.95, "factor on the weight per denoising step, 0..1", **FRACTION)
    gradient: str = setting("full", "through the networks (the paper's), or at x0 only (cheaper)", choices=GRADIENTS)
    step_size: str = setting(
        "gradient",
        "what the weight multiplies: the gradient (the paper's), or the gradient at RMS 0.003 per window",
        choices=STEP_SIZES,
    )
    predict: str = setting(
        AGAIN,
        "a nudged window is predicted again (the paper's), or once: it keeps the prediction of its gradient",
        choices=PREDICTS,
    )
    objective: AnyObjective = setting(
        "lpips", "perceptual distance to the anchor", flag="objective", choices=OBJECTIVES
    )
    shrink: int = setting(1, "factor by which windows are downscaled for the objective", minimum=1)
    adain: float = setting(
        0.0,
        "style alignment: how far windows take on mean and deviation of the anchor's latents (AdaIN), 0..1; 0: off",
        **FRACTION,
    )
    adain_steps: int = setting(6, "denoising steps, from the first, with style alignment", minimum=0)
    shared_style: float = setting(
        0.1,
        "share of the leading anchor's style in every region, 0..1; the rest is the region's own anchor's",
        flag="sync-shared-style",
        old_flags=["sync-across"],
        **FRACTION,
    )
    draft_strength: float = setting(
        0.0,
        "img2img strength over a draft, which shows the whole canvas squeezed into one window, 0..1; 0: no draft",
        flag="draft-strength",
        old_flags=["sync-scaffold"],
        **FRACTION,
    )
    draft_noise: float = setting(
        1.0,
        "factor on the noise that is added to the draft, 0..2; above 1: more detail, less of one scene",
        flag="draft-noise",
        old_flags=["sync-scaffold-noise"],
        minimum=0.0,
        maximum=2.0,
    )
    anchor: Anchor = setting(
        MIDDLE, "anchor window, which the others follow: middle, an index from the top left, or an image", flag="anchor"
    )
    _skipped: int = PrivateAttr(default=0)  # denoising steps that `later` left out, from the first

    @property
    def skipped(self) -> int:
        """Return how many denoising steps `later` left out, from the first."""
        return self._skipped

    def check(self) -> None:
        if isinstance(self.objective, str):
            if self.objective not in OBJECTIVES:
                require_choice("objective", self.objective, OBJECTIVES, "objective")
        elif not callable(self.objective):
            raise ConfigError(f"objective is {self.objective!r}; it must be a name or a function", field="objective")
        if self.anchor != MIDDLE and (isinstance(self.anchor, bool) or not isinstance(self.anchor, int)):
            from PIL import Image

            require(
                isinstance(self.anchor, Image.Image),
                f"anchor is {self.anchor!r}; it must be {MIDDLE}, the index of a window, or a PIL image",
                "anchor",
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
        left = self.model_copy()
        left._skipped = skipped
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
DRAWN, KEPT = COLOR_MATCHES = ("none", "source")
OLD_COLOURS = {"drawn": DRAWN, "kept": KEPT}  # their names in earlier versions


class Margins(NamedTuple):
    """By how much a picture grows, px."""

    left: int
    right: int


class Img2ImgConfig(Settings):
    """How an image starts from another one: img2img, inpainting with a mask, outpainting."""

    renamed: ClassVar[Mapping[str, str]] = {"colours": "color_match", "extend": "outpaint", "mask_soft": "mask_feather"}

    strength: float = setting(
        CHOSEN,
        "how much of the init image is replaced, above 0, up to 1",
        shown_default="0.6, or 1 where a mask or an outpainted side is generated",
    )
    color_match: str = setting(
        DRAWN,
        "colours of larger parts: as they are generated (none), or those of the init image (source)",
        choices=COLOR_MATCHES,
        old_flags=["colours"],
        old_values=OLD_COLOURS,
    )
    outpaint: str = setting(
        "",
        "side and pixels by which the image grows: left 256, right 256, or both 256",
        old_flags=["extend"],
        shown_default="none",
        words=["SIDE", "PIXELS"],
    )
    mask_feather: float = setting(
        0.125,
        "width of the blend between what is inpainted and what stays, in window sides, 0..1",
        old_flags=["mask-soft"],
        **FRACTION,
    )

    def check(self) -> None:
        if self.strength != CHOSEN:
            require(0 < self.strength <= 1, f"strength is {self.strength:g}; it must be above 0, up to 1", "strength")
        self.margins  # noqa: B018 it raises where it cannot be read

    @property
    def margins(self) -> Margins:
        """Returns by how much the picture grows; of both sides, each by half."""
        side, _, pixels = self.outpaint.strip().partition(" ")
        if not side:
            return Margins(0, 0)
        require_choice("side to outpaint", side, SIDES)
        number = int(pixels) if pixels.isascii() and pixels.strip().isdecimal() else 0
        if number < 1:
            raise ConfigError(f"outpaint is {self.outpaint!r}; write a side and pixels, like 'right 256'")
        left = {LEFT: number, RIGHT: 0, BOTH: number // 2}[side]
        return Margins(left, number - left)

    def chosen(self, repaints: bool) -> "Img2ImgConfig":
        """Returns it with a strength; `repaints` says whether there is a mask or an extension."""
        if self.strength != CHOSEN:
            return self
        return self.replace(strength=REPAINTED if repaints or self.outpaint else REDRAWN)

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
ROWS, UPSCALE = TALL_CANVASES = ("rows", "upscale")
AT_ONCE = 2  # times that a picture is enlarged before it is drawn over

Size = tuple[int, int]  # height, width, px


class UpscaleConfig(Settings):
    """How a finished image is upscaled."""

    renamed: ClassVar[Mapping[str, str]] = {"upscale_colours": "upscale_color_match", "tall": "tall_canvas"}

    upscale: int = setting(1, "factor by which the finished image is enlarged and denoised again: 1, 2 or 4")
    upscale_strength: float = setting(
        0.3, "img2img strength of upscaling, above 0, up to 1; one step at least", minimum=0.0, maximum=1.0, above=True
    )
    upscale_color_match: str = setting(
        KEPT,
        "colours of larger parts of the upscaled image: as generated (none), or those of the smaller image (source)",
        choices=COLOR_MATCHES,
        old_flags=["upscale-colours"],
        old_values=OLD_COLOURS,
    )
    tall_canvas: str = setting(
        ROWS,
        "a landscape higher than a window is generated in rows of windows, or as one row that is upscaled",
        choices=TALL_CANVASES,
        old_flags=["tall"],
        shown_default="upscale",
    )

    def check(self) -> None:
        if self.upscale not in TIMES:
            raise ConfigError(f"upscale is {self.upscale!r}; it must be 1, 2 or 4", field="upscale")

    def over(self, steps: int) -> Img2ImgConfig:
        """Returns how a pass starts from the enlarged picture: of so many steps one is drawn at least."""
        return drawn_over(self.upscale_strength, steps, self.upscale_color_match)

    def one_row(self, size: Size, geometry: Geometry, windows: WindowConfig) -> Size | None:
        """Returns the size at which a landscape that is higher than a window is drawn in one row; None: as it is."""
        (height, width), (window_h, window_w) = size, geometry.window_px
        small = round(width * window_h / height)
        if windows.loop:
            small = round(small / geometry.cell) * geometry.cell
        if self.tall_canvas == ROWS or windows.projection != FLAT or not window_h < height < width or small < window_w:
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


def drawn_over(strength: float, steps: int, color_match: str = DRAWN) -> Img2ImgConfig:
    least = (1 + 1e-9) / steps  # or it might be rounded to less than one
    return Img2ImgConfig(strength=min(max(strength, least), 1.0), color_match=color_match)


AUTO = "auto"  # the small autoencoder that is known to fit


class Adapters(Settings):
    """What is loaded beside a model's own parts, or in their place: LoRAs, an IP-Adapter, autoencoders."""

    lora: tuple[str, ...] = setting(
        (), "LoRA: file, folder or hub id, with a weight or none (a.safetensors:0.8); repeat it"
    )
    ip_adapter: str = setting("", "IP-Adapter: hub id, or file in a folder or on the hub", shown_default="none")
    ip_scale: float = setting(1.0, "strength of the IP-Adapter", minimum=0.0)
    vae: str = setting("", "autoencoder in place of the model's own: file, folder or hub id", shown_default="none")
    tiny_vae: str = setting(
        "",
        "small autoencoder (TAESD) for the objective and for previews: auto, folder or hub id",
        shown_default="none",
    )

    @property
    def loras(self) -> list[tuple[str, float]]:
        """Returns where each LoRA comes from, and its weight; 1 where none is given."""
        return [_weighted(one) for one in self.lora]

    @property
    def unweighed(self) -> "Adapters":
        """Returns the same, each with its full strength: what is to be loaded, however strong it is then."""
        return self.replace(lora=tuple(source for source, _ in self.loras), ip_scale=1.0)


def _weighted(lora: str) -> tuple[str, float]:
    source, _, weight = lora.rpartition(":")
    try:
        return (source, float(weight)) if source else (lora, 1.0)
    except ValueError:  # a colon in a file name
        return lora, 1.0
