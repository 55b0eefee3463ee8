"""A visitor of the page: a folder of files, a history of pictures, and nobody else's."""

import dataclasses
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synccontrol.app.limits import BusyError, Limits

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
