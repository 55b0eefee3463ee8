"""Load models from the Hugging Face hub, and suppress the output of the packages that load them.

A model is loaded from this machine if all its files are here, else downloaded. `HubError` says what is missing;
callers translate it and add an alternative.
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


class _SharedContext:
    """A process-wide context: the first thread that uses it enters it, the last one leaves it."""

    def __init__(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        self._context, self._open = context, ExitStack()
        self._lock, self._users = Lock(), 0

    @contextmanager
    def use(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._open.enter_context(self._context())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._open.close()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings, and the logs and progress bars of the loaded Hugging Face libraries."""
    with ExitStack() as stack:
        for name, shared in _QUIET_CONTEXTS.items():
            if name in sys.modules:
                stack.enter_context(shared.use())
        yield


@contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress printed output as well. Keep the block short, because other threads cannot print either."""
    with quiet_libraries(), _OUTPUT_CONTEXT.use():
        yield


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _quiet_hub() -> Iterator[None]:
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
def _quiet_library(name: str) -> Iterator[None]:
    """Suppress the logs and progress bars of diffusers or transformers."""
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
def _discard_output() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


_QUIET_CONTEXTS = {  # by module; a module is silenced only once it is loaded
    "warnings": _SharedContext(_ignore_warnings),
    "huggingface_hub": _SharedContext(
        _quiet_hub
    ),  # before transformers, which enables the progress bars of the hub together with its own
    "transformers": _SharedContext(lambda: _quiet_library("transformers")),
    "diffusers": _SharedContext(lambda: _quiet_library("diffusers")),
}
_OUTPUT_CONTEXT = _SharedContext(_discard_output)


Loaded = TypeVar("Loaded")

ANSWER_SECONDS = 5.0  # time limit for the hub to answer whether it has a model


def fetch(load: Callable[[bool], Loaded], sources: Sequence[str], offline: bool) -> Loaded:
    """Load models without output, and without the network if all files are on this machine.

    Args:
        load: loads the models; its argument is `local_files_only`. It raises OSError for a missing file, and
            ValueError for a model of an unexpected type.
        sources: all hub ids and folders of the models, the main one first.
        offline: never access the network; the environment variable HF_HUB_OFFLINE has the same effect.

    Raises:
        HubError: a model is not on this machine and cannot be downloaded, or it has an unexpected type.
        MemoryError: the files cannot be mapped into memory.
    """
    no_network = is_offline(offline)
    remote = [source for source in sources if not Path(source).exists()]
    names = " or ".join(repr(source) for source in remote or sources[:1])
    with quiet_libraries():
        try:
            return load(True)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                raise MemoryError(str(error)) from error
            if not remote or (no_network and isinstance(error, ValueError)):
                raise HubError(f"{names} cannot be used: {reason(error)}") from error
            if no_network:
                raise HubError(f"{names} has not been downloaded and downloads are off") from error
        for source in remote:
            _check_hub_has(source)
        try:
            return load(False)
        except (OSError, ValueError) as error:
            raise HubError(f"{names} cannot be used: {reason(error)}") from error


def is_offline(offline: bool) -> bool:
    """Return whether downloads are off, by the argument or by the environment variable HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return offline or bool(constants.HF_HUB_OFFLINE)


def _check_hub_has(source: str) -> None:
    """Raise `HubError` unless the hub has a model. An unreachable hub costs seconds instead of several retries."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        huggingface_hub.HfApi().model_info(source, timeout=ANSWER_SECONDS)
    except (HfHubHTTPError, HFValidationError) as error:
        raise HubError(f"the hub does not give {source!r}: {reason(error)}") from error
    except Exception as error:  # the error type of a dead network depends on the version of huggingface_hub
        unreachable = f"the hub cannot be reached ({type(error).__name__})"
        raise HubError(f"{source!r} has not been downloaded and {unreachable}; connect once to download it") from error
