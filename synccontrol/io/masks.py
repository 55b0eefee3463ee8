"""Masks for inpainting and outpainting in pixels: feathered edges, padded images, and compositing."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from synccontrol.errors import InputError
from synccontrol.spec.settings import Img2ImgConfig, Margins

BLUR_SIGMA = 2  # samples; deviation of the Gaussian that separates low from high frequencies
ROWS_PER_STEP = 256  # rows whose colours are corrected at once

Alpha = npt.NDArray[np.float32]  # (H, W), 0..1: the share of the generated image in a pixel


def pad_margins(image: Image.Image, margins: Margins, closed: bool) -> Image.Image:
    """Pad an image at its left and right by repeating its edge columns.

    For a cylindrical panorama (360-degree ring) the new part is a linear transition between the two edges.
    """
    pixels = np.asarray(image)
    count = sum(margins)
    if not closed:
        return Image.fromarray(np.pad(pixels, ((0, 0), margins, (0, 0)), mode="edge"))
    ramp = ((np.arange(count) + 0.5) / count)[None, :, None]
    transition = (pixels[:, -1:] * (1 - ramp) + pixels[:, :1] * ramp).round().astype(np.uint8)
    right, left = np.split(transition, [margins.right], axis=1)  # it continues the right edge of the image
    return Image.fromarray(np.concatenate([left, pixels, right], axis=1))


def outpaint_mask(size: tuple[int, int], margins: Margins, overlap: int, closed: bool) -> Image.Image:
    """Return the outpainting mask of a padded image: white for the margins and for `overlap` px beside them.

    Args:
        size: width and height of the padded image, px.
        margins: the widths of the new parts, px.
        overlap: px of the original image that blend into the new part.
        closed: the image is a 360-degree ring, so the new part touches both edges of the original.
    """
    width, height = size
    column = np.arange(width)
    left, right = (margin + overlap if margin or closed else 0 for margin in margins)
    new = (column < left) | (column >= width - right)
    return Image.fromarray(np.repeat(255 * new[None].astype(np.uint8), height, axis=0))


def feather_mask(mask: Image.Image, feather: int, closed: bool) -> Alpha:
    """Return the alpha of the generated image: 0 where the mask is black, with a ramp inside the white parts.

    Args:
        mask: greyscale; white pixels are repainted, grey pixels in proportion.
        feather: px over which alpha rises from the black parts.
        closed: the left and right edges are neighbours.
    """
    values = np.asarray(mask.convert("L"))
    border = feather + 1
    padded = np.pad(values, ((border, border), (0, 0)), mode="edge")
    padded = np.pad(padded, ((0, 0), (border, border)), mode="wrap" if closed else "edge")
    repaint = np.where(padded > 0, 255, 0).astype(np.uint8)
    reach = feather // 2
    if reach:
        # OpenCV erodes by a rectangle along rows, then along columns.
        square = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach + 1, 2 * reach + 1))
        eroded = Image.fromarray(cv2.erode(repaint, square).astype(np.uint8))
        repaint = np.asarray(eroded.filter(ImageFilter.BoxBlur(reach)))
    inner = repaint[border:-border, border:-border]
    alpha: Alpha = np.minimum(inner, values).astype(np.float32) / 255
    return alpha


def composite(new: Image.Image, old: Image.Image, alpha: Alpha) -> Image.Image:
    """Blend the new image over the old one; pixels with alpha 0 stay exactly as they are."""
    weights = alpha[..., None]
    mixed = np.asarray(old) * (1 - weights) + np.asarray(new) * weights
    return Image.fromarray(mixed.round().astype(np.uint8))


def match_colors(new: Image.Image, old: Image.Image, side: int, closed: bool) -> Image.Image:
    """Return the new image with the low frequencies of the old one, so that its colours match.

    The low frequencies are those below a Gaussian of 1/32 of a window, as in the colour correction of StableSR
    (arXiv 2305.07015). Repainted windows then add no haze and no hue.

    Args:
        new: the generated image.
        old: the image that it was generated from, of the same size.
        side: the side of a window, px.
        closed: the left and right edges are neighbours.
    """
    pitch = max(1, side // (32 * BLUR_SIGMA))  # px; the difference is smooth, so a coarse grid suffices
    width, height = new.size
    grid = (-(-width // pitch), -(-height // pitch))
    difference = np.subtract(
        *(np.asarray(image.resize(grid, Image.Resampling.BOX), np.float32) for image in (old, new))
    )
    border = 4 * BLUR_SIGMA
    padded = np.pad(difference, ((border, border), (0, 0), (0, 0)), mode="edge")
    padded = np.pad(padded, ((0, 0), (border, border), (0, 0)), mode="wrap" if closed else "edge")
    bands = [Image.fromarray(band) for band in cv2.split(cv2.GaussianBlur(padded, (0, 0), BLUR_SIGMA))]
    pixels, rows_per_sample = np.array(new), height / grid[1]
    for top in range(0, height, ROWS_PER_STEP):
        rows = pixels[top : top + ROWS_PER_STEP]
        box = (border, border + top / rows_per_sample, border + grid[0], border + (top + len(rows)) / rows_per_sample)
        correction = [np.asarray(band.resize((width, len(rows)), Image.Resampling.BILINEAR, box)) for band in bands]
        rows[:] = (rows + np.stack(correction, axis=-1)).round().clip(0, 255)
    return Image.fromarray(pixels)


def latent_mask(alpha: Alpha, cell: int, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return the mask in latent cells (h, w): 1 where any pixel of the cell is repainted."""
    height, width = (side * cell for side in shape)
    padded = np.pad(alpha, ((0, height - alpha.shape[0]), (0, width - alpha.shape[1])), mode="edge")
    blocks = padded.reshape(shape[0], cell, shape[1], cell)
    cells: npt.NDArray[np.float32] = (blocks.max(axis=(1, 3)) > 0).astype(np.float32)
    return cells


def prepare_init_image(
    image: Image.Image, mask: Image.Image | None, img2img: Img2ImgConfig, side: int, closed: bool
) -> tuple[Image.Image, Alpha | None]:
    """Return the initial image on its canvas, and the alpha of the parts to repaint; None for plain img2img.

    Args:
        image: the initial image, of the size of the canvas without the outpainting margins.
        mask: the inpainting mask, of the size of the image, if there is one.
        img2img: the settings of img2img, inpainting and outpainting.
        side: the side of a window, px.
        closed: the left and right edges are neighbours.

    Raises:
        InputError: the mask is black.
    """
    feather = round(img2img.mask_feather * side)
    if img2img.outpaint:
        image = pad_margins(image, img2img.margins, closed)
        mask = outpaint_mask(image.size, img2img.margins, feather, closed)
    if mask is None:
        return image, None
    alpha = feather_mask(mask, feather, closed)
    if not alpha.any():
        raise InputError(
            "the mask is all black, or too thin for its feathered edges, so nothing would be repainted; "
            "paint the parts to repaint white, or use a smaller --mask-feather"
        )
    return image, alpha
