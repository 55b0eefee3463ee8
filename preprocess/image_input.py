"""Convert PIL images, arrays and tensors to upright 8-bit RGB images."""

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

ROW_PIXELS = 2**22  # px that are converted at once
SLACK = 1e-3  # how far floats may exceed 0..1, because resizing overshoots
DARK = 127.5  # of 255: opaque pixels that are darker on average are a dark drawing
CHANNELS = (1, 3, 4)  # of an array: grey, RGB, RGBA
VALID_TYPES = (
    "a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor (H, W), (1, H, W), (3, H, W) or "
    "(1, 3, H, W) works"
)
VALID_DTYPES = "uint8, uint16, bool, or floats in 0..1 work"


def to_rgb(image: ImageLike, factor: int = 1) -> Image.Image:
    """Convert an image to 8-bit RGB: upright by its EXIF orientation, and scaled down by `factor`.

    Values of more than 8 bits are scaled: white is the smallest of 1 (floats), 255 and 65535 that no value exceeds.
    Transparent pixels become black. They become white under a dark drawing, whose opaque pixels are darker than half
    on average. A PIL image needs extra memory for a few rows only, an array for an 8-bit copy.

    Args:
        image: a PIL image of any mode; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool,
            or floats in 0..1; a tensor (H, W), (1 or 3, H, W) or (1, 1 or 3, H, W) of the same types.
        factor: a whole number.

    Raises:
        PictureError: any other type, floats outside 0..1, or a truncated file.
    """
    source = image if isinstance(image, Image.Image) else _from_array(_array_of(image))
    orientation = _decode_orientation(source)
    if source.mode == "La":  # Pillow converts this mode only to LA
        source = source.convert("LA")
    if (source.mode, source.has_transparency_data, orientation, factor) == ("RGB", False, 1, 1):
        return source.copy() if source is image else source
    rows = max(1, ROW_PIXELS // (source.width * factor)) * factor
    white = _white(source, rows) if _is_deep(source) else 255.0
    background = _background(source, rows) if source.has_transparency_data else ""
    small = Image.new("RGB", (-(-source.width // factor), -(-source.height // factor)))
    for top, rows_image in _row_groups(source, rows):
        small.paste(_rows_to_rgb(rows_image, white, background).reduce(factor), (0, top // factor))
    if orientation == 1:
        return small
    small.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(small)


def _decode_orientation(image: Image.Image) -> int:
    """Decode an image, and return its EXIF orientation, 1..8."""
    if not image.width or not image.height:
        raise PictureError(f"an image of {image.width}x{image.height} px is empty; give one with pixels")
    try:
        image.load()
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # the errors of Pillow for broken files
        raise PictureError(f"the image is damaged or cut short ({error}); save it again") from error


def _row_groups(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield the first row and the image of each group of rows."""
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _white(image: Image.Image, rows: int) -> float:
    """Return the value of white in an image of more than 8 bits."""
    largest = max(np.nan_to_num(np.asarray(strip)).max() for _, strip in _row_groups(image, rows))
    return _white_of(float(largest), image.mode == "F")


def _white_of(largest: float, floats: bool) -> float:
    if floats and largest <= 1:
        return 1.0
    return 65535.0 if largest > 255 else 255.0


def _background(image: Image.Image, rows: int) -> str:
    """Return the background colour for a transparent image, in contrast to its opaque pixels."""
    brightness = opacity = 0.0
    for _, strip in _row_groups(image, rows):
        rgba = np.asarray(strip.convert("RGBA"))
        alpha = rgba[..., 3].astype(np.float64)
        brightness += float((rgba[..., :3].max(axis=2) * alpha).sum())
        opacity += float(alpha.sum())
    return "white" if brightness < DARK * opacity else "black"


def _rows_to_rgb(rows: Image.Image, white: float, background: str) -> Image.Image:
    if _is_deep(rows):
        values = np.nan_to_num(np.asarray(rows, dtype=np.float32)) / white * 255
        return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")
    if background:
        return Image.alpha_composite(Image.new("RGBA", rows.size, background), rows.convert("RGBA")).convert("RGB")
    return rows.convert("RGB")


def _array_of(image: object) -> Array:
    """Return an array or torch tensor as an array (H, W) or (H, W, c)."""
    if isinstance(image, np.ndarray):
        return image
    torch = sys.modules.get("torch")  # a tensor exists only if torch is loaded
    if torch is not None and isinstance(image, torch.Tensor):
        return _array_of_tensor(image)
    if isinstance(image, str | os.PathLike):
        raise PictureError(f"{os.fspath(image)!r} is a path, not an image; open it with PIL.Image.open(path)")
    kind = "None" if image is None else f"a {type(image).__name__}"
    raise PictureError(f"{kind} is not an image; {VALID_TYPES}")


def _array_of_tensor(tensor: torch.Tensor) -> Array:
    """Return the image in a tensor as an array (H, W) or (H, W, c)."""
    planes = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if not (planes.ndim == 2 or (planes.ndim == 3 and len(planes) in (1, 3))):
        raise PictureError(f"a tensor {tuple(tensor.shape)} is not an image; {VALID_TYPES}")
    planes = planes.detach().float() if planes.is_floating_point() else planes.detach()
    array: Array = planes.cpu().numpy()  # NumPy has no bfloat16
    return array if array.ndim == 2 else array.transpose(1, 2, 0)


def _from_array(array: Array) -> Image.Image:
    """Return an array (H, W) or (H, W, c) as an 8-bit PIL image."""
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)):
        raise PictureError(f"an array {array.shape} is not an image; {VALID_TYPES}")
    if not array.size:
        raise PictureError(f"an array {array.shape} is empty; give one with pixels")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    floats, deep = (bool(np.issubdtype(array.dtype, kind)) for kind in (np.floating, np.uint16))
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if not (floats or deep or array.dtype == np.bool_):
        raise PictureError(f"an image of {array.dtype} values has no known white; {VALID_DTYPES}")
    low, high = float(array.min()), float(array.max())
    if floats and not -SLACK <= low <= high <= 1 + SLACK:  # also rejects NaN
        raise PictureError(f"an image of floats from {low:g} to {high:g} has no known white; {VALID_DTYPES}")
    white = _white_of(high, floats=False) if deep else 1.0
    return Image.fromarray(_to_8_bit(array, white))


def _to_8_bit(array: Array, white: float) -> npt.NDArray[np.uint8]:
    """Scale values from 0..white to 0..255, a few rows at a time."""
    levels = np.empty(array.shape, np.uint8)
    rows = max(1, ROW_PIXELS // array.shape[1])
    for top in range(0, len(array), rows):
        values = array[top : top + rows].astype(np.float32) * (255 / white)
        levels[top : top + rows] = np.clip(values, 0, 255).round()
    return levels
