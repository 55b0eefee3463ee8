"""Opening a picture file, whatever its size, without decoding it."""

import math
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import pad

from synccontrol import preprocess
from synccontrol.errors import InputError, translated
from synccontrol.preprocess import ImageLike

_opening = Lock()  # around changes of `Image.MAX_IMAGE_PIXELS`


def open_lazily(path: Path) -> Image.Image:
    """Returns a picture file opened, not decoded, whatever its size: Pillow's own limit is the whole process's.

    Raises:
        OSError, ValueError, SyntaxError: as Pillow, for a file that is no picture.
    """
    with _opening:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


LARGEST = 300_000_000  # px; a file of more is not decoded
MAX_PIXELS_IN_MEMORY = 2**25  # px; what is larger is scaled down while it is read
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")


def open_image(path: Path, kept: int = MAX_PIXELS_IN_MEMORY) -> Image.Image:
    """Returns the picture of a file as RGB, as `preprocess.to_rgb`: upright, 16 bit scaled to 8, nothing transparent.

    Args:
        path: the file.
        kept: pixels; a larger picture is scaled down by a whole factor while it is read, to bound the memory.

    Raises:
        InputError: there is no such file, it is no picture, is cut short, or is too large to be decoded.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give a picture ({', '.join(SUFFIXES)})")
    try:
        with open_lazily(path) as image:
            if image.width * image.height > LARGEST:
                raise Image.DecompressionBombError
            factor = _factor(image, kept)
            if factor > 1:  # JPEG is decoded at an eighth, a quarter or half of its size
                image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
            image.load()
            return preprocess.to_rgb(image, _factor(image, kept))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large (over {LARGEST / 1e6:.0f} megapixels); scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise InputError(f"{path} is damaged or cut short ({error}); save it again") from error


def _factor(image: Image.Image, kept: int) -> int:
    """Returns by how many times a picture is scaled down when it is read."""
    return max(1, math.ceil(math.sqrt(image.width * image.height / kept)))


def to_rgb(picture: ImageLike) -> Image.Image:
    """Returns a picture that a user holds as RGB, as `preprocess.to_rgb`. Raises `InputError` for what is none."""
    with translated():
        return preprocess.to_rgb(picture)


def to_tensor(image: Image.Image) -> Tensor:
    """Returns a picture as float32 (1, 3, H, W) in 0..1."""
    return to_float(to_uint8(image))


def to_uint8(image: Image.Image) -> Tensor:
    """Returns a picture as uint8 (1, 3, H, W): a quarter of the memory."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].contiguous()


def to_float(pixels: Tensor) -> Tensor:
    """Returns pixels of 8 bit as float32 in 0..1, and others as they are."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def to_pil(image: Tensor) -> Image.Image:
    """Returns a tensor (1, 3, H, W) in -1..1, clamped to it, as an 8-bit RGB picture."""
    array = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).cpu().numpy())


def pad_to(tensor: Tensor, height: int, width: int) -> Tensor:
    """Returns (1, c, H, W) grown to height x width at the bottom and right by repeating its border."""
    bottom, right = height - tensor.shape[-2], width - tensor.shape[-1]
    return pad(tensor, (0, right, 0, bottom), mode="replicate") if bottom or right else tensor
