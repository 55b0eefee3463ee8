"""What an engine is, and the one of this process: it overlaps reading, drawing and saving."""

import dataclasses
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch

import synccontrol
from synccontrol.batch.existing import differences
from synccontrol.batch.job import Job, Outcome
from synccontrol.batch.model_request import AUTO, Detectors, ModelRequest
from synccontrol.batch.worker import OnStep, Task, Worker, ignore
from synccontrol.errors import ConfigError, ModelError, describe
from synccontrol.pipeline.output import Step

AHEAD, BEHIND = 2, 4  # pictures whose maps are made ahead, and that may wait to be written


class AbstractEngine(ABC):
    """Has workers make pictures."""

    @abstractmethod
    def ready(self, request: ModelRequest) -> None:
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

    def ready(self, request: ModelRequest) -> None:
        self._worker_for(request)

    def work(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        try:
            for request, group in groupby(jobs, key=lambda job: job.recipe.request):
                yield from self._overlap(self._worker_for(request), group)
        finally:
            self._detectors.free()

    def close(self) -> None:
        self._worker = None

    def _worker_for(self, request: ModelRequest) -> Worker:
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


TRIES = 3  # workers that a job may outlive, and that may die one after the other while they load
KNOCK_SECONDS = 5.0  # in which a cluster answers
POLL_SECONDS = 0.5  # between looks at whether somebody wants an end
CALLS = 2  # of a worker at a time: making, and being stopped


class Remote:
    """A worker in another process.

    Args:
        request: as of a `Worker`.
        threads: likewise.
        folder: what relative paths are relative to.
    """

    def __init__(self, request: ModelRequest, threads: int, folder: str) -> None:
        os.chdir(folder)
        self._request, self._threads = request, threads
        self._worker: Worker | None = None
        self._stopped = False

    def load(self) -> str:
        """Loads the model; returns an empty text, or in a line why it is not to be had."""
        try:
            self._worker = Worker(self._request, self._threads)
        except Exception as error:
            return describe(error)
        return ""

    def make(self, job: Job) -> Outcome | None:
        """Returns what became of a job; None: it was stopped."""
        assert self._worker is not None
        if self._threads:
            torch.set_num_threads(self._threads)  # of this thread, which need not be the one that loaded
        try:
            return self._worker.make(job, self._check)
        except KeyboardInterrupt:
            return None

    def stop(self) -> None:
        """Has the picture under way, and all that would follow, end after a step."""
        self._stopped = True

    def _check(self, job: Job, step: Step) -> None:
        if self._stopped:
            raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True)
class _Busy:
    """What an actor does: it loads its model, or makes a picture."""

    actor: Any
    job: Job | None = None


