"""How a guide, or a ready-made control map, comes onto a canvas of another size or aspect."""

import dataclasses
import math

import numpy as np
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.spec.settings import FITS

EXACT, CROP, PAD, STRETCH = FITS
ASPECT_TOLERANCE = 0.02  # relative; beyond it a map would visibly distort the scene
LANCZOS_REACH = 3  # px, of the larger of both grids

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
    """Which part of a picture is shown, and where on the canvas."""

    box: tuple[float, float, float, float]  # left, top, right, bottom of the part, px of the picture
    inside: tuple[int, int, int, int]  # left, top, right, bottom on the canvas, px
    canvas: tuple[int, int]  # width, height, px
    loop: bool  # the picture is a ring
    note: str  # what is said when the aspect changes, or an empty text

    def show(self, picture: Image.Image) -> Image.Image:
        """Returns the part of a picture that is shown, at its size on the canvas."""
        left, top, right, bottom = self.inside
        size = (right - left, bottom - top)
        whole = (0, 0, *picture.size)
        if picture.size == size and self.box == whole:
            return picture
        if not self.loop:
            return picture.resize(size, Image.Resampling.LANCZOS, box=self.box)
        margin = math.ceil(LANCZOS_REACH * max(1, picture.width / size[0]))
        wrapped = Image.fromarray(np.pad(np.asarray(picture), ((0, 0), (margin, margin), (0, 0)), mode="wrap"))
        box = (margin, self.box[1], margin + picture.width, self.box[3])
        return wrapped.resize(size, Image.Resampling.LANCZOS, box=box)  # resize() looks beyond the box

    def pad(self, control_map: Image.Image, outside: Colour | None) -> Image.Image:
        """Returns the map of the part that is shown, grown to the canvas by a colour; None repeats its border."""
        left, top, right, bottom = self.inside
        if control_map.size == self.canvas:
            return control_map
        if outside is not None:
            canvas = Image.new("RGB", self.canvas, outside)
            canvas.paste(control_map, (left, top))
            return canvas
        around = ((top, self.canvas[1] - bottom), (left, self.canvas[0] - right), (0, 0))
        return Image.fromarray(np.pad(np.asarray(control_map), around, mode="edge"))


def plan(picture: Image.Image, height: int, width: int, what: str, how: str = EXACT, loop: bool = False) -> Fitting:
    """Returns how a picture fits a canvas of height x width px.

    Args:
        picture: The guide or control map, RGB.
        height: Of the canvas, px.
        width: Likewise.
        what: What to call the picture in messages ("guide", "control map").
        how: 'exact': an aspect that differs by more than 2 % is an error; 'crop': the middle of the picture fills the
            canvas; 'pad': the whole picture lies in its middle; 'stretch': the picture is distorted to fill it.
        loop: The picture's left and right edges continue each other, so it is shown all round.

    Raises:
        InputError: Another aspect where it must not differ, or a ring that would be cut or left open.
    """
    ratio = (width / height) / (picture.width / picture.height)  # how much wider the canvas is
    full = Fitting(
        box=(0, 0, picture.width, picture.height),
        inside=(0, 0, width, height),
        canvas=(width, height),
        loop=loop,
        note="",
    )
    if abs(ratio - 1) <= ASPECT_TOLERANCE:
        return full
    sizes = f"the {what} is {picture.width}x{picture.height}, another aspect than the canvas of {width}x{height}"
    matching = f"use width {round(height * picture.width / picture.height)} at height {height}"
    if how == EXACT:
        raise InputError(f"{sizes}; {matching}, or --fit crop, pad or stretch")
    if how == STRETCH:
        return dataclasses.replace(
            full, note=f"{sizes}: it is stretched to {ratio:.2f} times its width (--fit stretch)"
        )
    if loop and (ratio < 1) == (how == CROP):
        lost, other = ("cut off", PAD) if how == CROP else ("left empty", CROP)
        raise InputError(
            f"{sizes}: with --fit {how} a part of the ring would be {lost}, so that it would not close; "
            f"{matching}, or --fit {other} or stretch"
        )
    share = 1 - min(ratio, 1 / ratio)
    if how == CROP:
        note = f"{sizes}: {share:.0%} of its {'width' if ratio < 1 else 'height'} is cut off (--fit crop)"
        left, top = picture.width * (1 - min(1, ratio)) / 2, picture.height * (1 - min(1, 1 / ratio)) / 2
        return dataclasses.replace(full, box=(left, top, picture.width - left, picture.height - top), note=note)
    inside = round(width * min(1, 1 / ratio)) or 1, round(height * min(1, ratio)) or 1
    left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
    note = f"{sizes}: {share:.0%} of the canvas's {'width' if ratio > 1 else 'height'} lies outside of it (--fit pad)"
    return dataclasses.replace(full, inside=(left, top, left + inside[0], top + inside[1]), note=note)


def fit(picture: Image.Image, height: int, width: int, what: str, loop: bool = False) -> Image.Image:
    """Returns a picture of the canvas's aspect resized to height x width px. Raises `InputError` as `plan`."""
    return plan(picture, height, width, what, loop=loop).show(picture)
