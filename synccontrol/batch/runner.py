"""Run every job once, also if other runs share the folder or some jobs fail."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from synccontrol.batch.executor import AbstractExecutor
from synccontrol.batch.job import Job, Outcome
from synccontrol.batch.worker import Listener
from synccontrol.errors import ModelError, OutputError
from synccontrol.io import atomic_write, claims

WAIT_SECONDS = 0.5  # between checks of other runs' claims

Report = Callable[[Job, Outcome | None], object]  # None: another run has generated the image


def run(jobs: Sequence[Job], executor: AbstractExecutor, report: Report, listener: Listener) -> None:
    """Run jobs. Wait for images that another run has claimed, and generate them here if that run dies.

    Args:
        jobs: the jobs.
        executor: the executor of the jobs.
        report: called once with the outcome of each job.
        listener: follows the steps; its `check` is also called between jobs and while waiting for other runs.

    Raises:
        ModelError: every image would fail the same way.
        KeyboardInterrupt: the run was interrupted; finished images are written and reported.
    """
    new_folders = _missing_folders({parent for job in jobs for parent in job.output.parents})
    try:
        with claims.Claims() as run_claims:
            queue = _JobQueue(jobs, run_claims, report, listener.check)
            while queue.pending:
                count = len(queue.pending)
                for outcome in executor.work(queue.claim(), listener):
                    queue.finish(outcome)
                if len(queue.pending) == count:
                    listener.check()
                    time.sleep(WAIT_SECONDS)
    finally:
        sweep(jobs)
        for folder in new_folders:  # only empty ones can be removed
            with suppress(OSError):
                folder.rmdir()


class _JobQueue:
    """The jobs of a run, and their claims.

    Attributes:
        pending: jobs that are not started yet; after `claim`, the jobs that other runs have claimed.
    """

    def __init__(
        self, jobs: Sequence[Job], run_claims: claims.Claims, report: Report, check: Callable[[], object]
    ) -> None:
        self.pending = list(jobs)
        # Without `overwrite` no output existed when the job was planned.
        self._initial_identities = {job.output: _identity(job.output) if job.overwrite else None for job in jobs}
        self._claims, self._report, self._check = run_claims, report, check
        self._claimed: dict[str, Job] = {}

    def claim(self) -> Iterator[Job]:
        """Claim jobs, and yield those that no other run has claimed."""
        jobs, self.pending = self.pending, []
        for job in jobs:
            self._check()
            try:
                is_claimed = not self._is_generated(job) and self._claims.take(job.output)
            except OutputError as error:
                self._report(job, Outcome(output=str(job.output), error=error.message))
                continue
            if self._is_generated(job):  # checked again under the claim
                self._claims.release(job.output)
                self._report(job, None)
            elif is_claimed:
                self._claimed[str(job.output)] = job
                yield job
            else:
                self.pending.append(job)

    def finish(self, outcome: Outcome) -> None:
        """Report an outcome, and release its claim. Raises `ModelError` if every job would fail the same way."""
        job = self._claimed.pop(outcome.output)
        self._claims.release(job.output)
        if outcome.fatal:
            raise ModelError(outcome.error)
        self._report(job, outcome)

    def _is_generated(self, job: Job) -> bool:
        """Return whether another run has generated the image since this one began."""
        return _identity(job.output) != self._initial_identities[job.output]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _missing_folders(folders: set[Path]) -> list[Path]:
    """Return the folders that do not exist, deepest first."""
    return sorted((folder for folder in folders if not folder.exists()), key=lambda folder: -len(folder.parts))


def sweep(jobs: Sequence[Job]) -> None:
    """Remove unfinished files and claims of killed runs in the folders of outputs."""
    folders: dict[Path, list[Path]] = {}
    for job in jobs:
        folders.setdefault(job.output.parent, []).append(job.output)
    for folder, outputs in folders.items():
        claims.sweep(folder, outputs)
        atomic_write.sweep(folder)
