"""The only conversions between pictures (PIL, 8 bit) and float tensors, and the only reading of guides."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import pad

from synccontrol.errors import InputError

ASPECT_TOLERANCE = 0.02  # relative; beyond it a map would visibly distort the scene
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def open_image(path: Path) -> Image.Image:
    """Returns the picture of a file as RGB: upright, 16 bit scaled to 8, palettes resolved, on black where transparent.

    Raises:
        InputError: there is no such file, it is no picture, is cut short, or is too large to be decoded safely.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give a picture ({', '.join(SUFFIXES)})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise InputError(
            f"{path} is too large to decode safely (over {limit:.0f} megapixels); scale it down"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise InputError(f"{path} is damaged or cut short ({error}); save it again") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the picture as 8-bit RGB, turned upright as its EXIF says."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """Returns a picture as float32 (1, 3, H, W) in 0..1."""
    array = np.array(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()


def to_pil(image: Tensor) -> Image.Image:
    """Returns a tensor (1, 3, H, W) in -1..1, clamped to it, as an 8-bit RGB picture."""
    array = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).cpu().numpy())


def check_aspect(image: Image.Image, height: int, width: int, what: str) -> None:
    """Raises `InputError` when a picture's aspect differs by more than 2 % from a canvas of height x width pixels.

    `what` is what to call the picture in the message ("guide", "control map").
    """
    if abs((image.width / image.height) / (width / height) - 1) > ASPECT_TOLERANCE:
        fitting = round(height * image.width / image.height)
        raise InputError(
            f"the {what} is {image.width}x{image.height}, another aspect than the canvas of {width}x{height}; "
            f"use width {fitting} at height {height}, or crop the {what}"
        )


def fit(image: Image.Image, height: int, width: int, what: str) -> Image.Image:
    """Returns a picture resized to height x width pixels. Raises `InputError` as `check_aspect`."""
    if image.size == (width, height):
        return image
    check_aspect(image, height, width, what)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def pad_to(tensor: Tensor, height: int, width: int) -> Tensor:
    """Returns (1, c, H, W) grown to height x width at the bottom and right by repeating its border."""
    bottom, right = height - tensor.shape[-2], width - tensor.shape[-1]
    return pad(tensor, (0, right, 0, bottom), mode="replicate") if bottom or right else tensor
