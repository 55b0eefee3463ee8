"""Object stores by fsspec: download inputs, and upload outputs without replacing existing objects."""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from synccontrol.errors import ConfigError, InputError, OutputError

HEAD_BYTES = 2**18  # first bytes of a PNG, which contain its settings
FETCH_THREADS = 8  # objects that are downloaded at once
FILE = "file"
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)  # a `Path` leaves one of the two slashes
_MIRROR_PATH = re.compile(r"[^\s('\"]*/([a-z][a-z0-9+.-]+%3A%2F%2F[^\s/'\"]*)")


def url_of(path: Path) -> str:
    """Return the URL in a path from the command line; an empty text for a local path."""
    match = _URL.fullmatch(str(path))
    return f"{match[1]}://{match[2]}" if match else ""


def mirror_folder(root: Path, url: str) -> Path:
    """Return the local folder below `root` for the downloaded files of a URL."""
    return root / quote(url, safe="")


def replace_mirror_paths(text: str) -> str:
    """Return a text with the paths of mirrored files replaced by their URLs."""
    return _MIRROR_PATH.sub(lambda match: unquote(match[1]), text)


class Store:
    """A folder in an object store, or one object.

    Args:
        url: its address: 's3://bucket/folder', 'gs://...', 'memory://...'.

    Raises:
        ConfigError: no installed package supports such URLs.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import fsspec

            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{url} cannot be reached ({_reason(error)}); "
                "pip install 'synccontrol[s3]', or the package that fsspec needs"
            ) from error
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """Return the sorted names of the objects in the folder; a single object has the empty name.

        Raises:
            InputError: the folder cannot be listed, or a name is not a valid local file name.
        """
        with self._read_errors():
            self._fs.invalidate_cache()
            paths = self._fs.find(self._root)
        names = sorted(path.removeprefix(self._root).removeprefix("/") for path in paths)
        for name in names:
            if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
                raise InputError(f"{self.url} holds {name!r}, which cannot be a local file; rename it")
        return names

    def fetch(self, names: Iterable[str], folder: Path, max_bytes: int | None = None) -> None:
        """Download objects into a folder, at most `max_bytes` of each. Raises `InputError` if that fails."""

        def fetch_object(name: str) -> None:
            target = folder / name
            with self._read_errors():
                content = self._fs.cat_file(self._path(name), start=0, end=max_bytes)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            for _ in pool.map(fetch_object, names):
                pass

    def put(self, content: bytes, name: str, overwrite: bool = False) -> None:
        """Upload an object atomically; without `overwrite` by a conditional put, which fails if the object exists.

        An existing object of the same content is accepted.

        Raises:
            OutputError: an object of other content exists, or the store refuses the upload.
        """
        path = self._path(name)
        try:
            self._fs.pipe_file(path, content, mode="overwrite" if overwrite else "create")
        except Exception as error:  # each store raises errors of its own types
            if overwrite or not self._exists(path):
                raise OutputError(f"{self.url}/{name} cannot be written ({_reason(error)})") from error
            if self._fs.cat_file(path) != content:
                raise OutputError(f"{self.url}/{name} exists; name another --output, or allow --overwrite") from error

    def _exists(self, path: str) -> bool:
        try:
            self._fs.invalidate_cache()
            return bool(self._fs.exists(path))
        except Exception:  # the store does not respond
            return False

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each store raises errors of its own types
            raise InputError(f"{self.url} cannot be read ({_reason(error)})") from error


def _reason(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
