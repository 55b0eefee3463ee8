"""Locks that the kernel takes back when their process dies, and the hidden files that carry them."""

import fcntl
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from synccontrol.errors import OutputError

STALE_SECONDS = 120.0  # after which a file of another machine that nobody touches counts as left behind
YOUNG_SECONDS = 1.0  # a file that is younger may be just about to be locked


@cache
def machine_id() -> str:
    """Returns what tells this machine, as long as it runs, from others: locks hold among its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:  # no Linux
        boot = ""
    return sha256(f"{platform.node()} {boot}".encode()).hexdigest()[:8]


def hidden_name(suffix: str) -> str:
    """Returns a name for a hidden file of this machine that nothing else has."""
    return f".{machine_id()}-{secrets.token_hex(8)}{suffix}"


def lock_file(file: IO[Any]) -> None:
    """Locks a file that this process has made, until it is closed or the process dies."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody looks at it this instant, or the file system has no locks
        return


def lock_if_abandoned(file: IO[Any], owner: str) -> bool:
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
        known = owner == machine_id()
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        known = False
    return known or time.time() - os.fstat(file.fileno()).st_mtime > STALE_SECONDS


def abandoned_files(folder: Path, suffix: str) -> Iterator[Path]:
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
                if not young and lock_if_abandoned(file, owner):
                    yield path
        except OSError:
            continue


CLAIM, FRESH = ".claim", ".fresh"  # suffixes of a claim, and of one that has not its name yet
HEARTBEAT_SECONDS = 20.0  # between signs of life; well below `locks.QUIET_SECONDS`


def claim_path(output: Path) -> Path:
    """Returns where the claim on an output lies: hidden, beside it."""
    return output.with_name(f".{sha256(os.fsencode(output.name)).hexdigest()[:16]}{CLAIM}")


class Claims:
    """The claims of this process: exclusive files, locked as long as it lives, and touched now and then.

    A claim whose process has died is taken over: at once on the same machine, whose kernel gives its lock back; after
    `locks.QUIET_SECONDS` without a sign of life where it came from another one. Use it as a context.
    """

    def __init__(self) -> None:
        self._held: dict[Path, IO[Any]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Claims":
        self._beating.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._beating.join()
        for path in list(self._held):
            self._drop(path)

    def take(self, output: Path) -> bool:
        """Returns whether this process now makes an output; False: a living one does.

        Raises:
            OutputError: nothing can be written there.
        """
        path = claim_path(output)
        was_there = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            was_there = True
            file = self._existing(path) if path.exists() else self._fresh(path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and was_there and not path.parent.is_dir():
                return False  # another run has just removed the folder, empty as it was
            raise OutputError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
        if file is None:
            return False
        with self._lock:
            self._held[path] = file
        return True

    def release(self, output: Path) -> None:
        """Gives an output up, made or not."""
        self._drop(claim_path(output))

    def _fresh(self, path: Path) -> IO[Any] | None:
        """Returns a new claim, its owner in it before it has its name; None: somebody was faster."""
        fresh = path.with_name(hidden_name(FRESH))
        file = fresh.open("x+b", buffering=0)
        try:
            lock_file(file)
            file.write(machine_id().encode())
            try:
                path.hardlink_to(fresh)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                path.open("xb").close()
                fresh.replace(path)
        except FileExistsError:
            file.close()
            return None
        finally:
            fresh.unlink(missing_ok=True)
        return file

    def _existing(self, path: Path) -> IO[Any] | None:
        """Returns a claim that is there, taken over; None if its owner lives."""
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:  # it was released this instant
            return None
        if not _take_over(file, path):
            file.close()
            return None
        file.seek(0)
        file.write(machine_id().encode())
        return file

    def _drop(self, path: Path) -> None:
        with self._lock:
            file = self._held.pop(path, None)
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            with self._lock:
                for file in self._held.values():
                    os.utime(file.fileno())


def _take_over(file: IO[Any], path: Path) -> bool:
    """Returns whether the owner of an open claim is gone; the claim is locked then, and still the one at its path."""
    try:
        owner = file.read().decode("ascii", "replace")
        return lock_if_abandoned(file, owner) and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:  # it was released this instant
        return False


def sweep(folder: Path, outputs: Iterable[Path]) -> None:
    """Removes the claims on outputs of a folder whose runs have died, and those that never got their name."""
    with suppress(OSError):  # what cannot be looked at or removed is no hindrance
        for path in abandoned_files(folder, FRESH):
            path.unlink(missing_ok=True)
        there = {path.name for path in folder.iterdir()}
        for path in map(claim_path, outputs):
            if path.name in there:
                with suppress(FileNotFoundError), path.open("rb") as file:
                    if _take_over(file, path):
                        path.unlink()
