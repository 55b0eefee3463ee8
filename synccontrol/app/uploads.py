"""What a browser hands over: checked before it is decoded, and written under a harmless name."""

import base64
import binascii
import io
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from synccontrol.app.limits import Limits
from synccontrol.errors import InputError
from synccontrol.files import poses

FORMATS = {  # what Pillow is to read, and no other format: the suffix of each
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "AVIF": ".avif",
}
LONGEST_NAME = 60  # characters
UNNAMED = "picture"


def content(url: object, limits: Limits) -> bytes:
    """Returns the bytes of a data URL (`data:image/png;base64,...`).

    Raises:
        InputError: it is none (a path, an address), or too long.
    """
    head, comma, text = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise InputError("no file was handed over; give its content as data:image/png;base64,...")
    limits.check_bytes(len(text) * 3 // 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the file arrived damaged; try again") from error


def harmless(name: object) -> str:
    """Returns the stem of a file name of which no part can lead anywhere."""
    stem = Path(str(name).replace("\\", "/")).stem if isinstance(name, str) else ""
    return re.sub(r"[^\w-]+", "-", stem, flags=re.ASCII).strip("-")[:LONGEST_NAME] or UNNAMED


def save(data: bytes, name: object, folder: Path, limits: Limits) -> Path:
    """Returns the file in a folder that a picture, or OpenPose JSON, is written to, as it is.

    Raises:
        InputError: it is neither, is damaged, or has too many pixels.
    """
    suffix = poses.SUFFIX if data.lstrip()[:1] in (b"{", b"[") else FORMATS[_format(data, limits)]
    path = folder / (harmless(name) + suffix)
    path.write_bytes(data)
    return path


def _format(data: bytes, limits: Limits) -> str:
    """Returns the format of a picture, by what it says of itself: nothing is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            size, found = image.size, image.format
    except Image.DecompressionBombError as error:
        raise InputError(f"the picture has more than {limits.pixels} megapixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError("this is no picture that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise InputError("the picture is damaged or cut short; save it again") from error
    limits.check_pixels(*size)
    assert found is not None
    return found
