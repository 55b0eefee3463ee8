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

from synccontrol.batch.executor import RemoteWorker
from synccontrol.batch.job import Job
from synccontrol.studio.backends import jpeg
from synccontrol.studio.queue import ENDED, GENERATING, Stopped
from synccontrol.studio.request import read_request
from synccontrol.studio.session import Session
from synccontrol.studio.studio import Studio
from tests.studio.conftest import LIMITS, MACHINE, ROOT

Values = Callable[..., dict[str, Any]]


def job(values: dict[str, Any], session: Session, name: str) -> Job:
    return read_request(values, session, (str(values["model"]),), offline=True).job(MACHINE, session.place() / name)


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_remote_worker_says_how_far_it_is(values: Values, session: Session) -> None:
    remote, wanted = RemoteWorker(torch.get_num_threads(), str(ROOT), encode=jpeg), job(values(), session, "a.png")
    outcome = remote.run(wanted)
    assert outcome is not None and not outcome.error
    report = remote.report(0)
    assert report[:3] == (3, 3, 1.0) and report.preview.startswith("data:image/jpeg")
    assert remote.report(3).preview == ""
    again = job(values(), session, "b.png")
    remote.end(again)
    assert remote.run(again) is None and not again.output.exists()


def test_it_draws_with_as_many_threads_as_who_asks(values: Values, session: Session) -> None:
    here = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(RemoteWorker(here + 1, str(ROOT)).run, job(values(), session, "a.png")).result()
            assert pool.submit(torch.get_num_threads).result() == here + 1
    finally:
        torch.set_num_threads(here)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    ray = pytest.importorskip("ray")
    from synccontrol.studio import backends

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    studio = Studio(MACHINE, LIMITS, backends.remote(2, "", "cpu"))
    yield studio
    studio.close()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_workers_draw_at_the_same_time(cluster: Studio, studio: Studio, values: Values, session: Session) -> None:
    both = [cluster.submit(job(values(), session, "loads.png"), owner, lambda job, outcome: outcome) for owner in "ab"]
    wait(lambda: all(ticket.state == ENDED for ticket in both))
    many = [
        cluster.submit(job(values(steps=300, seed=seed), session, f"{seed}.png"), owner, lambda job, outcome: outcome)
        for seed, owner in enumerate("ab")
    ]
    wait(lambda: all(ticket.state == GENERATING and ticket.preview for ticket in many))
    cluster.queue.stop("b")
    wait(lambda: all(ticket.state == ENDED for ticket in many))
    assert isinstance(many[1].error, Stopped) and many[1].step < 300
    here = studio.submit(job(values(steps=300, seed=0), session, "here.png"), "a", lambda job, outcome: outcome)
    wait(lambda: here.state == ENDED)
    paths = [Path(ticket.result.output) for ticket in (many[0], here)]
    pictures = [np.asarray(Image.open(path)).astype(int) for path in paths]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    again = cluster.submit(job(values(), session, "again.png"), "b", lambda job, outcome: outcome)
    wait(lambda: again.state == ENDED)
    assert again.error is None  # the worker that was stopped goes on


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_image_of_a_worker_that_dies_is_generated_by_another(
    cluster: Studio, values: Values, session: Session
) -> None:
    ticket = cluster.submit(job(values(steps=300), session, "a.png"), "a", lambda job, outcome: outcome)
    wait(lambda: bool(ticket.preview))
    for executor in cluster._executors:
        for call in executor._calls.values():  # type: ignore[attr-defined]
            executor._ray.kill(call.worker)  # type: ignore[attr-defined]
    wait(lambda: ticket.state == ENDED)
    assert ticket.error is None and Path(ticket.result.output).exists()
