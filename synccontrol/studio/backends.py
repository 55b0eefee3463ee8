"""Pictures as a browser is shown them."""

import base64
import io
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from synccontrol.batch import executor
from synccontrol.batch.job import Job, Outcome
from synccontrol.batch.model_request import AUTO, Detectors, ModelRequest
from synccontrol.batch.worker import Worker
from synccontrol.errors import ModelError
from synccontrol.pipeline.output import Step
from synccontrol.spec.image_spec import SINGLE
from synccontrol.studio import form_values

SHOWN = (512, 4096)  # px, height and width of what a browser is shown on the way, at most
QUALITY = 85  # of JPEG


def jpeg(image: Image.Image) -> str:
    """Returns a picture as a data URL, no larger than it is shown."""
    small = image.convert("RGB")
    small.thumbnail(SHOWN[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


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
    def warm(self, request: ModelRequest) -> None:
        """Loads a model ahead."""

    @abstractmethod
    def close(self) -> None:
        """Waits for what is being loaded, and lets go of it."""


class Hand(AbstractHand):
    """Draws in this process."""

    def __init__(self) -> None:
        self._workers: OrderedDict[ModelRequest, Worker] = OrderedDict()
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

    def warm(self, request: ModelRequest) -> None:
        self._worker(request)

    def close(self) -> None:
        with self._loading:
            self._workers.clear()
            self._detectors.free()

    def _worker(self, request: ModelRequest) -> Worker:
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
        **form_values.named(settings),
        **{name: Path(settings[name]).name for name in SINGLE if isinstance(settings.get(name), str)},
    }
    return {**found, "control_map": [Path(path).name for path in settings["control_map"]]}


POLL_SECONDS = 0.2  # between looks at how far a picture is
CALLS = 3  # at a time: drawing, being watched, being stopped


class StoppedError(Exception):
    """Somebody wants an end of a picture."""


class Remote:
    """A hand in another process, and what it is watched by.

    Args:
        threads: of torch, so that the bytes are those of the process that asks.
        folder: what relative paths are relative to.
    """

    def __init__(self, threads: int, folder: str) -> None:
        os.chdir(folder)
        self._hand, self._threads = Hand(), threads
        self._begin()

    def _begin(self) -> None:
        self._steps, self._step, self._done, self._shown, self._stopped = 0, 0, 0.0, "", False

    def make(self, job: Job) -> Outcome | None:
        """Returns what became of a job; None: it was stopped."""
        self._begin()
        torch.set_num_threads(self._threads)  # of this thread, which need not be the one that drew before
        try:
            return self._hand.make(job, self)
        except StoppedError:
            return None

    def warm(self, request: ModelRequest) -> None:
        """Loads a model ahead."""
        self._hand.warm(request)

    def state(self, step: int) -> tuple[int, int, float, str]:
        """Returns of how many steps how many are done, the share of the work, and a preview of another step."""
        return self._steps, self._step, self._done, self._shown if self._step != step else ""

    def stop(self) -> None:
        """Has the picture end after its step."""
        self._stopped = True

    def check(self) -> None:
        """Raises `StoppedError` if somebody wants an end."""
        if self._stopped:
            raise StoppedError

    def begin(self, steps: int) -> None:
        """Notes that the first of so many steps begins."""
        self._steps = steps

    def see(self, step: int, steps: int, done: float, shown: str = "") -> None:
        """Notes how many steps are done."""
        self._step, self._steps, self._done, self._shown = step, steps, done, shown or self._shown


class RayHand(AbstractHand):
    """Draws in a worker of Ray. A worker that dies fails its picture, and is replaced.

    Args:
        ray: Ray, connected.
        device: as of a `Request`.
    """

    def __init__(self, ray: Any, device: str) -> None:
        self._ray, self._device = ray, device
        self._begun = False
        self._actor = self._started()

    def make(self, job: Job, watch: Watch) -> Outcome:
        for last in (False, True):
            self._begun = False
            try:
                return self._watched(self._actor.make.remote(job), watch)
            except self._ray.exceptions.RayActorError as error:
                self._actor = self._started()
                if self._begun or last:  # else it had died before
                    raise ModelError("the worker died while it drew; draw again, or something smaller") from error
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
        raise AssertionError("the last try returns or raises")

    def warm(self, request: ModelRequest) -> None:
        self._actor.warm.remote(request)

    def close(self) -> None:
        self._ray.kill(self._actor)

    def _watched(self, drawn: Any, watch: Watch) -> Outcome:
        step = 0
        while not self._ray.wait([drawn], timeout=POLL_SECONDS)[0]:
            steps, now, done, shown = self._ray.get(self._actor.state.remote(step))
            if steps and not self._begun:
                self._begun = True
                watch.begin(steps)
            if now != step:
                step = now
                watch.see(now, steps, done, shown)
            try:
                watch.check()
            except Exception:
                self._actor.stop.remote()
                self._ray.get(drawn)
                raise
        outcome: Outcome | None = self._ray.get(drawn)
        assert outcome is not None
        return outcome

    def _started(self) -> Any:
        needs = executor.gpus_of(self._ray, self._device)
        remote = self._ray.remote(Remote).options(num_cpus=1, num_gpus=needs, max_concurrency=CALLS)
        return remote.remote(torch.get_num_threads(), str(Path.cwd()))


def hands(workers: int, address: str, device: str = AUTO) -> list[AbstractHand]:
    """Returns so many hands of Ray. Raises `ConfigError` if Ray is not installed, or there is no such cluster."""
    ray = executor.connected(workers, address)
    return [RayHand(ray, device) for _ in range(workers)]