class RayEngine(AbstractEngine):
    """Makes pictures in several workers.

    Each worker has one job at a time, so that nothing piles up. A worker that dies, with its machine or alone, is
    replaced, and its job given to another; a job that has outlived `TRIES` workers fails alone. Outputs are claimed by
    the process that runs this engine. All machines must see the same files under the same paths.

    Args:
        workers: how many.
        address: of a cluster that is there ('auto' finds the one of this machine); empty: a new one on this machine.
        check: called now and then; KeyboardInterrupt from it ends the run after the step under way.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, workers: int, address: str, check: Callable[[], object]) -> None:
        self._ray = connected(workers, address)
        self._workers, self._check = workers, check
        self._busy: dict[Any, _Busy] = {}
        self._idle: list[Any] = []
        self._request: ModelRequest | None = None
        self._again: deque[Job] = deque()  # jobs whose worker died
        self._deaths: dict[Path, int] = {}  # by output
        self._stillborn = 0  # workers in a row that died before they had a job
        died = self._ray.exceptions
        self._lost = (died.RayActorError, died.ObjectLostError, died.NodeDiedError)  # with a worker, or its machine

    def ready(self, request: ModelRequest) -> None:
        if request == self._request:
            return
        for actor in (*self._idle, *(busy.actor for busy in self._busy.values())):  # the latter still load
            self._ray.kill(actor)
        self._busy.clear()
        self._request, self._idle = request, []
        for _ in range(self._workers):
            self._start()
        while not self._idle:
            for _ in self._finished():
                raise AssertionError("nobody has a job yet")

    def work(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        for request, group in groupby(jobs, key=lambda job: job.recipe.request):
            while any(busy.job for busy in self._busy.values()):
                yield from self._finished()
            self.ready(request)
            yield from self._group(group)

    def close(self) -> None:
        self._ray.shutdown()

    def _group(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yields what becomes of the jobs of one model."""
        interrupted = None
        more = True
        while (interrupted is None and (more or self._again)) or any(busy.job for busy in self._busy.values()):
            try:
                while self._idle and interrupted is None:
                    job = self._again.popleft() if self._again else next(jobs, None)
                    if job is None:
                        more = False
                        break
                    self._submit(job)
                self._check()
            except KeyboardInterrupt as error:
                interrupted = error
                for busy in self._busy.values():
                    busy.actor.stop.remote()
            yield from self._finished()
        if interrupted is not None:
            self._again.clear()
            self._request = None  # these workers make nothing any more
            raise interrupted

    def _start(self) -> None:
        needs = gpus_of(self._ray, self._request.device if self._request else AUTO)
        remote = self._ray.remote(Remote).options(num_cpus=1, num_gpus=needs, max_concurrency=CALLS)
        actor = remote.remote(self._request, torch.get_num_threads(), str(Path.cwd()))
        self._busy[actor.load.remote()] = _Busy(actor)

    def _submit(self, job: Job) -> None:
        actor = self._idle.pop()
        self._busy[actor.make.remote(job)] = _Busy(actor, job)

    def _finished(self) -> Iterator[Outcome]:
        """Waits a little; yields what became of jobs meanwhile, and replaces workers that died."""
        done, _ = self._ray.wait(list(self._busy), timeout=POLL_SECONDS) if self._busy else ([], [])
        for reference in done:
            busy = self._busy.pop(reference)
            try:
                result = self._ray.get(reference)
            except self._lost:
                self._replace(busy)
                if busy.job is not None:
                    yield from self._bereaved(busy.job)
                continue
            if busy.job is None and result:
                raise ModelError(result)
            self._idle.append(busy.actor)
            if busy.job is not None and result is not None:
                yield result

    def _replace(self, busy: _Busy) -> None:
        """Starts a worker in place of one that died. Raises `ModelError` if they keep dying before their first job."""
        self._ray.kill(busy.actor)  # it may only be out of reach
        self._stillborn = self._stillborn + 1 if busy.job is None else 0
        if self._stillborn >= TRIES * self._workers:
            raise ModelError("workers die while they load the model; give them more memory, or start fewer")
        self._start()

    def _bereaved(self, job: Job) -> Iterator[Outcome]:
        """Gives a job whose worker died to another, unless its picture is there, or it has outlived too many."""
        self._deaths[job.output] = self._deaths.get(job.output, 0) + 1
        if job.output.exists() and not differences(job):
            yield Outcome(output=str(job.output))
        elif self._deaths[job.output] >= TRIES:
            yield Outcome(output=str(job.output), error=f"{TRIES} workers died over it; try it alone, with less memory")
        else:
            self._again.append(job)


def gpus_of(ray: Any, device: str) -> int:
    """Returns how many cards a worker needs: as many as are named, or one of those that the cluster has, if any."""
    if device == AUTO:
        return int(ray.cluster_resources().get("GPU", 0) > 0)
    return sum(one.strip().startswith("cuda") for one in device.split(","))


def connected(workers: int, address: str) -> Any:
    """Returns Ray, connected to a cluster. Raises `ConfigError` if it is not installed, or there is no cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would ask the network
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray; pip install 'synccontrol[ray]', or use --engine local") from error
    if address:
        _knock(address)
    code = str(Path(synccontrol.__file__).parents[1])
    here: dict[str, Any] = {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
    here["address"] = "local"  # else Ray joins what somebody else has started here
    variables = {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "OMP_WAIT_POLICY") if name in os.environ}
    try:
        ray.init(
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": variables if address else {**variables, "PYTHONPATH": code}},
            **({"address": address} if address else here),
        )
    except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise _nobody(address, error) from error
    return ray


def _knock(address: str) -> None:
    """Raises `ConfigError` where nobody listens; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isascii() and port.isdecimal()):
        return  # auto, local, ...
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _nobody(address, error) from error


def _nobody(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"there is no Ray cluster at {address!r} ({' '.join(str(error).split())}); start one with `ray start --head`, "
        "or if one is there that asks for its token (~/.ray/auth_token), set RAY_AUTH_MODE=token"
    )
