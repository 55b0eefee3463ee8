"""Workers of Ray behind the page's line: two pictures at a time, as they are drawn here, and an end within a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synccontrol.batch.job import Job
from synccontrol.studio.backends import Remote, StoppedError
from synccontrol.studio.queue import DRAWING, OVER, Stopped
from synccontrol.studio.request import asked
from synccontrol.studio.session import Visitor
from synccontrol.studio.studio import Studio
from tests.studio.conftest import LIMITS, MACHINE, ROOT

Values = Callable[..., dict[str, Any]]


def job(values: dict[str, Any], visitor: Visitor, name: str) -> Job:
    return asked(values, visitor, (str(values["model"]),), offline=True).job(MACHINE, visitor.place() / name)


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_remote_hand_says_how_far_it_is(values: Values, visitor: Visitor) -> None:
    remote = Remote(torch.get_num_threads(), str(ROOT))
    outcome = remote.make(job(values(), visitor, "a.png"))
    assert outcome is not None and not outcome.error
    steps, step, done, shown = remote.state(0)
    assert (steps, step, done) == (3, 3, 1.0) and shown.startswith("data:image/jpeg")
    assert remote.state(3)[3] == ""
    remote.stop()
    with pytest.raises(StoppedError):
        remote.check()


def test_it_draws_with_as_many_threads_as_who_asks(values: Values, visitor: Visitor) -> None:
    here = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(Remote(here + 1, str(ROOT)).make, job(values(), visitor, "a.png")).result()
            assert pool.submit(torch.get_num_threads).result() == here + 1
    finally:
        torch.set_num_threads(here)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    ray = pytest.importorskip("ray")
    from synccontrol.studio import backends

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    studio = Studio(MACHINE, LIMITS, backends.hands(2, "", "cpu"))
    yield studio
    studio.close()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_workers_draw_at_the_same_time(cluster: Studio, studio: Studio, values: Values, visitor: Visitor) -> None:
    both = [cluster.enlist(job(values(), visitor, "loads.png"), owner, lambda job, outcome: outcome) for owner in "ab"]
    wait(lambda: all(ticket.state == OVER for ticket in both))
    many = [
        cluster.enlist(job(values(steps=300, seed=seed), visitor, f"{seed}.png"), owner, lambda job, outcome: outcome)
        for seed, owner in enumerate("ab")
    ]
    wait(lambda: all(ticket.state == DRAWING and ticket.shown for ticket in many))
    cluster.line.stop("b")
    wait(lambda: all(ticket.state == OVER for ticket in many))
    assert isinstance(many[1].error, Stopped) and many[1].step < 300
    here = studio.enlist(job(values(steps=300, seed=0), visitor, "here.png"), "a", lambda job, outcome: outcome)
    wait(lambda: here.state == OVER)
    paths = [Path(ticket.result.output) for ticket in (many[0], here)]
    pictures = [np.asarray(Image.open(path)).astype(int) for path in paths]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    again = cluster.enlist(job(values(), visitor, "again.png"), "b", lambda job, outcome: outcome)
    wait(lambda: again.state == OVER)
    assert again.error is None  # the worker that was stopped goes on


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies_fails_its_picture_and_is_replaced(
    cluster: Studio, values: Values, visitor: Visitor
) -> None:
    ticket = cluster.enlist(job(values(steps=300), visitor, "a.png"), "a", lambda job, outcome: outcome)
    wait(lambda: bool(ticket.shown))
    ticket.see(0, 300, 0.0)
    for hand in cluster._hands:
        hand._ray.kill(hand._actor)  # type: ignore[attr-defined]
    wait(lambda: ticket.state == OVER)
    assert "the worker died while it drew" in str(ticket.error)
    again = cluster.enlist(job(values(), visitor, "again.png"), "a", lambda job, outcome: outcome)
    wait(lambda: again.state == OVER)
    assert again.error is None and Path(again.result.output).exists()
