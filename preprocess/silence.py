"""Silence of other packages: what they log, warn of, print and show as progress.

All of it is state of the whole process. So the first thread that wants silence begins it, the last one ends it, and
then everything is as it was.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from importlib import import_module
from threading import Lock


class _Shared:
    """A context of the whole process: entered by the first thread that holds it, left by the last."""

    def __init__(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        self._context, self._open = context, ExitStack()
        self._lock, self._holders = Lock(), 0

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if not self._holders:
                self._open.enter_context(self._context())
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._open.close()


@contextmanager
def silent() -> Iterator[None]:
    """Keeps warnings, and the logs and progress bars of the loaded Hugging Face libraries, from the terminal."""
    with ExitStack() as stack:
        for name, shared in _SILENT.items():
            if name in sys.modules:
                stack.enter_context(shared.held())
        yield


@contextmanager
def muted() -> Iterator[None]:
    """Keeps what other packages print from the terminal as well; short, for other threads cannot print either."""
    with silent(), _MUTED.held():
        yield


@contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _hub() -> Iterator[None]:
    utils = import_module("huggingface_hub.utils")
    disabled, level = utils.are_progress_bars_disabled(), utils.logging.get_verbosity()
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        utils.logging.set_verbosity(level)
        (utils.disable_progress_bars if disabled else utils.enable_progress_bars)()


@contextmanager
def _library(name: str) -> Iterator[None]:
    """Silences diffusers or transformers."""
    logging = import_module(f"{name}.utils.logging")
    enabled, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def _unprinted() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


_SILENT = {  # by the name of a module, which is silenced once it is loaded
    "warnings": _Shared(_unwarned),
    "huggingface_hub": _Shared(_hub),  # before transformers, which turns the hub's bars on again with its own
    "transformers": _Shared(lambda: _library("transformers")),
    "diffusers": _Shared(lambda: _library("diffusers")),
}
_MUTED = _Shared(_unprinted)
