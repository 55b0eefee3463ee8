"""What of a picture is drawn anew, in pixels: masks with soft edges, wider pictures, and putting both together."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from synccontrol.errors import InputError
from synccontrol.spec.settings import Img2ImgConfig, Margins

BLUR_SIGMA = 2  # places; deviation of the Gaussian that parts large from small
ROWS_PER_STEP = 256  # rows that are tinted at once

Alpha = npt.NDArray[np.float32]  # (H, W), 0..1: how much of a pixel is new


def pad_margins(picture: Image.Image, margins: Margins, closed: bool) -> Image.Image:
    """Returns a picture with so many px more at its left and right, whose columns go on there.

    Of a ring the new part passes from one end into the other.
    """
    pixels = np.asarray(picture)
    count = sum(margins)
    if not closed:
        return Image.fromarray(np.pad(pixels, ((0, 0), margins, (0, 0)), mode="edge"))
    share = ((np.arange(count) + 0.5) / count)[None, :, None]
    new = (pixels[:, -1:] * (1 - share) + pixels[:, :1] * share).round().astype(np.uint8)
    right, left = new[:, : margins.right], new[:, margins.right :]  # it begins where the picture ends
    return Image.fromarray(np.concatenate([left, pixels, right], axis=1))


def outpaint_mask(size: tuple[int, int], margins: Margins, overlap: int, closed: bool) -> Image.Image:
    """Returns the mask (white: drawn anew) of a grown picture: what is new, and so many px of the old beside it.

    Args:
        size: width and height of the grown picture, px.
        margins: by how much it has grown.
        overlap: px of the old picture that pass into the new part.
        closed: it is a ring, so that the new part has the old one at both its ends.
    """
    width, height = size
    column = np.arange(width)
    left, right = (margin + overlap if margin or closed else 0 for margin in margins)
    new = (column < left) | (column >= width - right)
    return Image.fromarray(np.repeat(255 * new[None].astype(np.uint8), height, axis=0))


def feather_mask(mask: Image.Image, soft: int, closed: bool) -> Alpha:
    """Returns how much of each pixel is new: 0 where the mask is black, and soft along its edges, inside of it.

    Args:
        mask: grey; white is drawn anew, and grey as much as it is light.
        soft: px over which it rises from what is black.
        closed: the right edge goes on at the left.
    """
    given = np.asarray(mask.convert("L"))
    around = soft + 1
    padded = np.pad(given, ((around, around), (0, 0)), mode="edge")
    padded = np.pad(padded, ((0, 0), (around, around)), mode="wrap" if closed else "edge")
    repainted = np.where(padded > 0, 255, 0).astype(np.uint8)
    reach = soft // 2
    if reach:
        # OpenCV erodes by a rectangle along rows, then along columns.
        square = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach + 1, 2 * reach + 1))
        eroded = Image.fromarray(cv2.erode(repainted, square).astype(np.uint8))
        repainted = np.asarray(eroded.filter(ImageFilter.BoxBlur(reach)))
    inside = repainted[around:-around, around:-around]
    alpha: Alpha = np.minimum(inside, given).astype(np.float32) / 255
    return alpha


def composite(new: Image.Image, old: Image.Image, share: Alpha) -> Image.Image:
    """Returns the old picture with the new one over it; where the share is 0 not one pixel changes."""
    weights = share[..., None]
    mixed = np.asarray(old) * (1 - weights) + np.asarray(new) * weights
    return Image.fromarray(mixed.round().astype(np.uint8))


def match_colors(new: Image.Image, old: Image.Image, side: int, closed: bool) -> Image.Image:
    """Returns a picture with the colours that another one of its size has in the large, and detail of its own.

    Low frequencies, below a Gaussian of a 32nd of a window, are the old picture's, as StableSR (arXiv 2305.07015)
    corrects colours: windows that are drawn over cannot add a haze or a hue.

    Args:
        new: what was drawn.
        old: what it was drawn over.
        side: of a window, px.
        closed: the right edge goes on at the left.
    """
    pitch = max(1, side // (32 * BLUR_SIGMA))  # px; the difference is smooth, so that few places hold it
    width, height = new.size
    places = (-(-width // pitch), -(-height // pitch))
    lack = np.subtract(*(np.asarray(one.resize(places, Image.Resampling.BOX), np.float32) for one in (old, new)))
    around = 4 * BLUR_SIGMA
    padded = np.pad(lack, ((around, around), (0, 0), (0, 0)), mode="edge")
    padded = np.pad(padded, ((0, 0), (around, around), (0, 0)), mode="wrap" if closed else "edge")
    bands = [Image.fromarray(band) for band in cv2.split(cv2.GaussianBlur(padded, (0, 0), BLUR_SIGMA))]
    found, step = np.array(new), height / places[1]
    for top in range(0, height, ROWS_PER_STEP):
        rows = found[top : top + ROWS_PER_STEP]
        box = (around, around + top / step, around + places[0], around + (top + len(rows)) / step)
        added = [np.asarray(band.resize((width, len(rows)), Image.Resampling.BILINEAR, box)) for band in bands]
        rows[:] = (rows + np.stack(added, axis=-1)).round().clip(0, 255)
    return Image.fromarray(found)


def latent_mask(share: Alpha, cell: int, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Returns which cells (h, w) of a canvas are drawn anew: 1 where any pixel of it is new."""
    height, width = (side * cell for side in shape)
    padded = np.pad(share, ((0, height - share.shape[0]), (0, width - share.shape[1])), mode="edge")
    blocks = padded.reshape(shape[0], cell, shape[1], cell)
    found: npt.NDArray[np.float32] = (blocks.max(axis=(1, 3)) > 0).astype(np.float32)
    return found


def prepare_init_image(
    start: Image.Image, mask: Image.Image | None, img2img: Img2ImgConfig, side: int, closed: bool
) -> tuple[Image.Image, Alpha | None]:
    """Returns a picture on its canvas, and how much of each of its pixels is drawn anew; None: all, by its strength.

    Args:
        start: the picture, as large as the canvas without what it grows by.
        mask: what is repainted, as large as the picture; None: nothing in particular.
        img2img: how.
        side: of a window, px.
        closed: the right edge goes on at the left.

    Raises:
        InputError: the mask is black.
    """
    soft = round(img2img.mask_feather * side)
    if img2img.outpaint:
        start = pad_margins(start, img2img.margins, closed)
        mask = outpaint_mask(start.size, img2img.margins, soft, closed)
    if mask is None:
        return start, None
    found = feather_mask(mask, soft, closed)
    if not found.any():
        raise InputError(
            "the mask is all black, or too thin for its soft edges: nothing would be drawn anew; what is white is "
            "repainted, and a smaller mask soft keeps more of it"
        )
    return start, found
