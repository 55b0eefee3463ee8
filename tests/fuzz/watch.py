"""Watches what a program does to files: every call of this process that makes, changes or removes one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename": 2,
    "os.remove": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
}
HARMLESS = ("/dev/null", "/proc/")

_watchers: list["Watcher"] = []
_hooked: list[bool] = []


class Watcher:
    """Collects paths that were written to outside of a folder.

    Args:
        allowed: folders inside of which anything may be done.
    """

    def __init__(self, allowed: list[Path]) -> None:
        self._allowed = [Path(os.path.realpath(path)) for path in allowed]
        self.strange: list[str] = []

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            paths = [path] if isinstance(flags, int) and flags & WRITES else []
        else:
            paths = list(arguments[: CHANGES.get(event, 0)])
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                self._judge(event, os.fsdecode(path))

    def _judge(self, event: str, path: str) -> None:
        parent, name = os.path.split(path)
        real = Path(os.path.realpath(parent)) / name
        if event == "os.mkdir" and real.is_dir():  # nothing is made
            return
        if not path.startswith(HARMLESS) and not any(real.is_relative_to(folder) for folder in self._allowed):
            self.strange.append(f"{event} {path}")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watcher in list(_watchers):
        if event == "open" or event in CHANGES:
            watcher.see(event, arguments)


@contextmanager
def watched(*allowed: Path) -> Iterator[Watcher]:
    """Yields a watcher of what happens inside the context."""
    if not _hooked:
        sys.addaudithook(_hook)  # it stays for good, and does nothing when nobody watches
        _hooked.append(True)
    watcher = Watcher(list(allowed))
    _watchers.append(watcher)
    try:
        yield watcher
    finally:
        _watchers.remove(watcher)
