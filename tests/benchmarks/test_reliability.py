"""The experiments on reliability, small: every picture is there once, with the bytes of an undisturbed run."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import reliability

pytestmark = pytest.mark.slow


def sound(found: dict[str, Any]) -> bool:
    return found["files"] > 0 and not any(found[name] for name in ("missing", "left_over", "other_bytes"))


def test_killed_again_and_again(tmp_path: Path) -> None:
    found = reliability.kills(tmp_path, items=30, count=4, seed=1)
    assert found["kills"] == 4
    assert sound(found), found


def test_four_runs_in_one_folder_of_which_one_is_killed(tmp_path: Path) -> None:
    found = reliability.together(tmp_path, items=40, count=4, seed=1)
    assert found["drawn_twice"] == 0
    assert sound(found), found


def test_workers_on_ray_killed_again_and_again(tmp_path: Path) -> None:
    found = reliability.workers(tmp_path, items=30, count=3, seed=1)
    assert found["workers_killed"] == 3
    assert sound(found), found


def test_memory_does_not_grow(tmp_path: Path) -> None:
    found = reliability.memory(tmp_path, items=200, count=0, seed=0)
    assert found["interval"][0] < 100_000, found  # bytes a picture
