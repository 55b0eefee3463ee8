"""The only conversions between pictures (PIL, 8 bit) and float tensors, and the only reading of guides."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import pad

from synccontrol.errors import InputError

LARGEST = 300_000_000  # px; a file of more is not decoded
KEPT = 2**25  # px; what is larger is scaled down while it is read
STRIP = 2**22  # px that are converted at a time
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def open_image(path: Path) -> Image.Image:
    """Returns the picture of a file as RGB: upright, 16 bit scaled to 8, palettes resolved, on black where transparent.

    A picture of more than `KEPT` pixels is scaled down by a whole factor while it is read, to bound the memory.

    Raises:
        InputError: there is no such file, it is no picture, is cut short, or is too large to be decoded.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give a picture ({', '.join(SUFFIXES)})")
    try:
        with _limited(), Image.open(path) as image:
            factor = _factor(image)
            if factor > 1:  # JPEG is decoded at an eighth, a quarter or half of its size
                image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
            return to_rgb(image, _factor(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} is too large (over {LARGEST / 1e6:.0f} megapixels); scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise InputError(f"{path} is damaged or cut short ({error}); save it again") from error


@contextmanager
def _limited() -> Iterator[None]:
    """Lets Pillow refuse pictures above `LARGEST`, and none below."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _factor(image: Image.Image) -> int:
    """Returns by how many times a picture is scaled down when it is read."""
    return max(1, math.ceil(math.sqrt(image.width * image.height / KEPT)))


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Returns the picture as 8-bit RGB, turned upright as its EXIF says, `factor` times smaller.

    Beside the picture and the result it needs memory for a strip only.
    """
    image.load()
    rows = max(1, STRIP // (image.width * factor)) * factor
    white = _white(image, rows)
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top, strip in _strips(image, rows):
        small.paste(_strip_to_rgb(strip, white).reduce(factor), (0, top // factor))
    small.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return ImageOps.exif_transpose(small)


def _strips(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """Yields a picture in strips of some rows, with the row where each starts."""
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _white(image: Image.Image, rows: int) -> float:
    """Returns what stands for white: in more than 8 bits, the first of 1 (floats), 255 and 65535 that fits."""
    if not _is_deep(image):
        return 255.0
    largest = max(np.nan_to_num(np.asarray(strip)).max() for _, strip in _strips(image, rows))
    if image.mode == "F" and largest <= 1:
        return 1.0
    return 65535.0 if largest > 255 else 255.0


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _strip_to_rgb(strip: Image.Image, white: float) -> Image.Image:
    if _is_deep(strip):
        values = np.nan_to_num(np.asarray(strip, dtype=np.float32)) / white * 255
        return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", strip.size, "black"), strip).convert("RGB")
    return strip.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Returns a picture as float32 (1, 3, H, W) in 0..1."""
    array = np.array(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()


def to_pil(image: Tensor) -> Image.Image:
    """Returns a tensor (1, 3, H, W) in -1..1, clamped to it, as an 8-bit RGB picture."""
    array = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).cpu().numpy())


def pad_to(tensor: Tensor, height: int, width: int) -> Tensor:
    """Returns (1, c, H, W) grown to height x width at the bottom and right by repeating its border."""
    bottom, right = height - tensor.shape[-2], width - tensor.shape[-1]
    return pad(tensor, (0, right, 0, bottom), mode="replicate") if bottom or right else tensor
