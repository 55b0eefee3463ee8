"""The pictures of a folder or a glob, and where they lie in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from synccontrol.errors import InputError
from synccontrol.io.images import SUFFIXES

WILD = "*?["


def is_glob(path: Path) -> bool:
    """Returns whether a path is a pattern of many, and no file of that name is there."""
    return any(letter in str(path) for letter in WILD) and not os.path.lexists(path)


def find_images(place: Path, own: Path | None = None) -> list[tuple[Path, Path]]:
    """Returns the pictures of a folder, searched through, or of a glob: each path, and its path below the folder.

    Hidden files are left out, and so are those in a hidden folder. Links are followed, each folder once on a way down.

    Args:
        place: the folder, or a glob, whose folder is its part before the first wildcard.
        own: a folder inside of which nothing counts: the run's own outputs.

    Raises:
        InputError: there are none.
    """
    root = _fixed(place) if is_glob(place) else place
    outputs = None if own is None else os.path.realpath(own)
    found = []
    for path in _matching(place, root) if is_glob(place) else _walk(root, ()):
        below = path.relative_to(root)
        if below.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in below.parts):
            continue
        if not path.is_dir() and not (outputs and Path(os.path.realpath(path)).is_relative_to(outputs)):
            found.append((path, below))
    if not found:
        raise InputError(f"{place} holds no pictures ({', '.join(SUFFIXES)})")
    return sorted(found)


def _fixed(pattern: Path) -> Path:
    """Returns the part of a glob before its first wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if any(letter in part for letter in WILD):
            break
        fixed.append(part)
    return Path(*fixed)


def _matching(pattern: Path, root: Path) -> Iterator[Path]:
    try:
        yield from root.glob(str(pattern.relative_to(root)))
    except ValueError as error:
        raise InputError(f"{pattern} is no pattern ({error}); write *, ? and [a-z], or ** for all folders") from error


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yields the files of a folder and those below it, by links too, but never into a folder that it lies in."""
    try:
        status = folder.stat()
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); give a folder that can") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, identity))
        else:
            yield path
