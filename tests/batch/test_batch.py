"""A run among others: what somebody else has made in the meantime is theirs, and no failure."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from synccontrol.batch import runner
from synccontrol.batch.executor import AbstractExecutor
from synccontrol.batch.job import Job, Outcome
from synccontrol.batch.model_request import ModelRequest
from synccontrol.batch.worker import LISTENER, Listener
from synccontrol.errors import ModelError
from synccontrol.io import atomic_write, claims
from tests.batch.wanted import JOB


class Writing(AbstractExecutor):
    """Writes a word for a picture."""

    def ready(self, request: ModelRequest) -> None:
        """Needs nothing."""

    def work(self, jobs: Iterator[Job], listener: Listener = LISTENER) -> Iterator[Outcome]:
        for job in jobs:
            job.output.write_text("ours")
            yield Outcome(output=str(job.output))

    def close(self) -> None:
        """Holds nothing."""


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_made_between_planning_and_running_is_kept_unless_it_may_be_replaced(
    tmp_path: Path, overwrite: bool
) -> None:
    jobs = [replace(JOB, output=tmp_path / f"{name}.png", overwrite=overwrite) for name in "ab"]
    jobs[0].output.write_text("theirs")  # while this run was loading its model
    seen: dict[str, Outcome | None] = {}

    def report(job: Job, outcome: Outcome | None) -> None:
        seen[job.output.name] = outcome

    runner.run(jobs, Writing(), report, LISTENER)
    assert jobs[0].output.read_text() == ("ours" if overwrite else "theirs")
    assert (seen["a.png"] is None) == (not overwrite)
    assert seen["b.png"] == Outcome(output=str(jobs[1].output)) and jobs[1].output.read_text() == "ours"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


class Failing(Writing):
    """Writes half of a picture, and fails as a whole."""

    def work(self, jobs: Iterator[Job], listener: Listener = LISTENER) -> Iterator[Outcome]:
        for job in jobs:
            yield Outcome(output=str(job.output), error="no model", fatal=True)


def test_a_run_that_makes_nothing_leaves_only_what_was_there_before(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    mine = there / "mine.txt"
    mine.write_text("mine")
    new = there / "new" / "deeper"
    job = replace(JOB, output=new / "a.png")
    with pytest.raises(ModelError, match="no model"):
        runner.run([job], Failing(), lambda job, outcome: None, LISTENER)
    assert list(there.iterdir()) == [mine]


def test_a_run_removes_what_a_killed_one_has_left_unfinished_and_nothing_else(tmp_path: Path) -> None:
    job = replace(JOB, output=tmp_path / "a.png")
    left, other = tmp_path / claims.hidden_name(atomic_write.PART), tmp_path / ".other.part.txt"
    for path in (left, other):
        path.write_text("half")
        os.utime(path, (0, 0))  # long ago
    runner.run([job], Writing(), lambda job, outcome: None, LISTENER)
    assert sorted(tmp_path.iterdir()) == sorted([job.output, other])
