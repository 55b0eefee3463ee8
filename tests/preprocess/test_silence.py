"""Other packages are silent while a thread wants it, and afterwards the process is as it was, whoever came and went."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import diffusers
import huggingface_hub.utils as hub_utils
import pytest
import transformers

from preprocess import hub
from preprocess.hub import muted, silent


def state() -> dict[str, Any]:
    """Returns all that silence changes."""
    loggings = [library.utils.logging for library in (diffusers, transformers)]
    return {
        "streams": (sys.stdout, sys.stderr),
        "filters": list(warnings.filters),
        "levels": [logging.get_verbosity() for logging in (*loggings, hub_utils.logging)],
        "bars": [logging.is_progress_bar_enabled() for logging in loggings],
        "hub bars off": hub_utils.are_progress_bars_disabled(),
    }


@pytest.mark.parametrize("context", [silent, muted])
def test_threads_that_come_and_go_leave_all_as_it_was(context: Callable[[], AbstractContextManager[None]]) -> None:
    before, first, second, third = state(), context(), context(), context()
    first.__enter__()
    during = state()
    second.__enter__()
    first.__exit__(None, None, None)
    assert state() == during  # the second still wants it
    third.__enter__()
    second.__exit__(None, None, None)
    third.__exit__(None, None, None)
    assert during != before
    assert state() == before


@pytest.mark.parametrize("bars", [True, False])
def test_threads_that_load_at_once_leave_all_as_it_was(bars: bool) -> None:
    (transformers.utils.logging.enable_progress_bar if bars else transformers.utils.logging.disable_progress_bar)()
    before, start = state(), threading.Barrier(8)

    def load(local: bool) -> dict[str, Any]:
        return state()

    def fetch(_: int) -> list[dict[str, Any]]:
        start.wait()
        return [hub.fetch(load, ["."], True) for _ in range(50)]

    try:
        with ThreadPoolExecutor(8) as pool:
            during = [found for one in pool.map(fetch, range(8)) for found in one]
        assert all(not any(found["bars"]) and found["hub bars off"] for found in during)
        assert state() == before
    finally:
        transformers.utils.logging.enable_progress_bar()


def test_silence_is_silent_and_muted_mute(capfd: pytest.CaptureFixture[str]) -> None:
    with silent():
        warnings.warn("hush", UserWarning, stacklevel=1)
        transformers.utils.logging.get_logger("transformers").warning("hush")
        print("said")
    with muted():
        print("hush")
        print("hush", file=sys.stderr)
    assert capfd.readouterr() == ("said\n", "")


def test_errors_end_silence() -> None:
    before = state()
    with pytest.raises(KeyError), muted():
        raise KeyError("x")
    assert state() == before
