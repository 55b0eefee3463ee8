"""Suppressing the output of other packages, and restoring the process, with several threads."""

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
from preprocess.hub import quiet_libraries, suppress_output


def state() -> dict[str, Any]:
    """Return all settings that suppressing output changes."""
    loggings = [library.utils.logging for library in (diffusers, transformers)]
    return {
        "streams": (sys.stdout, sys.stderr),
        "filters": list(warnings.filters),
        "levels": [logging.get_verbosity() for logging in (*loggings, hub_utils.logging)],
        "bars": [logging.is_progress_bar_enabled() for logging in loggings],
        "hub bars off": hub_utils.are_progress_bars_disabled(),
    }


@pytest.mark.parametrize("context", [quiet_libraries, suppress_output])
def test_overlapping_contexts_restore_the_process(context: Callable[[], AbstractContextManager[None]]) -> None:
    before, first, second, third = state(), context(), context(), context()
    first.__enter__()
    during = state()
    second.__enter__()
    first.__exit__(None, None, None)
    assert state() == during  # the second context is still open
    third.__enter__()
    second.__exit__(None, None, None)
    third.__exit__(None, None, None)
    assert during != before
    assert state() == before


@pytest.mark.parametrize("bars", [True, False])
def test_concurrent_loads_restore_the_process(bars: bool) -> None:
    (transformers.utils.logging.enable_progress_bar if bars else transformers.utils.logging.disable_progress_bar)()
    before, start = state(), threading.Barrier(8)

    def load(local: bool) -> dict[str, Any]:
        return state()

    def fetch(_: int) -> list[dict[str, Any]]:
        start.wait()
        return [hub.fetch(load, ["."], True) for _ in range(50)]

    try:
        with ThreadPoolExecutor(8) as pool:
            during = [snapshot for snapshots in pool.map(fetch, range(8)) for snapshot in snapshots]
        assert all(not any(snapshot["bars"]) and snapshot["hub bars off"] for snapshot in during)
        assert state() == before
    finally:
        transformers.utils.logging.enable_progress_bar()


def test_warnings_and_printed_output_are_suppressed(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_libraries():
        warnings.warn("hush", UserWarning, stacklevel=1)
        transformers.utils.logging.get_logger("transformers").warning("hush")
        print("visible")
    with suppress_output():
        print("hush")
        print("hush", file=sys.stderr)
    assert capfd.readouterr() == ("visible\n", "")


def test_errors_restore_the_process() -> None:
    before = state()
    with pytest.raises(KeyError), suppress_output():
        raise KeyError("x")
    assert state() == before
