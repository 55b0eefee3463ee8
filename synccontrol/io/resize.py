"""Fit a guide or control map onto a canvas of another size or aspect ratio."""

import dataclasses
import math

import numpy as np
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.spec.settings import FITS

EXACT, CROP, PAD, STRETCH = FITS
ASPECT_TOLERANCE = 0.02  # relative; a larger difference visibly distorts the scene
LANCZOS_REACH = 3  # px, in the coarser of the two grids

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
    """The part of an image that is used, and its position on the canvas."""

    box: tuple[float, float, float, float]  # left, top, right, bottom of the part, px of the image
    inside: tuple[int, int, int, int]  # left, top, right, bottom on the canvas, px
    canvas: tuple[int, int]  # width, height, px
    loop: bool  # the image is a 360-degree ring
    note: str  # a message to the user if the aspect ratio changes, else empty

    def apply(self, image: Image.Image) -> Image.Image:
        """Crop an image and resize the part to its size on the canvas."""
        left, top, right, bottom = self.inside
        size = (right - left, bottom - top)
        full_box = (0, 0, *image.size)
        if image.size == size and self.box == full_box:
            return image
        if not self.loop:
            return image.resize(size, Image.Resampling.LANCZOS, box=self.box)
        margin = math.ceil(LANCZOS_REACH * max(1, image.width / size[0]))
        padded = Image.fromarray(np.pad(np.asarray(image), ((0, 0), (margin, margin), (0, 0)), mode="wrap"))
        box = (margin, self.box[1], margin + image.width, self.box[3])
        return padded.resize(size, Image.Resampling.LANCZOS, box=box)  # resize() reads pixels outside the box

    def pad(self, control_map: Image.Image, fill: Colour | None) -> Image.Image:
        """Pad the control map of the part to the canvas with a colour, or by repeating its border for None."""
        left, top, right, bottom = self.inside
        if control_map.size == self.canvas:
            return control_map
        if fill is not None:
            canvas = Image.new("RGB", self.canvas, fill)
            canvas.paste(control_map, (left, top))
            return canvas
        margins = ((top, self.canvas[1] - bottom), (left, self.canvas[0] - right), (0, 0))
        return Image.fromarray(np.pad(np.asarray(control_map), margins, mode="edge"))


def plan(image: Image.Image, height: int, width: int, name: str, mode: str = EXACT, loop: bool = False) -> Fitting:
    """Return how an image fits a canvas of height x width px.

    Args:
        image: the guide or control map, RGB.
        height: height of the canvas, px.
        width: width of the canvas, px.
        name: the name of the image in messages ("guide", "control map").
        mode: 'exact' raises an error for aspect ratios that differ by more than 2 %; 'crop' fills the canvas with the
            middle of the image; 'pad' puts the whole image in the middle of the canvas; 'stretch' distorts it.
        loop: the image is a 360-degree ring: its left and right edges continue each other.

    Raises:
        InputError: the aspect ratio differs with 'exact', or a ring would be cut or left open.
    """
    ratio = (width / height) / (image.width / image.height)  # > 1: the canvas is wider than the image
    full = Fitting(
        box=(0, 0, image.width, image.height),
        inside=(0, 0, width, height),
        canvas=(width, height),
        loop=loop,
        note="",
    )
    if abs(ratio - 1) <= ASPECT_TOLERANCE:
        return full
    sizes = f"the {name} is {image.width}x{image.height}, another aspect than the canvas of {width}x{height}"
    matching = f"use width {round(height * image.width / image.height)} at height {height}"
    if mode == EXACT:
        raise InputError(f"{sizes}; {matching}, or --fit crop, pad or stretch")
    if mode == STRETCH:
        return dataclasses.replace(
            full, note=f"{sizes}: it is stretched to {ratio:.2f} times its width (--fit stretch)"
        )
    if loop and (ratio < 1) == (mode == CROP):
        lost, alternative = ("cut off", PAD) if mode == CROP else ("left empty", CROP)
        raise InputError(
            f"{sizes}: with --fit {mode} a part of the ring would be {lost}, so that it would not close; "
            f"{matching}, or --fit {alternative} or stretch"
        )
    cut = 1 - min(ratio, 1 / ratio)
    if mode == CROP:
        note = f"{sizes}: {cut:.0%} of its {'width' if ratio < 1 else 'height'} is cut off (--fit crop)"
        left, top = image.width * (1 - min(1, ratio)) / 2, image.height * (1 - min(1, 1 / ratio)) / 2
        return dataclasses.replace(full, box=(left, top, image.width - left, image.height - top), note=note)
    inside = round(width * min(1, 1 / ratio)) or 1, round(height * min(1, ratio)) or 1
    left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
    note = f"{sizes}: {cut:.0%} of the canvas's {'width' if ratio > 1 else 'height'} lies outside of it (--fit pad)"
    return dataclasses.replace(full, inside=(left, top, left + inside[0], top + inside[1]), note=note)


def fit(image: Image.Image, height: int, width: int, name: str, loop: bool = False) -> Image.Image:
    """Return an image of the canvas's aspect ratio, resized to height x width px. Raises `InputError` as `plan`."""
    return plan(image, height, width, name, loop=loop).apply(image)
