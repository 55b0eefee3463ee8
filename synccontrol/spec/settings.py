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
        """Return the window's height and width in pixels."""
        return self.window[0] * self.cell, self.window[1] * self.cell


MODEL = "model"  # the scheduler that the model comes with


class Scheduler(NamedTuple):
    """The names of a scheduler in other programs."""

    diffusers: str  # its class; empty: the scheduler that the model comes with
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
MIN_OBJECTIVE_SIDE = {
    "lpips": 32,
    "lpips-alex": 63,
    "lpips-squeeze": 17,
    "stlpips": 24,
    "stlpips-vgg": 20,
}  # px, the smallest image that the network takes
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
    """Raise `ConfigError` unless a value is a seed of an image."""
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
        """Return whether step `index` (from 0) of `steps` has guidance: it lies wholly between start and end.

        Guidance in an interval of the noise levels: arXiv 2404.07724.
        """
        return (
            self.guidance_scale > 1
            and self.guidance_start <= index / steps
            and (index + 1) / steps <= self.guidance_end
        )

    def check_controls(self, controls: int) -> None:
        """Raise `ConfigError` unless each strength is one for all `controls`, or one for each."""
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
        """Return whether the image's right edge continues at its left."""
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
        """Return whether sync does anything."""
        return self.perceptual or (self.adain > 0 and self.adain_steps > self.skipped)

    @property
    def perceptual(self) -> bool:
        """Return whether the objective acts in any step."""
        return self.weight > 0 and self.steps > self.skipped

    def later(self, skipped: int) -> "SyncConfig":
        """Return the same sync for a run that leaves out the first `skipped` denoising steps."""
        later = self.model_copy()
        later._skipped = skipped
        return later

    def check_side(self, side: int) -> None:
        """Raise `ConfigError` if windows of `side` px are too small for the objective once they are shrunk."""
        least = MIN_OBJECTIVE_SIDE[self.objective] if isinstance(self.objective, str) else 1
        require(
            not self.perceptual or side // self.shrink >= least,
            f"sync shrink {self.shrink} leaves {side // self.shrink} px of a window of {side} px, and objective "
            f"{self.objective} needs {least}; use at most {max(side // least, 1)}"
            + (", or another objective" if side < least else ""),
        )

    def due(self, index: int) -> bool:
        """Return whether the objective moves the windows at denoising step `index` (from 0, after the skipped ones)."""
        return self.perceptual and (step := index + self.skipped) < self.steps and step % self.every == 0

    def adain_due(self, index: int) -> bool:
        """Return whether styles are aligned at denoising step `index` (from 0, after the skipped ones)."""
        return self.adain > 0 and index + self.skipped < self.adain_steps

    def extra_evaluations(self, index: int) -> int:
        """Return the number of predictions of each window at a step beyond the first; the anchor takes none."""
        due, adain_due = self.due(index), self.adain_due(index)
        after_moves = self.predict == AGAIN and (due or adain_due)
        # A gradient through the networks needs its own prediction where the first one was made without gradients.
        for_gradient = due and self.gradient == "full" and (adain_due or self.predict == ONCE)
        return int(after_moves) + int(for_gradient)

    def weight_at(self, index: int) -> float:
        """Return w_i = weight * decay^i, the weight at denoising step `index` (paper, section 4.2)."""
        return self.weight * self.decay ** (index + self.skipped)


AUTO_STRENGTH = -1.0  # stands for one of the next two
IMG2IMG_STRENGTH = 0.6  # of a whole image
INPAINT_STRENGTH = 1.0  # of what is inpainted or outpainted
LEFT, RIGHT, BOTH = SIDES = ("left", "right", "both")
MATCH_NONE, MATCH_SOURCE = COLOR_MATCHES = ("none", "source")
OLD_COLOR_MATCHES = {"drawn": MATCH_NONE, "kept": MATCH_SOURCE}  # their names in earlier versions


class Margins(NamedTuple):
    """Widths that outpainting adds, px."""

    left: int
    right: int


