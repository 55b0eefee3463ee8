"""Sessions of open pages, and their uploads, which are checked before they are decoded."""

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

FORMATS = {  # formats that are accepted -> suffix
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


def data_url_bytes(url: object, limits: Limits) -> bytes:
    """Return the bytes of a data URL (`data:image/png;base64,...`).

    Raises:
        InputError: `url` is no data URL (a path, an address), or is too long.
    """
    head, comma, text = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise InputError("no file was uploaded; give its content as data:image/png;base64,...")
    limits.check_bytes(len(text) * 3 // 4 - text[-2:].count("="))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the file arrived damaged; try again") from error


def safe_stem(name: object) -> str:
    """Return the stem of a file name without characters of paths."""
    stem = Path(str(name).replace("\\", "/")).stem if isinstance(name, str) else ""
    return re.sub(r"[^\w-]+", "-", stem, flags=re.ASCII).strip("-")[:LONGEST_NAME] or UNNAMED


def save_upload(data: bytes, name: object, folder: Path, limits: Limits) -> Path:
    """Write an uploaded image, or OpenPose JSON, into a folder unchanged, and return its path.

    Raises:
        InputError: the data is neither, is damaged, or has too many pixels.
    """
    suffix = poses.SUFFIX if data.lstrip()[:1] in (b"{", b"[") else FORMATS[_format(data, limits)]
    path = folder / (safe_stem(name) + suffix)
    path.write_bytes(data)
    return path


def _format(data: bytes, limits: Limits) -> str:
    """Return the format of an image by its header; nothing is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            size, image_format = image.size, image.format
    except Image.DecompressionBombError as error:
        raise InputError(f"the image has more than {limits.pixels} megapixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError("this is not an image that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise InputError("the image is damaged or cut short; save it again") from error
    limits.check_pixels(*size)
    assert image_format is not None
    return image_format


TOKEN_BYTES = 24  # of the address of an image, which cannot be guessed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished image in the history of a session."""

    token: str  # the last part of its address
    path: Path
    settings: Mapping[str, Any]  # recorded in the image
    notes: tuple[str, ...] = ()  # of its generation
    command: str = ""  # that generates it again


class Session:
    """One open page.

    Args:
        key: of the browser, by its cookie; empty: a program without one.
        folder: of its files.
        limits: of its history.

    Attributes:
        guide: the uploaded guide.
        ready: ready-made control maps by slot of their control.
        start: the init image.
        mask: the mask of the init image.
        reference: the image of the IP-Adapter.
        entries: finished images by token, oldest first.
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
        """Return a new folder for one file, so that equal names do not collide."""
        with self._lock:
            self._count += 1
            place = self.folder / str(self._count)
        place.mkdir()
        return place

    def add(self, path: Path, settings: Mapping[str, Any], notes: tuple[str, ...], command: str) -> Entry:
        """Add a finished image to the history and return its entry; beyond the limit the oldest is removed."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        entry = Entry(token=token, path=path, settings=settings, notes=notes, command=command)
        with self._lock:
            self.entries[entry.token] = entry
            while len(self.entries) > self._limits.history:
                oldest = self.entries.pop(next(iter(self.entries)))
                shutil.rmtree(oldest.path.parent, ignore_errors=True)
        return entry


class Sessions:
    """All sessions; their files lie below one temporary folder, which `close` removes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._root = tempfile.TemporaryDirectory(prefix="synccontrol-")
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """Return the folder of all files."""
        return Path(self._root.name)

    def of(self, session_hash: str, key: str) -> Session:
        """Return the session of an open page. Raises `BusyError` if there are too many.

        Args:
            session_hash: of the page, by Gradio.
            key: of the browser.
        """
        with self._lock:
            session = self._open.get(session_hash)
            if session is not None and secrets.compare_digest(session.key.encode(), key.encode()):
                return session
            if len(self._open) >= self._limits.visitors:
                raise BusyError(f"{len(self._open)} pages are open already; try again in a while")
            folder = Path(tempfile.mkdtemp(dir=self.root))
            self._open[session_hash] = Session(key, folder, self._limits)
            return self._open[session_hash]

    def leave(self, session_hash: str) -> None:
        """Remove the session of a closed page."""
        with self._lock:
            session = self._open.pop(session_hash, None)
        if session is not None:
            shutil.rmtree(session.folder, ignore_errors=True)

    def image_file(self, token: str, key: str) -> Path | None:
        """Return the file of an image by the token of its address, if it belongs to this browser."""
        with self._lock:
            sessions = list(self._open.values())
        for session in sessions:
            entry = session.entries.get(token)
            if entry is not None and session.key and secrets.compare_digest(session.key.encode(), key.encode()):
                return entry.path
        return None

    def close(self) -> None:
        """Remove all files."""
        self._root.cleanup()
