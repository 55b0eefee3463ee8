"""Weights from the Hugging Face hub: from the cache when there, else downloaded, else a clear error at once."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from preprocess.control import Runtime
from preprocess.errors import DetectorError

Loaded = TypeVar("Loaded")

ANSWER_SECONDS = 5.0  # how long the hub may take to say whether it has a model
OFFLINE_HINT = "the detector 'tiny' needs no download"


def fetch(load: Callable[[bool], Loaded], model: str, runtime: Runtime, hint: str = OFFLINE_HINT) -> Loaded:
    """Returns what `load` makes of a model, without the network where that is possible.

    Args:
        load: Loads the model; its argument says whether only files on this machine may be used. It raises OSError
            where a file is missing, and ValueError where the model is of another kind.
        model: A hub id or a folder.
        runtime: Whether the network may be used.
        hint: What works without the model, for the error.

    Raises:
        DetectorError: The model is not on this machine, and the network is off, does not answer or has no such model.
    """
    import huggingface_hub

    with quiet():
        try:
            return load(True)
        except (OSError, ValueError) as error:
            if Path(model).exists() or isinstance(error, ValueError):
                raise DetectorError(f"'{model}' cannot be used: {first_line(error)}; {hint}") from error
        if runtime.offline or huggingface_hub.constants.HF_HUB_OFFLINE:
            raise DetectorError(f"'{model}' has not been downloaded and downloads are off; allow them, or {hint}")
        _ask(model, hint)
        try:
            return load(False)
        except (OSError, ValueError) as error:
            raise DetectorError(f"'{model}' cannot be downloaded: {first_line(error)}; {hint}") from error


def torch_device(name: str) -> torch.device:
    """Returns the torch device `name`.

    Raises:
        DetectorError: There is no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DetectorError(f"device '{name}' cannot be used: {first_line(error)}; use cpu") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what other packages print, warn of and show as progress from the terminal."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _ask(model: str, hint: str) -> None:
    """Asks the hub whether it has `model`, so that an unreachable hub costs seconds and not a round of retries."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        huggingface_hub.HfApi().model_info(model, timeout=ANSWER_SECONDS)
    except (HfHubHTTPError, HFValidationError) as error:
        raise DetectorError(f"the hub does not give '{model}': {first_line(error)}; {hint}") from error
    except Exception as error:  # which library reports a dead network depends on the version of huggingface_hub
        raise DetectorError(
            f"'{model}' has not been downloaded and the hub cannot be reached ({type(error).__name__}); "
            f"connect once to download it, or {hint}"
        ) from error


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
