"""Open image files, and convert between PIL images and tensors."""

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
    """Open an image file of any size without decoding it.

    Pillow's own limit on pixels is a global setting of the process, so it is lifted under a lock.

    Raises:
        OSError, ValueError, SyntaxError: the errors of Pillow for a file that is not an image.
    """
    with _opening:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


LARGEST = 300_000_000  # px; a larger image is not decoded
MAX_PIXELS_IN_MEMORY = 2**25  # px; a larger image is scaled down while it is read
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")


def open_image(path: Path, max_pixels: int = MAX_PIXELS_IN_MEMORY) -> Image.Image:
    """Return an image file as RGB, converted by `preprocess.to_rgb`: upright, 8 bit, opaque.

    Args:
        path: the file.
        max_pixels: a larger image is scaled down by a whole factor while it is read, to limit the memory.

    Raises:
        InputError: the file does not exist, is not an image, is truncated, or is too large to decode.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {problem}; give an image ({', '.join(SUFFIXES)})")
    try:
        with open_lazily(path) as image:
            if image.width * image.height > LARGEST:
                raise Image.DecompressionBombError
            factor = _reduction(image, max_pixels)
            if factor > 1:  # Pillow decodes JPEG at 1/8, 1/4 or 1/2 of its size
                image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
            image.load()
            return preprocess.to_rgb(image, _reduction(image, max_pixels))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large (over {LARGEST / 1e6:.0f} megapixels); scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # the errors of Pillow for broken files
        raise InputError(f"{path} is damaged or cut short ({error}); save it again") from error


def _reduction(image: Image.Image, max_pixels: int) -> int:
    """Return the whole factor by which an image is scaled down when it is read."""
    return max(1, math.ceil(math.sqrt(image.width * image.height / max_pixels)))


def to_rgb(image: ImageLike) -> Image.Image:
    """Return an image as RGB, as `preprocess.to_rgb`. Raises `InputError` for any other object."""
    with translated():
        return preprocess.to_rgb(image)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image as a float32 tensor (1, 3, H, W) in 0..1."""
    return to_float(to_uint8(image))


def to_uint8(image: Image.Image) -> Tensor:
    """Return an image as a uint8 tensor (1, 3, H, W), a quarter of the memory of float32."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].contiguous()


def to_float(pixels: Tensor) -> Tensor:
    """Return 8-bit pixels as float32 in 0..1, and any other tensor unchanged."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def to_pil(image: Tensor) -> Image.Image:
    """Return a tensor (1, 3, H, W), clamped to -1..1, as an 8-bit RGB image."""
    array = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).cpu().numpy())


def pad_to(tensor: Tensor, height: int, width: int) -> Tensor:
    """Pad a tensor (1, c, H, W) to height x width at the bottom and right by repeating its border."""
    bottom, right = height - tensor.shape[-2], width - tensor.shape[-1]
    return pad(tensor, (0, right, 0, bottom), mode="replicate") if bottom or right else tensor
