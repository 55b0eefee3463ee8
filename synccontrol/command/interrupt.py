"""Ctrl-C, and SIGTERM: the current step is finished first; a second one ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether somebody wants an end."""

    def __init__(self) -> None:
        self._wanted = False

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if somebody wants an end; called between two steps."""
        if self._wanted:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds signals back until `check` is called, or a second one comes. In other threads it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._wanted:
            raise KeyboardInterrupt
        self._wanted = True
