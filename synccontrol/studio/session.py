"""What a browser hands over: checked before it is decoded, and written under a harmless name."""

import base64
import binascii
import dataclasses
import io
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from synccontrol.errors import InputError
from synccontrol.io import poses
from synccontrol.studio.queue import BusyError, Limits

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
    limits.check_bytes(len(text) * 3 // 4 - text[-2:].count("="))
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


TOKEN_BYTES = 24  # of the address of a picture, which nobody guesses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished picture in a visitor's history."""

    token: str  # the last part of its address
    path: Path
    settings: Mapping[str, Any]  # as it records them
    notes: tuple[str, ...] = ()  # what was said while it was drawn
    command: str = ""  # which makes it again


class Visitor:
    """One open page.

    Args:
        key: of the browser, as its cookie says; empty: a program without one.
        folder: its own.
        limits: how many pictures are kept.

    Attributes:
        guide: what was handed over last to be followed, if anything.
        ready: ready-made control maps, by the place of their control.
        start: what the next picture starts from, if not from noise alone.
        mask: which part of that is drawn anew, if not all.
        reference: what an IP-Adapter is shown, if anything.
        entries: finished pictures by token, the oldest first.
    """

    def __init__(self, key: str, folder: Path, limits: Limits) -> None:
        self.key, self.folder = key, folder
        self.guide: Path | None = None
        self.ready: dict[int, Path] = {}
        self.start: Path | None = None
        self.mask: Path | None = None
        self.reference: Path | None = None
        self.entries: dict[str, Entry] = {}
        self._limits, self._lock, self._count = limits, threading.Lock(), 0

    def place(self) -> Path:
        """Returns a new folder for one file, so that two of a name never meet."""
        with self._lock:
            self._count += 1
            place = self.folder / str(self._count)
        place.mkdir()
        return place

    def add(self, path: Path, settings: Mapping[str, Any], notes: tuple[str, ...], command: str) -> Entry:
        """Returns the entry of a finished picture; where there are too many, the oldest one is removed."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        entry = Entry(token=token, path=path, settings=settings, notes=notes, command=command)
        with self._lock:
            self.entries[entry.token] = entry
            while len(self.entries) > self._limits.history:
                oldest = self.entries.pop(next(iter(self.entries)))
                shutil.rmtree(oldest.path.parent, ignore_errors=True)
        return entry


class Visitors:
    """All open pages; their files lie below one temporary folder, and go with it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._root = tempfile.TemporaryDirectory(prefix="synccontrol-")
        self._open: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """Returns the folder of all files."""
        return Path(self._root.name)

    def of(self, session: str, key: str) -> Visitor:
        """Returns the visitor of an open page. Raises `BusyError` if there are too many.

        Args:
            session: of the page.
            key: of the browser.
        """
        with self._lock:
            found = self._open.get(session)
            if found is not None and secrets.compare_digest(found.key.encode(), key.encode()):
                return found
            if len(self._open) >= self._limits.visitors:
                raise BusyError(f"{len(self._open)} pages are open already; try again in a while")
            folder = Path(tempfile.mkdtemp(dir=self.root))
            self._open[session] = Visitor(key, folder, self._limits)
            return self._open[session]

    def leave(self, session: str) -> None:
        """Removes what a page that was closed has left."""
        with self._lock:
            gone = self._open.pop(session, None)
        if gone is not None:
            shutil.rmtree(gone.folder, ignore_errors=True)

    def picture(self, token: str, key: str) -> Path | None:
        """Returns the file of a picture by the end of its address, if it belongs to this browser."""
        with self._lock:
            pages = list(self._open.values())
        for page in pages:
            entry = page.entries.get(token)
            if entry is not None and page.key and secrets.compare_digest(page.key.encode(), key.encode()):
                return entry.path
        return None

    def close(self) -> None:
        """Removes all files."""
        self._root.cleanup()
