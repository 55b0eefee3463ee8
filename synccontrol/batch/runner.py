"""Making the pictures of a run: each once, whoever else works in the same folder, and whatever happens to one."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from synccontrol.batch.executor import AbstractEngine
from synccontrol.batch.job import Job, Outcome
from synccontrol.errors import ModelError, OutputError
from synccontrol.io import atomic_write, claims

WAIT_SECONDS = 0.5  # between looks at what other runs are making

Report = Callable[[Job, Outcome | None], object]  # what became of a job; None: another run has made it


def run(jobs: Sequence[Job], engine: AbstractEngine, report: Report, check: Callable[[], object]) -> None:
    """Makes pictures. What another run is making is waited for, and made here if that run dies.

    Args:
        jobs: the pictures.
        engine: makes them.
        report: called with what became of each, once.
        check: called between jobs, and while others are waited for; raises `KeyboardInterrupt` to end the run.

    Raises:
        ModelError: what is missing, every picture needs.
        KeyboardInterrupt: somebody wants an end; what is drawn by then is written and reported.
    """
    new = _missing({parent for job in jobs for parent in job.output.parents})
    try:
        with claims.Claims() as own:
            turns = _Turns(jobs, own, report, check)
            while turns.left:
                count = len(turns.left)
                for outcome in engine.work(turns.take()):
                    turns.over(outcome)
                if len(turns.left) == count:
                    check()
                    time.sleep(WAIT_SECONDS)
    finally:
        sweep(jobs)
        for folder in new:  # in which nothing was made
            with suppress(OSError):
                folder.rmdir()


class _Turns:
    """Whose turn each job is.

    Attributes:
        left: jobs that other runs are making.
    """

    def __init__(self, jobs: Sequence[Job], own: claims.Claims, report: Report, check: Callable[[], object]) -> None:
        self.left = list(jobs)
        # Without leave to overwrite nothing was there when the job was planned, however long ago that was.
        self._before = {job.output: _identity(job.output) if job.overwrite else None for job in jobs}
        self._own, self._report, self._check = own, report, check
        self._taken: dict[str, Job] = {}

    def take(self) -> Iterator[Job]:
        """Yields the jobs that are this run's, claimed."""
        jobs, self.left = self.left, []
        for job in jobs:
            self._check()
            try:
                mine = not self._is_made(job) and self._own.take(job.output)
            except OutputError as error:
                self._report(job, Outcome(output=str(job.output), error=str(error)))
                continue
            if self._is_made(job):  # looked at again, now that nobody else can make it
                self._own.release(job.output)
                self._report(job, None)
            elif mine:
                self._taken[str(job.output)] = job
                yield job
            else:
                self.left.append(job)

    def over(self, outcome: Outcome) -> None:
        """Reports what became of a job, and gives its claim up. Raises `ModelError` if every job would meet it."""
        job = self._taken.pop(outcome.output)
        self._own.release(job.output)
        if outcome.fatal:
            raise ModelError(outcome.error)
        self._report(job, outcome)

    def _is_made(self, job: Job) -> bool:
        """Returns whether another run has made a job's picture since this one began."""
        return _identity(job.output) != self._before[job.output]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _missing(folders: set[Path]) -> list[Path]:
    """Returns those folders that are not there, deepest first."""
    return sorted((folder for folder in folders if not folder.exists()), key=lambda folder: -len(folder.parts))


def sweep(jobs: Sequence[Job]) -> None:
    """Removes what killed runs have left in the folders of outputs: unfinished files, and claims."""
    folders: dict[Path, list[Path]] = {}
    for job in jobs:
        folders.setdefault(job.output.parent, []).append(job.output)
    for folder, names in folders.items():
        claims.sweep(folder, names)
        atomic_write.sweep(folder)
