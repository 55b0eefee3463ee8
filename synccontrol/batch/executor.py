"""Executors run jobs, in this process or in Ray workers. The command line and the studio page share them."""

import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import synccontrol
from synccontrol.batch.existing import differences
from synccontrol.batch.job import Job, Outcome
from synccontrol.batch.model_request import AUTO, Detectors, ModelRequest
from synccontrol.batch.worker import LISTENER, Listener, Recorded, Task, Worker, unchanged
from synccontrol.errors import ConfigError, ModelError, describe
from synccontrol.pipeline.output import Step

AHEAD, BEHIND = 2, 4  # jobs prepared ahead, and jobs waiting to be written
PREVIEW_SHARE = 0.2  # largest share of the time for previews after the first one

Encode = Callable[[Image.Image], str]  # encodes a preview as text


class AbstractExecutor(ABC):
    """Generates the images of jobs."""

    @abstractmethod
    def ready(self, request: ModelRequest) -> None:
        """Load a model. Raises `ModelError` if it cannot be loaded."""

    @abstractmethod
    def work(self, jobs: Iterator[Job], listener: Listener = LISTENER) -> Iterator[Outcome]:
        """Yield the outcomes of jobs, in any order. Jobs are consumed lazily; jobs of one model must be adjacent.

        Args:
            jobs: the jobs.
            listener: of the steps. An error of its `check` ends the current image after its step; a
                `KeyboardInterrupt` ends the run, and finished outcomes are yielded before it is raised.

        Raises:
            ModelError: a model cannot be loaded.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the executor's models and workers."""


class LoadedWorkers:
    """The workers of this process, by model, and the detectors that they share.

    Args:
        models: number of loaded models; the least recently used one is freed first.
        recorded: as in `Worker`.
    """

    def __init__(self, models: int = 1, recorded: Recorded = unchanged) -> None:
        self._models, self._recorded = models, recorded
        self._workers: OrderedDict[ModelRequest, Worker] = OrderedDict()
        self._lock = threading.Lock()
        self.detectors = Detectors()

    def get(self, request: ModelRequest) -> Worker:
        """Return the worker of a request; requests that differ in adapter strengths share a worker."""
        with self._lock:
            key = request.at_full_strength
            if key not in self._workers:
                while len(self._workers) >= self._models:
                    self._workers.popitem(last=False)  # frees its memory before the next one loads
                if self._models == 1:
                    self.detectors.free_unused(request)
                self._workers[key] = Worker(request, detectors=self.detectors, recorded=self._recorded)
            self._workers.move_to_end(key)
            if self._workers[key].request != request:
                self._workers[key].set_adapter_weights(request)
            return self._workers[key]

    def close(self) -> None:
        """Free all models and detectors."""
        with self._lock:
            self._workers.clear()
            self.detectors.free()


class LocalExecutor(AbstractExecutor):
    """Generates images in this process, one after the other.

    While one image is denoised, the next control maps are detected and the previous image is written. Detectors are
    freed after the last job, if only one model stays loaded.

    Args:
        models: number of loaded models.
        recorded: as in `Worker`.
    """

    def __init__(self, models: int = 1, recorded: Recorded = unchanged) -> None:
        self._loaded, self._keeps_detectors = LoadedWorkers(models, recorded), models > 1

    def ready(self, request: ModelRequest) -> None:
        self._loaded.get(request)

    def work(self, jobs: Iterator[Job], listener: Listener = LISTENER) -> Iterator[Outcome]:
        try:
            for request, group in groupby(jobs, key=lambda job: job.recipe.request):
                yield from self._overlap(self._loaded.get(request), group, listener)
        finally:
            if not self._keeps_detectors:
                self._loaded.detectors.free()

    def close(self) -> None:
        self._loaded.close()

    def _overlap(self, worker: Worker, jobs: Iterator[Job], listener: Listener) -> Iterator[Outcome]:
        prepared: deque[Future[Task]] = deque()
        saving: deque[Future[Outcome]] = deque()
        interrupted = None
        with ThreadPoolExecutor(1) as prepare_pool, ThreadPoolExecutor(1) as save_pool:
            while interrupted is None:
                try:
                    upcoming = islice(jobs, AHEAD + 1 - len(prepared))
                    prepared.extend(prepare_pool.submit(worker.prepare, job) for job in upcoming)
                    if not prepared:
                        break
                    task = worker.generate(prepared.popleft().result(), listener)
                    saving.append(save_pool.submit(worker.save, task))
                except KeyboardInterrupt as error:
                    interrupted = error
                while saving and (saving[0].done() or len(saving) > BEHIND):
                    yield saving.popleft().result()
            for task_future in prepared:
                task_future.cancel()
            for outcome_future in saving:
                yield outcome_future.result()
        if interrupted is not None:
            raise interrupted


