"""The one access to models on the Hugging Face hub: from this machine when all is here, else downloaded, or an error.

It knows nothing of detectors or pipelines; who loads something translates `HubError` and says what else would work.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from preprocess.errors import HubError, reason
from preprocess.silence import silent

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
