"""Opening a picture file, whatever its size, without decoding it."""

from pathlib import Path
from threading import Lock

from PIL import Image

_opening = Lock()  # around changes of `Image.MAX_IMAGE_PIXELS`


def opened(path: Path) -> Image.Image:
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