class Report(NamedTuple):
    """Progress of an image, as plain data."""

    step: int = 0  # number of finished steps
    steps: int = 0
    done: float = 0.0  # share of the work, 0..1; steps of a draft are cheaper than others
    preview: str = ""  # encoded; empty without a new one


class Reporter(Listener):
    """Turns steps into reports, with previews in at most `PREVIEW_SHARE` of the time.

    Args:
        encode: encodes previews; None: no previews.
        report: receives every report.
        check: called between steps; an error that it raises ends the image.
    """

    def __init__(self, encode: Encode | None, report: Callable[[Report], object], check: Callable[[], object]) -> None:
        self._encode, self._report, self._check = encode, report, check
        self._preview_seconds = self._last_preview = 0.0

    def check(self) -> None:
        self._check()

    def begin(self, job: Job) -> None:
        self._report(Report(steps=job.recipe.sampling.steps))

    def step(self, job: Job, step: Step) -> None:
        now, report = time.monotonic(), Report(step.index + 1, step.steps, step.done)
        self._report(report)
        self._check()
        is_early = now - self._last_preview < self._preview_seconds / PREVIEW_SHARE
        if self._encode is None or step.result is not None or is_early:
            return
        self._report(report._replace(preview=self._encode(step.render())))
        self._last_preview = time.monotonic()
        self._preview_seconds = self._last_preview - now

    def report(self, job: Job, report: Report) -> None:
        self._report(report)


TRIES = 3  # workers that may die over one job, or in a row while they load
CONNECT_SECONDS = 5.0  # within which a cluster must answer
POLL_SECONDS = 0.2  # between two reads of the workers' progress
CALLS = 3  # concurrent calls of a worker: run, report, end


class RemoteWorker:
    """The actor in the process of a Ray worker.

    Args:
        threads: number of torch threads; that of the calling process gives byte-identical images.
        folder: base of relative paths.
        models: number of loaded models.
        recorded: as in `Worker`.
        encode: encodes previews; None: no previews.
    """

    def __init__(
        self,
        threads: int,
        folder: str,
        models: int = 1,
        recorded: Recorded = unchanged,
        encode: Encode | None = None,
    ) -> None:
        os.chdir(folder)
        self._loaded, self._threads, self._encode = LoadedWorkers(models, recorded), threads, encode
        self._report, self._preview = Report(), ""
        self._ended_outputs: set[str] = set()

    def load(self, request: ModelRequest) -> str:
        """Load a model; return an empty text, or the error in one line."""
        try:
            self._loaded.get(request)
        except Exception as error:
            return describe(error)
        return ""

    def run(self, job: Job) -> Outcome | None:
        """Return the outcome of a job; None if `end` ended it."""

        def check() -> None:
            if str(job.output) in self._ended_outputs:
                raise KeyboardInterrupt

        self._report, self._preview = Report(), ""
        torch.set_num_threads(self._threads)  # the setting is per thread
        try:
            return self._loaded.get(job.recipe.request).run(job, Reporter(self._encode, self._set_report, check))
        except KeyboardInterrupt:
            return None
        finally:
            self._ended_outputs.discard(str(job.output))

    def report(self, step: int) -> Report:
        """Return the newest report, with the newest preview unless the report is still of `step`."""
        return self._report._replace(preview=self._preview if self._report.step != step else "")

    def end(self, job: Job) -> None:
        """End a job after its step."""
        self._ended_outputs.add(str(job.output))

    def _set_report(self, report: Report) -> None:
        self._report, self._preview = report, report.preview or self._preview


