"""The one door for pictures: whatever holds one comes in, upright 8-bit RGB comes out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from synccontrol.preprocess.errors import PictureError

if TYPE_CHECKING:
    import torch

ImageLike: TypeAlias = "Image.Image | npt.NDArray[Any] | torch.Tensor"
Array: TypeAlias = npt.NDArray[Any]

STRIP = 2**22  # px that are converted at a time
SLACK = 1e-3  # how far floats may lie outside of 0..1, as resizing leaves them
DARK = 127.5  # of 255: on average darker than this, what stands on a transparent ground is a dark drawing
CHANNELS = (1, 3, 4)  # of an array: grey, RGB, RGBA
TAKEN = (
    "a PIL picture, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor (H, W), (1, H, W), (3, H, W) or "
    "(1, 3, H, W) works"
)
HOLDS = "uint8, uint16, bool, or floats in 0..1 work"


def to_rgb(picture: ImageLike, factor: int = 1) -> Image.Image:
    """Returns a picture as 8-bit RGB, turned upright as its EXIF says, `factor` times smaller.

    Palettes are resolved. What has more than 8 bits is scaled: white is the first of 1 (floats), 255 and 65535 that no
    value exceeds. A transparent ground becomes black; or white where what stands on it is dark, as a drawing is: where
    the brightest colours of its pixels are on average below half. Beside the picture and the result, a PIL picture
    needs memory for a strip only, an array for an 8-bit copy.

    Args:
        picture: A PIL picture of any mode; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool,
            or floats in 0..1; a tensor (H, W), (1 or 3, H, W) or (1, 1 or 3, H, W) of the same.
        factor: A whole number.

    Raises:
        PictureError: Anything else: a path, None, a list, floats outside of 0..1, a file that is cut short.
    """
    image = picture if isinstance(picture, Image.Image) else _from_array(_array_of(picture))
    turn = _loaded(image)
    if image.mode == "La":  # for which Pillow has only this conversion
        image = image.convert("LA")
    if (image.mode, image.has_transparency_data, turn, factor) == ("RGB", False, 1, 1):
        return image.copy() if image is picture else image
    rows = max(1, STRIP // (image.width * factor)) * factor
    white = _white(image, rows) if _is_deep(image) else 255.0
    ground = _ground(image, rows) if image.has_transparency_data else ""
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top, strip in _strips(image, rows):
        small.paste(_strip_to_rgb(strip, white, ground).reduce(factor), (0, top // factor))
    if turn == 1:
        return small
    small.getexif()[ExifTags.Base.Orientation] = turn
    return ImageOps.exif_transpose(small)


def _loaded(image: Image.Image) -> int:
    """Returns the EXIF orientation of a picture, 1..8, its pixels decoded."""
    if not image.width or not image.height:
        raise PictureError(f"a picture of {image.width}x{image.height} px is empty; give one with pixels")
    try:
        image.load()
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise PictureError(f"the picture is damaged or cut short ({error}); save it again") from error


def _strips(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """Yields a picture in strips of some rows, with the row where each starts."""
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _white(image: Image.Image, rows: int) -> float:
    """Returns what stands for white in a picture of more than 8 bits."""
    largest = max(np.nan_to_num(np.asarray(strip)).max() for _, strip in _strips(image, rows))
    return _white_of(float(largest), image.mode == "F")


def _white_of(largest: float, floats: bool) -> float:
    if floats and largest <= 1:
        return 1.0
    return 65535.0 if largest > 255 else 255.0


def _ground(image: Image.Image, rows: int) -> str:
    """Returns the colour that a picture's transparent ground becomes, which what stands on it can be seen against."""
    brightness = opacity = 0.0
    for _, strip in _strips(image, rows):
        rgba = np.asarray(strip.convert("RGBA"))
        alpha = rgba[..., 3].astype(np.float64)
        brightness += float((rgba[..., :3].max(axis=2) * alpha).sum())
        opacity += float(alpha.sum())
    return "white" if brightness < DARK * opacity else "black"


def _strip_to_rgb(strip: Image.Image, white: float, ground: str) -> Image.Image:
    if _is_deep(strip):
        values = np.nan_to_num(np.asarray(strip, dtype=np.float32)) / white * 255
        return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")
    if ground:
        return Image.alpha_composite(Image.new("RGBA", strip.size, ground), strip.convert("RGBA")).convert("RGB")
    return strip.convert("RGB")


def _array_of(picture: object) -> Array:
    """Returns an array, or a torch tensor as one, (H, W) or (H, W, c)."""
    if isinstance(picture, np.ndarray):
        return picture
    torch = sys.modules.get("torch")  # who has a tensor has loaded it
    if torch is not None and isinstance(picture, torch.Tensor):
        return _array_of_tensor(picture)
    if isinstance(picture, str | os.PathLike):
        raise PictureError(f"{os.fspath(picture)!r} is a path and no picture; open it with PIL.Image.open(path)")
    kind = "None" if picture is None else f"a {type(picture).__name__}"
    raise PictureError(f"{kind} is no picture; {TAKEN}")


def _array_of_tensor(tensor: torch.Tensor) -> Array:
    """Returns a tensor's picture as an array (H, W) or (H, W, c)."""
    planes = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if not (planes.ndim == 2 or (planes.ndim == 3 and len(planes) in (1, 3))):
        raise PictureError(f"a tensor {tuple(tensor.shape)} is no picture; {TAKEN}")
    planes = planes.detach().float() if planes.is_floating_point() else planes.detach()
    array: Array = planes.cpu().numpy()  # of bfloat16 there are no arrays
    return array if array.ndim == 2 else array.transpose(1, 2, 0)


def _from_array(array: Array) -> Image.Image:
    """Returns an array (H, W) or (H, W, c) as an 8-bit PIL picture."""
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)):
        raise PictureError(f"an array {array.shape} is no picture; {TAKEN}")
    if not array.size:
        raise PictureError(f"an array {array.shape} is empty; give a picture with pixels")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    floats, deep = (bool(np.issubdtype(array.dtype, kind)) for kind in (np.floating, np.uint16))
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if not (floats or deep or array.dtype == np.bool_):
        raise PictureError(f"a picture of {array.dtype} values has no known white; {HOLDS}")
    low, high = float(array.min()), float(array.max())
    if floats and not -SLACK <= low <= high <= 1 + SLACK:  # nor if one of them is NaN
        raise PictureError(f"a picture of floats from {low:g} to {high:g} has no known white; {HOLDS}")
    white = _white_of(high, floats=False) if deep else 1.0
    return Image.fromarray(_eight_bits(array, white))


def _eight_bits(array: Array, white: float) -> npt.NDArray[np.uint8]:
    """Returns values in 0..white as 0..255, converted a strip at a time."""
    levels = np.empty(array.shape, np.uint8)
    rows = max(1, STRIP // array.shape[1])
    for top in range(0, len(array), rows):
        values = array[top : top + rows].astype(np.float32) * (255 / white)
        levels[top : top + rows] = np.clip(values, 0, 255).round()
    return levels
