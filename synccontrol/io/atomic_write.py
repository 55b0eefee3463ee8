"""Writing files whole or not at all, and never over what is there unless that is asked for."""

import filecmp
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from synccontrol.errors import OutputError
from synccontrol.io import claims

PART = ".part"  # the suffix of what is not finished

Write = Callable[[BinaryIO], object]  # writes a file's content


def publish(path: Path, write: Write, overwrite: bool = False, same: bool = False) -> None:
    """Writes a file beside its place, and gives it its name when it is whole and on the disk.

    Args:
        path: its name; folders are made.
        write: writes the content into an open file.
        overwrite: replace what is there; else whatever has appeared there by then stays.
        same: a file of the very same bytes may be there, and stays.

    Raises:
        OutputError: the file cannot be written, or there is one and it is not to be replaced.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(claims.hidden_name(PART))
        try:
            with part.open("xb") as file:
                claims.lock_file(file)  # which says that its writer lives
                write(file)
                file.flush()
                os.fsync(file.fileno())
                named = _name(part, path, overwrite) or (same and filecmp.cmp(part, path, shallow=False))
                _settle(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    if not named:
        raise OutputError(f"{path} exists; name another --output, or allow --overwrite")


def numbered(path: Path) -> Iterator[Path]:
    """Yields a name, and that name with numbers: a.png, a-2.png, a-3.png, ..."""
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))


def publish_numbered(path: Path, content: bytes, overwrite: bool = False) -> Path:
    """Returns where a content is written: to the first of a.png, a-2.png, ... that is free or holds it already.

    Args:
        path: the name.
        content: of the file.
        overwrite: replace what is there under the name itself.

    Raises:
        OutputError: it cannot be written.
    """
    for place in numbered(path):
        if overwrite or not os.path.lexists(place):
            publish(place, lambda file: file.write(content), overwrite)
            return place
        if place.is_file() and place.read_bytes() == content:
            return place
    raise AssertionError("there is always a next number")


def _name(part: Path, path: Path, overwrite: bool) -> bool:
    """Gives a finished file its name; returns whether the name was free."""
    if overwrite:
        part.replace(path)
        return True
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError:  # a file system without links; of other runs in this folder, claims take care
        if os.path.lexists(path):
            return False
        part.replace(path)
    return True


def _settle(folder: Path) -> None:
    """Has the disk know the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes what killed runs of this machine have left unfinished in a folder; what is being written stays."""
    for part in claims.abandoned_files(folder, PART):
        with suppress(OSError):  # what cannot be removed is no hindrance
            part.unlink()


def check_free(paths: Iterable[Path]) -> None:
    """Raises `OutputError` for a file that exists."""
    for path in paths:
        if os.path.lexists(path):
            raise OutputError(f"{path} exists; name another --output, or allow --overwrite")


def check_folder(path: Path) -> None:
    """Raises `OutputError` when a file, or the folders it lies in, cannot be made."""
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: {parent} is no folder one can write to; choose another")


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises `OutputError` for an output that is one of the inputs, by whatever name."""
    folders: dict[Path, Path] = {}
    known = {_identity(path, folders): path for path in inputs}
    for output in outputs:
        identity = _identity(output, folders)
        if identity in known:
            raise OutputError(
                f"the output {output} is an input ({known[identity]}); inputs are never overwritten, so name another "
                "--output"
            )


def _identity(path: Path, folders: dict[Path, Path]) -> object:
    """Returns what a file is, by whatever name; `folders` holds those that have been resolved."""
    try:
        status = path.stat()
    except OSError:
        if path.parent not in folders:
            folders[path.parent] = Path(os.path.realpath(path.parent))  # links in a ring are no error
        return folders[path.parent] / path.name
    return status.st_dev, status.st_ino