class _Call(NamedTuple):
    """A pending call of a worker: it loads a model, or runs a job."""

    worker: Any
    job: Job | None = None


class RayExecutor(AbstractExecutor):
    """Generates images in several Ray workers.

    Each worker has one job at a time. A worker that dies, with its machine or alone, is replaced, and its job goes to
    another worker. A job fails alone after `TRIES` workers died over it. The process of this executor claims the
    outputs. All machines must see the same files under the same paths.

    Args:
        workers: number of workers.
        address: of an existing cluster ('auto' finds this machine's cluster); empty: a new one on this machine.
        device: of a worker before the first request.
        models: number of loaded models in each worker.
        recorded: as in `Worker`.
        encode: encodes previews; with it, listeners get the reports of all jobs.
        ray: the connected Ray module.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """

    def __init__(
        self,
        workers: int,
        address: str = "",
        *,
        device: str = AUTO,
        models: int = 1,
        recorded: Recorded = unchanged,
        encode: Encode | None = None,
        ray: Any = None,
    ) -> None:
        self._owns_ray, self._ray = ray is None, ray or connect_ray(workers, address)
        self._workers, self._device, self._encode = workers, device, encode
        self._arguments = (torch.get_num_threads(), str(Path.cwd()), models, recorded, encode)
        self._models = models
        self._calls: dict[Any, _Call] = {}
        self._idle: list[Any] = []
        self._request: ModelRequest | None = None
        self._retries: deque[Job] = deque()  # jobs whose worker died
        self._deaths: dict[Path, int] = {}  # by output
        self._failed_starts = 0  # workers in a row that died before their first job
        errors = self._ray.exceptions
        # Errors that report the loss of a worker or of its machine.
        self._lost_errors = (errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError)

    def ready(self, request: ModelRequest) -> None:
        if request == self._request:
            return
        loading = [call.worker for call in self._calls.values()]
        if self._models == 1 or request.device != self._device or not (self._idle or loading):
            for worker in (*self._idle, *loading):
                self._ray.kill(worker)
            self._calls.clear()
            self._request, self._device, self._idle = request, request.device, []
            for _ in range(self._workers):
                self._start()
        else:  # the workers hold further models
            self._request, idle = request, self._idle
            self._idle = []
            for worker in idle:
                self._load(worker)
        while not self._idle:
            for _ in self._collect():
                raise AssertionError("no worker has a job yet")

    def work(self, jobs: Iterator[Job], listener: Listener = LISTENER) -> Iterator[Outcome]:
        for request, group in groupby(jobs, key=lambda job: job.recipe.request):
            while any(call.job for call in self._calls.values()):
                yield from self._collect()
            self.ready(request)
            yield from self._run_group(group, listener)

    def close(self) -> None:
        if self._owns_ray:
            self._ray.shutdown()
            return
        for worker in (*self._idle, *(call.worker for call in self._calls.values())):
            self._ray.kill(worker)

    def _run_group(self, jobs: Iterator[Job], listener: Listener) -> Iterator[Outcome]:
        """Yield the outcomes of the jobs of one model."""
        interrupted: BaseException | None = None
        has_more, reports = True, dict[Any, Report]()
        while (interrupted is None and (has_more or self._retries)) or any(call.job for call in self._calls.values()):
            try:
                while self._idle and interrupted is None:
                    job = self._retries.popleft() if self._retries else next(jobs, None)
                    if job is None:
                        has_more = False
                        break
                    self._submit(job)
                if interrupted is None:
                    listener.check()
                    self._report(listener, reports)
            except (KeyboardInterrupt, Exception) as error:
                interrupted = error
                for call in self._calls.values():
                    if call.job is not None:
                        call.worker.end.remote(call.job)
            yield from self._collect()
        if interrupted is not None:
            self._retries.clear()
            raise interrupted

    def _report(self, listener: Listener, reports: dict[Any, Report]) -> None:
        """Pass the reports of all jobs to a listener."""
        for reference, call in self._calls.items() if self._encode is not None else ():
            if call.job is None:
                continue
            previous = reports.get(reference, Report())
            try:
                report = self._ray.get(call.worker.report.remote(previous.step))
            except self._lost_errors:
                continue  # `_collect` replaces the worker
            if report.steps and (report.step != previous.step or report.steps != previous.steps):
                reports[reference] = report
                listener.report(call.job, report)

    def _start(self) -> None:
        needs = gpus_per_worker(self._ray, self._device)
        remote = self._ray.remote(RemoteWorker).options(num_cpus=1, num_gpus=needs, max_concurrency=CALLS)
        self._load(remote.remote(*self._arguments))

    def _load(self, worker: Any) -> None:
        self._calls[worker.load.remote(self._request)] = _Call(worker)

    def _submit(self, job: Job) -> None:
        worker = self._idle.pop()
        self._calls[worker.run.remote(job)] = _Call(worker, job)

    def _collect(self) -> Iterator[Outcome]:
        """Yield the outcomes of jobs that end within `POLL_SECONDS`, and replace workers that died."""
        ready, _ = self._ray.wait(list(self._calls), timeout=POLL_SECONDS) if self._calls else ([], [])
        for reference in ready:
            call = self._calls.pop(reference)
            try:
                result = self._ray.get(reference)
            except self._lost_errors:
                self._replace(call)
                if call.job is not None:
                    yield from self._retry(call.job)
                continue
            self._idle.append(call.worker)
            if call.job is None and result:
                self._request = None
                raise ModelError(result)
            if call.job is not None and result is not None:
                yield result

    def _replace(self, call: _Call) -> None:
        """Start a worker in place of a dead one. Raises `ModelError` if workers keep dying before their first job."""
        self._ray.kill(call.worker)  # it may be unreachable and alive
        self._failed_starts = self._failed_starts + 1 if call.job is None else 0
        if self._failed_starts >= TRIES * self._workers:
            raise ModelError("workers die while they load the model; give them more memory, or start fewer")
        self._start()

    def _retry(self, job: Job) -> Iterator[Outcome]:
        """Queue the job of a dead worker again, unless its image exists or too many workers died over it."""
        self._deaths[job.output] = self._deaths.get(job.output, 0) + 1
        if job.output.exists() and not differences(job):
            yield Outcome(output=str(job.output))
        elif self._deaths[job.output] >= TRIES:
            yield Outcome(output=str(job.output), error=f"{TRIES} workers died over it; try it alone, with less memory")
        else:
            self._retries.append(job)