class Img2ImgConfig(Settings):
    """How an image starts from another one: img2img, inpainting with a mask, outpainting."""

    renamed: ClassVar[Mapping[str, str]] = {"colours": "color_match", "extend": "outpaint", "mask_soft": "mask_feather"}

    strength: float = setting(
        AUTO_STRENGTH,
        "how much of the init image is replaced, above 0, up to 1",
        shown_default="0.6, or 1 where a mask or an outpainted side is generated",
    )
    color_match: str = setting(
        MATCH_NONE,
        "colours of larger parts: as they are generated (none), or those of the init image (source)",
        choices=COLOR_MATCHES,
        old_flags=["colours"],
        old_values=OLD_COLOR_MATCHES,
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
        if self.strength != AUTO_STRENGTH:
            require(0 < self.strength <= 1, f"strength is {self.strength:g}; it must be above 0, up to 1", "strength")
        self.margins  # noqa: B018 it raises where it cannot be read

    @property
    def margins(self) -> Margins:
        """Return the widths that outpainting adds; `both` adds half on each side."""
        side, _, pixels = self.outpaint.strip().partition(" ")
        if not side:
            return Margins(0, 0)
        require_choice("side to outpaint", side, SIDES)
        number = int(pixels) if pixels.isascii() and pixels.strip().isdecimal() else 0
        if number < 1:
            raise ConfigError(f"outpaint is {self.outpaint!r}; write a side and pixels, like 'right 256'")
        left = {LEFT: number, RIGHT: 0, BOTH: number // 2}[side]
        return Margins(left, number - left)

    def with_strength(self, has_mask: bool) -> "Img2ImgConfig":
        """Return the same settings with a strength; `has_mask`: part of the image is inpainted."""
        if self.strength != AUTO_STRENGTH:
            return self
        return self.replace(strength=INPAINT_STRENGTH if has_mask or self.outpaint else IMG2IMG_STRENGTH)

    def skipped(self, steps: int) -> int:
        """Return how many of `steps` denoising steps img2img leaves out, from the first, as diffusers' pipelines do.

        Raises:
            ConfigError: no step would be left.
        """
        left = min(int(steps * self.with_strength(False).strength), steps)
        require(
            left > 0,
            f"strength {self.strength:g} leaves none of {steps} steps; use at least {1 / steps:.2g}, or more steps",
        )
        return steps - left


UPSCALE_FACTORS = (1, 2, 4)
ROWS, UPSCALE = TALL_CANVASES = ("rows", "upscale")
MAX_UPSCALE_PER_STAGE = 2  # factor by which an image is enlarged before it is denoised again

Size = tuple[int, int]  # height, width, px


class UpscaleConfig(Settings):
    """How a finished image is upscaled."""

    renamed: ClassVar[Mapping[str, str]] = {"upscale_colours": "upscale_color_match", "tall": "tall_canvas"}

    upscale: int = setting(1, "factor by which the finished image is enlarged and denoised again: 1, 2 or 4")
    upscale_strength: float = setting(
        0.3, "img2img strength of upscaling, above 0, up to 1; one step at least", minimum=0.0, maximum=1.0, above=True
    )
    upscale_color_match: str = setting(
        MATCH_SOURCE,
        "colours of larger parts of the upscaled image: as generated (none), or those of the smaller image (source)",
        choices=COLOR_MATCHES,
        old_flags=["upscale-colours"],
        old_values=OLD_COLOR_MATCHES,
    )
    tall_canvas: str = setting(
        ROWS,
        "a landscape higher than a window is generated in rows of windows, or as one row that is upscaled",
        choices=TALL_CANVASES,
        old_flags=["tall"],
        shown_default="upscale",
    )

    def check(self) -> None:
        if self.upscale not in UPSCALE_FACTORS:
            raise ConfigError(f"upscale is {self.upscale!r}; it must be 1, 2 or 4", field="upscale")

    def stage_img2img(self, steps: int) -> Img2ImgConfig:
        """Return how an upscaling stage starts from the enlarged image; it takes at least one of the steps."""
        return upscale_img2img(self.upscale_strength, steps, self.upscale_color_match)

    def one_row(self, size: Size, geometry: Geometry, windows: WindowConfig) -> Size | None:
        """Return the size of a landscape higher than a window as one row of windows; None: it stays as it is."""
        (height, width), (window_h, window_w) = size, geometry.window_px
        small = round(width * window_h / height)
        if windows.loop:
            small = round(small / geometry.cell) * geometry.cell
        if self.tall_canvas == ROWS or windows.projection != FLAT or not window_h < height < width or small < window_w:
            return None
        return window_h, small

    def sizes(self, size: Size, geometry: Geometry, windows: WindowConfig, has_init_image: bool) -> tuple[Size, ...]:
        """Return the sizes at which an image is generated, in their order; the last is the size of the result.

        Args:
            size: height and width of the requested canvas before upscaling, px.
            geometry: the model's native sizes.
            windows: where windows lie.
            has_init_image: the image starts from another one, which keeps rows of windows from repeating the scene.
        """
        height, width = size
        row = None if has_init_image else self.one_row(size, geometry, windows)
        sizes, last = [row or size], (height * self.upscale, width * self.upscale)
        while sizes[-1] != last:
            h, w = (MAX_UPSCALE_PER_STAGE * side for side in sizes[-1])
            sizes.append((h, w) if h < last[0] else last)
        return tuple(sizes)


def upscale_img2img(strength: float, steps: int, color_match: str = MATCH_NONE) -> Img2ImgConfig:
    """Return img2img of a strength that leaves at least one of the steps."""
    least = (1 + 1e-9) / steps  # or it might be rounded to less than one
    return Img2ImgConfig(strength=min(max(strength, least), 1.0), color_match=color_match)


AUTO = "auto"  # the tiny VAE of the model's family


class Adapters(Settings):
    """Adapters of a model: LoRAs, an IP-Adapter, and VAEs in place of its own."""

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
        """Return the source and the weight of each LoRA; the weight is 1 where none is given."""
        return [_weighted(lora) for lora in self.lora]

    @property
    def at_full_strength(self) -> "Adapters":
        """Return the same adapters, each at full strength: what must be loaded, whatever its strength."""
        if not self.lora and self.ip_scale == 1:
            return self
        return self.replace(lora=tuple(source for source, _ in self.loras), ip_scale=1.0)


def _weighted(lora: str) -> tuple[str, float]:
    source, _, weight = lora.rpartition(":")
    try:
        return (source, float(weight)) if source else (lora, 1.0)
    except ValueError:  # a colon in a file name
        return lora, 1.0
