"""Find the images of a folder or a glob pattern."""

import os
from collections.abc import Iterator
from pathlib import Path

from synccontrol.errors import InputError
from synccontrol.io.images import SUFFIXES

WILDCARDS = "*?["


def is_glob(path: Path) -> bool:
    """Return whether a path is a glob pattern and not the name of an existing file."""
    return any(letter in str(path) for letter in WILDCARDS) and not os.path.lexists(path)


def find_images(source: Path, output: Path | None = None) -> list[tuple[Path, Path]]:
    """Return the images of a folder or glob pattern: each path, and its path relative to the folder.

    The search is recursive. It skips hidden files and folders, and follows links except into a parent folder.

    Args:
        source: a folder, or a glob pattern. The folder of a pattern is its part before the first wildcard.
        output: the output folder of this run, whose files are skipped.

    Raises:
        InputError: there are no images.
    """
    root = _glob_root(source) if is_glob(source) else source
    outputs = None if output is None else os.path.realpath(output)
    matches = []
    for path in _glob(source, root) if is_glob(source) else _walk(root, ()):
        relative = path.relative_to(root)
        if relative.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in relative.parts):
            continue
        if not path.is_dir() and not (outputs and Path(os.path.realpath(path)).is_relative_to(outputs)):
            matches.append((path, relative))
    if not matches:
        raise InputError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    return sorted(matches)


def _glob_root(pattern: Path) -> Path:
    """Return the part of a glob pattern before its first wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if any(letter in part for letter in WILDCARDS):
            break
        parts.append(part)
    return Path(*parts)


def _glob(pattern: Path, root: Path) -> Iterator[Path]:
    try:
        yield from root.glob(str(pattern.relative_to(root)))
    except ValueError as error:
        raise InputError(f"{pattern} is no pattern ({error}); write *, ? and [a-z], or ** for all folders") from error


def _walk(folder: Path, parents: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the files below a folder; follow links, except into a parent folder."""
    try:
        status = folder.stat()
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); give a folder that can") from error
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, (*parents, identity))
        else:
            yield path
