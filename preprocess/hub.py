"""The one access to models on the Hugging Face hub, and silence of the packages that load them.

Models are read from this machine when all of their files are here, else downloaded. `HubError` says what is missing;
whoever loads something translates it and says what else would work.
"""

from __future__ import annotations

import errno
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TypeVar

from synccontrol.preprocess.errors import HubError, reason


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


Loaded = TypeVar("Loaded")

ANSWER_SECONDS = 5.0  # how long the hub may take to say whether it has a model


def fetch(load: Callable[[bool], Loaded], sources: Sequence[str], offline: bool) -> Loaded:
    """Returns what `load` makes of models, in silence, without the network where that is possible.

    Args:
        load: Loads them; its argument says whether only files on this machine may be used. It raises OSError where a
            file is missing, and ValueError where a model is of another kind.
        sources: All hub ids and folders that it loads from, the main one first.
        offline: Never ask the network; the environment's HF_HUB_OFFLINE says so too.

    Raises:
        HubError: A model is not on this machine, and the network is off, does not answer or has no such model; or it is
            of another kind.
        MemoryError: Its files cannot be mapped into memory.
    """
    off = is_off(offline)
    remote = [source for source in sources if not Path(source).exists()]
    names = " or ".join(repr(source) for source in remote or sources[:1])
    with silent():
        try:
            return load(True)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                raise MemoryError(str(error)) from error
            if not remote or (off and isinstance(error, ValueError)):
                raise HubError(f"{names} cannot be used: {reason(error)}") from error
            if off:
                raise HubError(f"{names} has not been downloaded and downloads are off") from error
        for source in remote:
            _ask(source)
        try:
            return load(False)
        except (OSError, ValueError) as error:
            raise HubError(f"{names} cannot be used: {reason(error)}") from error


def is_off(offline: bool) -> bool:
    """Returns whether nothing may be downloaded: so asked, or so says the environment's HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return offline or bool(constants.HF_HUB_OFFLINE)


def _ask(source: str) -> None:
    """Asks the hub whether it has a model, so that an unreachable hub costs seconds and not a round of retries."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        huggingface_hub.HfApi().model_info(source, timeout=ANSWER_SECONDS)
    except (HfHubHTTPError, HFValidationError) as error:
        raise HubError(f"the hub does not give {source!r}: {reason(error)}") from error
    except Exception as error:  # which library reports a dead network depends on the version of huggingface_hub
        unreachable = f"the hub cannot be reached ({type(error).__name__})"
        raise HubError(f"{source!r} has not been downloaded and {unreachable}; connect once to download it") from error
