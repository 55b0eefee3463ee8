"""Detectors: shared by the jobs of a run, whatever their models; gone when nobody needs them or memory is short."""

import dataclasses
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from synccontrol import Montage
from synccontrol.batch import model_request, worker
from synccontrol.batch.executor import LocalExecutor
from synccontrol.batch.model_request import MAX_LOADED, Detectors
from synccontrol.batch.worker import Worker
from synccontrol.errors import MemoryLimitError
from tests.batch.wanted import JOB, following

RECIPE = following("canny")


class Counted:
    """A detector that is a copy of its guide, and fails as often as it is told to."""

    made: list["weakref.ref[Counted]"]
    failures: list[Exception]

    def __init__(self) -> None:
        self.made.append(weakref.ref(self))

    def __call__(self, guide: Image.Image) -> Image.Image:
        if self.failures:
            raise self.failures.pop()
        return guide


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    Counted.made, Counted.failures = [], []
    monkeypatch.setattr(model_request, "detector", lambda *_, **__: Counted())
    return Counted


@pytest.fixture
def jobs(tmp_path: Path) -> list[Any]:
    Image.effect_noise((96, 64), 50).convert("RGB").save(tmp_path / "guide.png")
    return [
        dataclasses.replace(JOB, guide=tmp_path / "guide.png", output=tmp_path / f"{name}.png", recipe=RECIPE)
        for name in "abc"
    ]


def test_what_is_asked_for_alike_is_one_and_the_oldest_of_many_goes(counted: type[Counted]) -> None:
    loaded = Detectors()
    first = loaded.load(RECIPE, "canny", None)
    assert loaded.load(following("canny", "depth"), "canny", None) is first
    assert loaded.load(RECIPE, "canny", None, low=3) is not first
    assert loaded.load(RECIPE, "canny", "opencv") is not first
    for low in range(MAX_LOADED - 3):
        loaded.load(RECIPE, "canny", None, low=100 + low)
    assert loaded.load(RECIPE, "canny", None) is first
    for low in range(MAX_LOADED - 1):
        loaded.load(RECIPE, "canny", None, low=200 + low)
    assert loaded.load(RECIPE, "canny", None) is first
    loaded.load(RECIPE, "canny", "another")
    count = len(counted.made)
    loaded.load(RECIPE, "canny", None, low=200)
    assert len(counted.made) == count + 1


def test_those_of_other_controls_or_machines_go(counted: type[Counted]) -> None:
    loaded = Detectors()
    canny = weakref.ref(loaded.load(RECIPE, "canny", None))
    depth = weakref.ref(loaded.load(following("depth"), "depth", None))
    loaded.free_unused(following("canny").request)
    gc.collect()
    assert canny() is not None and depth() is None
    loaded.free_unused(dataclasses.replace(RECIPE.request, offline=True))
    gc.collect()
    assert canny() is None


def test_two_models_share_a_detector_which_goes_with_the_last_job(
    make_pipe: Callable[..., Any], counted: type[Counted], jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_request, "load", lambda _: Montage.from_pipe(make_pipe(controls=1)))
    monkeypatch.setattr(worker, "_revision", lambda _: "")
    other = dataclasses.replace(RECIPE, request=dataclasses.replace(RECIPE.request, model="other"))
    jobs[2] = dataclasses.replace(jobs[2], recipe=other)
    engine = LocalExecutor()
    outcomes = list(engine.work(iter(jobs)))
    assert [outcome.error for outcome in outcomes] == ["", "", ""]
    assert len(counted.made) == 1
    gc.collect()
    assert counted.made[0]() is None


@pytest.mark.parametrize("stage", ["maps", "drawing"])
def test_where_memory_is_short_detectors_go_and_it_is_tried_again(
    stage: str, make_pipe: Callable[..., Any], counted: type[Counted], jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = Worker(RECIPE.request, montage=Montage.from_pipe(make_pipe(controls=1)))
    if stage == "maps":
        counted.failures = [torch.OutOfMemoryError("no memory")]
    else:
        real, failures = Montage.generate, [MemoryLimitError("no memory")]

        def generate(self: Montage, *arguments: Any, **options: Any) -> Any:
            if failures:
                raise failures.pop()
            return real(self, *arguments, **options)

        monkeypatch.setattr(Montage, "generate", generate)
    assert drawing.run(jobs[0]).error == ""
    assert len(counted.made) == (2 if stage == "maps" else 1)
    gc.collect()
    assert counted.made[0]() is None
    assert drawing.run(jobs[1]).error == ""


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("can't allocate memory")])
def test_a_detector_that_never_fits_fails_its_picture_alone(
    error: Exception, make_pipe: Callable[..., Any], counted: type[Counted], jobs: list[Any]
) -> None:
    drawing = Worker(RECIPE.request, montage=Montage.from_pipe(make_pipe(controls=1)))
    counted.failures = [error, error]
    outcome = drawing.run(jobs[0])
    assert "out of memory; try another --detector" in outcome.error and outcome.error.count("\n") == 0
    assert not outcome.fatal and outcome.traceback == ""
    assert drawing.run(jobs[1]).error == ""


def test_what_else_goes_wrong_is_not_tried_again(counted: type[Counted]) -> None:
    loaded, calls = Detectors(), []

    def make() -> None:
        calls.append(1)
        raise RuntimeError("of a library")

    loaded.load(RECIPE, "canny", None)
    with pytest.raises(RuntimeError, match="of a library"):
        loaded.retry_without(make)
    assert len(calls) == 1
