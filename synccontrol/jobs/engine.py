"""What an engine is, and the one of this process: it overlaps reading, drawing and saving."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice

from synccontrol.jobs.detectors import Detectors
from synccontrol.jobs.job import Job
from synccontrol.jobs.outcome import Outcome
from synccontrol.jobs.runtime import Request
from synccontrol.jobs.worker import OnStep, Task, Worker, ignore

AHEAD, BEHIND = 2, 4  # pictures whose maps are made ahead, and that may wait to be written


class AbstractEngine(ABC):
    """Has workers make pictures."""

    @abstractmethod
    def ready(self, request: Request) -> None:
        """Loads what a request needs. Raises `ModelError` if something is not to be had."""

    @abstractmethod
    def work(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yields what became of jobs, in any order; they are taken as they are needed, those of a model together.

        Raises:
            ModelError: a model is not to be had.
            KeyboardInterrupt: somebody wants an end; what is drawn has been yielded.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives back what the engine holds."""


class LocalEngine(AbstractEngine):
    """Makes pictures in this process, one after the other.

    While one is drawn, the control maps of the next are made and the one before it is written. Detectors stay from one
    model to the next if that follows the same controls, and are freed when there is nothing left to do.

    Args:
        on_step: called after every denoising step; KeyboardInterrupt from it ends the run.
    """

    def __init__(self, on_step: OnStep = ignore) -> None:
        self._on_step = on_step
        self._worker: Worker | None = None
        self._detectors = Detectors()

    def ready(self, request: Request) -> None:
        self._worker_for(request)

    def work(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        try:
            for request, group in groupby(jobs, key=lambda job: job.recipe.request):
                yield from self._overlap(self._worker_for(request), group)
        finally:
            self._detectors.free()

    def close(self) -> None:
        self._worker = None

    def _worker_for(self, request: Request) -> Worker:
        if self._worker is None or self._worker.request != request:
            self._worker = None  # its memory is free before the next takes some
            self._detectors.keep(request)
            self._worker = Worker(request, detectors=self._detectors)
        return self._worker

    def _overlap(self, worker: Worker, jobs: Iterator[Job]) -> Iterator[Outcome]:
        prepared: deque[Future[Task]] = deque()
        saving: deque[Future[Outcome]] = deque()
        interrupted = None
        with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
            while interrupted is None:
                try:
                    wanted = islice(jobs, AHEAD + 1 - len(prepared))
                    prepared.extend(ahead.submit(worker.prepare, job) for job in wanted)
                    if not prepared:
                        break
                    task = worker.draw(prepared.popleft().result(), self._on_step)
                    saving.append(behind.submit(worker.save, task))
                except KeyboardInterrupt as error:
                    interrupted = error
                while saving and (saving[0].done() or len(saving) > BEHIND):
                    yield saving.popleft().result()
            for future in prepared:
                future.cancel()
            for done in saving:
                yield done.result()
        if interrupted is not None:
            raise interrupted
