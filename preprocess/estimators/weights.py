"""Weights of detectors: from this machine when there, else downloaded, else an error that names what works without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from preprocess import hub
from preprocess.control import Runtime
from preprocess.errors import DetectorError, HubError

Loaded = TypeVar("Loaded")

OFFLINE_HINT = "the detector 'tiny' needs no download"


def fetch(load: Callable[[bool], Loaded], model: str, runtime: Runtime, hint: str = OFFLINE_HINT) -> Loaded:
    """Returns what `load` makes of a model, without the network where that is possible, as `hub.fetch`.

    Args:
        load: Loads the model; its argument says whether only files on this machine may be used.
        model: A hub id or a folder.
        runtime: Whether the network may be used.
        hint: What works without the model, for the error.

    Raises:
        DetectorError: The model cannot be had, or is of another kind.
    """
    try:
        return hub.fetch(load, [model], runtime.offline)
    except HubError as error:
        raise DetectorError(f"{error}; {hint}") from error
