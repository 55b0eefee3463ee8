"""Object stores: what lies in one is fetched, what is made is put there, whole and over nothing (fsspec)."""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from synccontrol.errors import ConfigError, InputError, OutputError

HEAD = 2**18  # bytes of a PNG in which its settings stand
AT_ONCE = 8  # objects that are fetched
FILE = "file"
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)  # a `Path` leaves one of the two slashes
_MIRRORED = re.compile(r"[^\s('\"]*/([a-z][a-z0-9+.-]+%3A%2F%2F[^\s/'\"]*)")


def url_of(path: Path) -> str:
    """Returns the URL that a path from the command line is, or an empty text: it is a path of this machine."""
    found = _URL.fullmatch(str(path))
    return f"{found[1]}://{found[2]}" if found else ""


def mirror(place: Path, url: str) -> Path:
    """Returns the folder below `place` in which files of a URL lie while they are used here."""
    return place / quote(url, safe="")


def told(text: str) -> str:
    """Returns a text in which files of a mirror stand by their URL."""
    return _MIRRORED.sub(lambda found: unquote(found[1]), text)


class Store:
    """A folder in an object store, or one object.

    Args:
        url: where: 's3://bucket/folder', 'gs://...', 'memory://...'.

    Raises:
        ConfigError: no package here knows such URLs.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import fsspec

            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{url} cannot be reached ({_reason(error)}); pip install 'synccontrol[s3]', or what fsspec needs"
            ) from error
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """Returns the names below the folder, sorted; of one object an empty text.

        Raises:
            InputError: it cannot be listed, or a name is none that a file could have here.
        """
        with self._answering():
            self._fs.invalidate_cache()
            found = self._fs.find(self._root)
        names = sorted(path.removeprefix(self._root).removeprefix("/") for path in found)
        for name in names:
            if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
                raise InputError(f"{self.url} holds {name!r}, which cannot be a file here; rename it")
        return names

    def fetch(self, names: Iterable[str], folder: Path, most: int | None = None) -> None:
        """Writes objects into a folder, the first `most` bytes of each. Raises `InputError` where that fails."""

        def one(name: str) -> None:
            place = folder / name if name else folder
            with self._answering():
                content = self._fs.cat_file(self._path(name), start=0, end=most)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(one, names):
                pass

    def put(self, content: bytes, name: str, overwrite: bool = False) -> None:
        """Writes an object, whole or not at all; without `overwrite` only if there is none (a conditional put).

        An object of the very same content may be there already.

        Raises:
            OutputError: there is another one, or the store does not take it.
        """
        path = self._path(name)
        try:
            self._fs.pipe_file(path, content, mode="overwrite" if overwrite else "create")
        except Exception as error:  # every store has errors of its own
            if overwrite or not self._holds(path):
                raise OutputError(f"{self.url}/{name} cannot be written ({_reason(error)})") from error
            if self._fs.cat_file(path) != content:
                raise OutputError(f"{self.url}/{name} exists; name another --output, or allow --overwrite") from error

    def _holds(self, path: str) -> bool:
        try:
            self._fs.invalidate_cache()
            return bool(self._fs.exists(path))
        except Exception:  # it does not answer
            return False

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every store has errors of its own
            raise InputError(f"{self.url} cannot be read ({_reason(error)})") from error


def _reason(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
