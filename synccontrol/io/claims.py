"""Claims on outputs: hidden lock files, which the kernel unlocks when their process dies."""

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

STALE_SECONDS = 120.0  # a file of another machine without a heartbeat for so long is abandoned
YOUNG_SECONDS = 1.0  # a younger file may not be locked yet


@cache
def machine_id() -> str:
    """Return an id of this machine and its boot; locks work between the processes that share it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:  # not Linux
        boot = ""
    return sha256(f"{platform.node()} {boot}".encode()).hexdigest()[:8]


def hidden_name(suffix: str) -> str:
    """Return a unique name for a hidden file of this machine."""
    return f".{machine_id()}-{secrets.token_hex(8)}{suffix}"


def lock_file(file: IO[Any]) -> None:
    """Lock a file that this process has created, until the file is closed or the process dies."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process is checking the file, or the file system has no locks
        return


def lock_if_abandoned(file: IO[Any], owner: str) -> bool:
    """Lock a file if its owner is gone; return whether it is.

    The owner is gone if it holds no lock and either ran on this machine or has missed its heartbeats.

    Args:
        file: the open file.
        owner: the id of the owner's machine.

    Raises:
        OSError: the file's status cannot be read.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_local = owner == machine_id()
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        is_local = False
    return is_local or time.time() - os.fstat(file.fileno()).st_mtime > STALE_SECONDS


def abandoned_files(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the files named by `hidden_name` whose owners are gone."""
    try:
        paths = [path for path in folder.iterdir() if path.name.startswith(".") and path.suffix == suffix]
    except OSError:
        return
    for path in paths:
        owner = path.name[1:].partition("-")[0]
        try:
            with path.open("rb") as file:
                is_young = time.time() - os.fstat(file.fileno()).st_mtime < YOUNG_SECONDS
                if not is_young and lock_if_abandoned(file, owner):
                    yield path
        except OSError:
            continue


CLAIM, FRESH = ".claim", ".fresh"  # suffixes of a claim, and of a claim before it gets its final name
HEARTBEAT_SECONDS = 20.0  # between heartbeats; well below `STALE_SECONDS`


def claim_path(output: Path) -> Path:
    """Return the path of the claim on an output: a hidden file in the same folder."""
    return output.with_name(f".{sha256(os.fsencode(output.name)).hexdigest()[:16]}{CLAIM}")


class Claims:
    """The claims of this process: exclusive files, locked while the process lives and touched at every heartbeat.

    A process can take over the claim of a dead one. On the same machine this works at once, because the kernel has
    released the lock. For a claim of another machine it works after `STALE_SECONDS` without a heartbeat. Use the
    object as a context manager.
    """

    def __init__(self) -> None:
        self._held: dict[Path, IO[Any]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._heartbeat = threading.Thread(target=self._touch_claims, daemon=True)

    def __enter__(self) -> "Claims":
        self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._heartbeat.join()
        for path in list(self._held):
            self._drop(path)

    def take(self, output: Path) -> bool:
        """Claim an output for this process; return False if a running process has claimed it.

        Raises:
            OutputError: the output's folder cannot be written to.
        """
        path = claim_path(output)
        folder_existed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder_existed = True
            file = self._take_existing(path) if path.exists() else self._create(path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and folder_existed and not path.parent.is_dir():
                return False  # another run has just removed the empty folder
            raise OutputError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
        if file is None:
            return False
        with self._lock:
            self._held[path] = file
        return True

    def release(self, output: Path) -> None:
        """Give up the claim on an output, whether the output exists or not."""
        self._drop(claim_path(output))

    def _create(self, path: Path) -> IO[Any] | None:
        """Return a new claim, which contains its owner before it gets its name; None if another process was faster."""
        unnamed = path.with_name(hidden_name(FRESH))
        file = unnamed.open("x+b", buffering=0)
        try:
            lock_file(file)
            file.write(machine_id().encode())
            try:
                path.hardlink_to(unnamed)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                path.open("xb").close()
                unnamed.replace(path)
        except FileExistsError:
            file.close()
            return None
        finally:
            unnamed.unlink(missing_ok=True)
        return file

    def _take_existing(self, path: Path) -> IO[Any] | None:
        """Take over an existing claim and return it; None if its owner is alive."""
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:  # another process has just released it
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

    def _touch_claims(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with self._lock:
                for file in self._held.values():
                    os.utime(file.fileno())


def _take_over(file: IO[Any], path: Path) -> bool:
    """Lock an open claim if its owner is gone; return whether it is, and the claim is still the file at its path."""
    try:
        owner = file.read().decode("ascii", "replace")
        return lock_if_abandoned(file, owner) and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:  # another process has just released it
        return False


def sweep(folder: Path, outputs: Iterable[Path]) -> None:
    """Remove the claims of dead runs on the outputs of a folder, and claims that never got their name."""
    with suppress(OSError):  # a leftover file does no harm
        for path in abandoned_files(folder, FRESH):
            path.unlink(missing_ok=True)
        existing = {path.name for path in folder.iterdir()}
        for path in map(claim_path, outputs):
            if path.name in existing:
                with suppress(FileNotFoundError), path.open("rb") as file:
                    if _take_over(file, path):
                        path.unlink()
