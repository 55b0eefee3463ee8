"""Atomic writes: a file appears complete or not at all, and replaces an existing file only with `overwrite`."""

import filecmp
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from synccontrol.errors import OutputError
from synccontrol.io import claims

PART = ".part"  # suffix of an unfinished file

Write = Callable[[BinaryIO], object]  # writes a file's content


def publish(path: Path, write: Write, overwrite: bool = False, allow_identical: bool = False) -> None:
    """Write a temporary file, flush it to the disk, then give it its final name.

    Args:
        path: the final name. Missing folders are created.
        write: writes the content into an open file.
        overwrite: replace an existing file. Otherwise a file that another process has created in the meantime stays.
        allow_identical: accept an existing file of the same bytes instead of raising an error.

    Raises:
        OutputError: the file cannot be written, or it exists and `overwrite` is off.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(claims.hidden_name(PART))
        try:
            with part.open("xb") as file:
                claims.lock_file(file)  # the lock shows that the writer is alive
                write(file)
                file.flush()
                os.fsync(file.fileno())
                is_published = _rename(part, path, overwrite) or (
                    allow_identical and filecmp.cmp(part, path, shallow=False)
                )
                _sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    if not is_published:
        raise OutputError(f"{path} exists; name another --output, or allow --overwrite")


def numbered_names(path: Path) -> Iterator[Path]:
    """Yield a path and its numbered variants: a.png, a-2.png, a-3.png, ..."""
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))


def publish_numbered(path: Path, content: bytes, overwrite: bool = False) -> Path:
    """Write a file under the first numbered name that is free or already has this content; return that path.

    Args:
        path: the preferred name; `numbered_names` gives the others.
        content: the bytes to write.
        overwrite: replace an existing file under the preferred name.

    Raises:
        OutputError: the file cannot be written.
    """
    for candidate in numbered_names(path):
        if overwrite or not os.path.lexists(candidate):
            publish(candidate, lambda file: file.write(content), overwrite)
            return candidate
        if candidate.is_file() and candidate.read_bytes() == content:
            return candidate
    raise AssertionError("the sequence of numbered names is endless")


def _rename(part: Path, path: Path, overwrite: bool) -> bool:
    """Give a finished file its final name; return False if the name is taken."""
    if overwrite:
        part.replace(path)
        return True
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links; claims keep other runs away
        if os.path.lexists(path):
            return False
        part.replace(path)
    return True


def _sync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove the unfinished files of killed runs from a folder; files of running processes stay."""
    for part in claims.abandoned_files(folder, PART):
        with suppress(OSError):  # a leftover file does no harm
            part.unlink()


def check_free(paths: Iterable[Path]) -> None:
    """Raise `OutputError` if one of the files exists."""
    for path in paths:
        if os.path.lexists(path):
            raise OutputError(f"{path} exists; name another --output, or allow --overwrite")


def check_folder(path: Path) -> None:
    """Raise `OutputError` if a file or its folders cannot be created."""
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: {parent} is not a writable folder; choose another")


def check_not_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `OutputError` if an output is also an input, even under another name or link."""
    folders: dict[Path, Path] = {}
    input_of = {_identity(path, folders): path for path in inputs}
    for output in outputs:
        key = _identity(output, folders)
        if key in input_of:
            raise OutputError(
                f"the output {output} is an input ({input_of[key]}); inputs are never overwritten, so name another "
                "--output"
            )


def _identity(path: Path, folders: dict[Path, Path]) -> object:
    """Return a key that is equal for every name of a file; `folders` caches resolved folders."""
    try:
        status = path.stat()
    except OSError:
        if path.parent not in folders:
            folders[path.parent] = Path(os.path.realpath(path.parent))  # realpath accepts circular links
        return folders[path.parent] / path.name
    return status.st_dev, status.st_ino
