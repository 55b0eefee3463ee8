"""Writing files whole or not at all, and never over what is there unless that is asked for."""

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from synccontrol.errors import OutputError

PART = ".part"  # the suffix of what is not finished

Write = Callable[[BinaryIO], object]  # writes a file's content


def publish(path: Path, write: Write, overwrite: bool = False) -> None:
    """Writes a file beside its place, and gives it its name when it is whole.

    Args:
        path: its name; folders are made.
        write: writes the content into an open file.
        overwrite: replace what is there; else whatever has appeared there by then stays.

    Raises:
        OutputError: the file cannot be written, or there is one and it is not to be replaced.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{secrets.token_hex(8)}{PART}")
        try:
            with part.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            named = _name(part, path, overwrite)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    if not named:
        raise OutputError(f"{path} exists; name another --output, or allow --overwrite")


def _name(part: Path, path: Path, overwrite: bool) -> bool:
    """Gives a finished file its name; returns whether the name was free."""
    if overwrite:
        part.replace(path)
        return True
    try:
        try:
            path.hardlink_to(part)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: take the name first
            path.open("xb").close()
            part.replace(path)
    except FileExistsError:
        return False
    return True


def check_free(paths: Iterable[Path]) -> None:
    """Raises `OutputError` for a file that exists."""
    for path in paths:
        if path.exists():
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
    known = {_identity(path): path for path in inputs}
    for output in outputs:
        if _identity(output) in known:
            raise OutputError(
                f"the output {output} is an input ({known[_identity(output)]}); inputs are never overwritten, so name "
                "another --output"
            )


def _identity(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino
