"""Locks that the kernel takes back when their process dies, and the hidden files that carry them."""

import fcntl
import os
import platform
import secrets
import time
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

QUIET_SECONDS = 120.0  # after which a file of another machine that nobody touches counts as left behind
YOUNG_SECONDS = 1.0  # a file that is younger may be just about to be locked


@cache
def machine() -> str:
    """Returns what tells this machine, as long as it runs, from others: locks hold among its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:  # no Linux
        boot = ""
    return sha256(f"{platform.node()} {boot}".encode()).hexdigest()[:8]


def hidden(suffix: str) -> str:
    """Returns a name for a hidden file of this machine that nothing else has."""
    return f".{machine()}-{secrets.token_hex(8)}{suffix}"


def hold(file: IO[Any]) -> None:
    """Locks a file that this process has made, until it is closed or the process dies."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody looks at it this instant, or the file system has no locks
        return


def abandoned(file: IO[Any], owner: str) -> bool:
    """Returns whether a file's owner is gone, and if so locks it.

    The owner is gone if it does not hold the lock, and has been on this machine or has not touched the file for long.

    Args:
        file: open.
        owner: the owner's machine.

    Raises:
        OSError: the file cannot be looked at.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        known = owner == machine()
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        known = False
    return known or time.time() - os.fstat(file.fileno()).st_mtime > QUIET_SECONDS


def left_behind(folder: Path, suffix: str) -> Iterator[Path]:
    """Yields the files that `hidden` has named and whose owners are gone."""
    try:
        paths = [path for path in folder.iterdir() if path.name.startswith(".") and path.suffix == suffix]
    except OSError:
        return
    for path in paths:
        owner = path.name[1:].partition("-")[0]
        try:
            with path.open("rb") as file:
                young = time.time() - os.fstat(file.fileno()).st_mtime < YOUNG_SECONDS
                if not young and abandoned(file, owner):
                    yield path
        except OSError:
            continue
