"""`Hand`: what draws pictures, one after the other, and says how far each is."""

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from synccontrol.app import beside
from synccontrol.app.images import jpeg
from synccontrol.jobs.detectors import Detectors
from synccontrol.jobs.job import Job
from synccontrol.jobs.outcome import Outcome
from synccontrol.jobs.runtime import Request
from synccontrol.jobs.worker import Worker
from synccontrol.picture import SINGLE
from synccontrol.result import Step

WORKERS = 2  # models that stay loaded, so that going back and forth between two controls loads nothing
PREVIEW_SHARE = 0.2  # of the time goes into previews, at most, after the first


class Watch(Protocol):
    """Who watches a picture being drawn."""

    def check(self) -> None:
        """Raises an exception if somebody wants an end."""

    def begin(self, steps: int) -> None:
        """Notes that the first of so many steps begins."""

    def see(self, step: int, steps: int, done: float, shown: str = "") -> None:
        """Notes that so many steps of all are done, and a preview as a data URL where there is a new one.

        What share of the work that is, 0..1, says `done`.
        """


class AbstractHand(ABC):
    """Draws pictures, one at a time."""

    @abstractmethod
    def make(self, job: Job, watch: Watch) -> Outcome:
        """Returns what became of a job. Raises what its watch raises, or a `ModelError`."""

    @abstractmethod
    def warm(self, request: Request) -> None:
        """Loads a model ahead."""

    @abstractmethod
    def close(self) -> None:
        """Waits for what is being loaded, and lets go of it."""


class Hand(AbstractHand):
    """Draws in this process."""

    def __init__(self) -> None:
        self._workers: OrderedDict[Request, Worker] = OrderedDict()
        self._detectors = Detectors()
        self._loading = threading.Lock()

    def make(self, job: Job, watch: Watch) -> Outcome:
        worker = self._worker(job.recipe.request)
        watch.check()
        task = worker.prepare(job)
        watch.begin(job.recipe.sampling.steps)
        worker.draw(task, _Previews(watch).on_step)
        watch.check()
        if task.settings:
            task.settings = portable(task.settings)
        return worker.save(task)

    def warm(self, request: Request) -> None:
        self._worker(request)

    def close(self) -> None:
        with self._loading:
            self._workers.clear()
            self._detectors.free()

    def _worker(self, request: Request) -> Worker:
        with self._loading:
            loaded = request.unweighed
            if loaded not in self._workers:
                while len(self._workers) >= WORKERS:
                    self._workers.popitem(last=False)  # its memory is free before the next takes some
                self._workers[loaded] = Worker(request, detectors=self._detectors)
            self._workers.move_to_end(loaded)
            if self._workers[loaded].request != request:
                self._workers[loaded].weigh(request)
            return self._workers[loaded]


class _Previews:
    """Shows a picture on its way, as often as it costs little."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._cost, self._last = watch, 0.0, 0.0

    def on_step(self, job: Job, step: Step) -> None:
        """Notes a step, and shows it. Raises what the watch raises if somebody wants an end."""
        self._watch.see(step.index + 1, step.steps, step.done)
        self._watch.check()
        now = time.monotonic()
        if step.result is not None or now - self._last < self._cost / PREVIEW_SHARE:
            return
        self._watch.see(step.index + 1, step.steps, step.done, jpeg(step.render()))
        self._last = time.monotonic()
        self._cost = self._last - now


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings in which files stand by their name alone: visitors know no folders of this machine."""
    found = {
        **beside.named(settings),
        **{name: Path(settings[name]).name for name in SINGLE if isinstance(settings.get(name), str)},
    }
    return {**found, "control_map": [Path(path).name for path in settings["control_map"]]}
