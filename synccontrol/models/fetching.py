"""Reading what folders, the hub's cache and the hub hold, or a line on why that is not to be had."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TypeVar

from preprocess import hub
from preprocess.errors import HubError
from synccontrol.errors import ModelError

Loaded = TypeVar("Loaded")

OFFLINE_HINT = "without network use --model tiny or a diffusers folder"
LIBRARIES = ("diffusers", "transformers")  # that log and draw bars while they load


def fetch(load: Callable[[bool], Loaded], sources: Sequence[str], offline: bool, hint: str = OFFLINE_HINT) -> Loaded:
    """Returns what `load` makes of folders and hub ids, as `preprocess.hub.fetch`; `hint` says what works without.

    Raises:
        ModelError: a file is missing or broken, or the hub does not give it.
    """
    for library in LIBRARIES:
        import_module(library)  # what is loaded falls silent
    try:
        return hub.fetch(load, sources, offline)
    except HubError as error:
        raise ModelError(f"{error}; {hint}") from error