def gpus_per_worker(ray: Any, device: str) -> int:
    """Return the number of GPUs that a worker needs: the named ones, or one if the cluster has any."""
    if device == AUTO:
        return int(ray.cluster_resources().get("GPU", 0) > 0)
    return sum(name.strip().startswith("cuda") for name in device.split(","))


def connect_ray(workers: int, address: str) -> Any:
    """Return the Ray module, connected to a cluster. Raises `ConfigError` without Ray or a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # needs the network
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray; pip install 'synccontrol[ray]', or use --engine local") from error
    if address:
        _check_reachable(address)
    code = str(Path(synccontrol.__file__).parents[1])
    local_options: dict[str, Any] = {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
    local_options["address"] = "local"  # else Ray joins another cluster of this machine
    variables = {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "OMP_WAIT_POLICY") if name in os.environ}
    try:
        ray.init(
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": variables if address else {**variables, "PYTHONPATH": code}},
            **({"address": address} if address else local_options),
        )
    except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise _no_cluster_error(address, error) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise `ConfigError` if no cluster listens; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isascii() and port.isdecimal()):
        return  # auto, local, ...
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster_error(address, error) from error


def _no_cluster_error(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"there is no Ray cluster at {address!r} ({' '.join(str(error).split())}); start one with `ray start --head`, "
        "or if it needs a token (~/.ray/auth_token), set RAY_AUTH_MODE=token"
    )
