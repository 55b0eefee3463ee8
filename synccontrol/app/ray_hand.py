"""`RayHand`: draws in a process of its own, on this machine or a cluster of Ray."""

import os
from pathlib import Path
from typing import Any

import torch

from synccontrol.app.hand import AbstractHand, Hand, Watch
from synccontrol.errors import ModelError
from synccontrol.jobs import ray_engine
from synccontrol.jobs.job import Job
from synccontrol.jobs.outcome import Outcome
from synccontrol.jobs.runtime import AUTO, Request

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

    def warm(self, request: Request) -> None:
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

    def warm(self, request: Request) -> None:
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
        needs = ray_engine.gpus_of(self._ray, self._device)
        remote = self._ray.remote(Remote).options(num_cpus=1, num_gpus=needs, max_concurrency=CALLS)
        return remote.remote(torch.get_num_threads(), str(Path.cwd()))


def hands(workers: int, address: str, device: str = AUTO) -> list[AbstractHand]:
    """Returns so many hands of Ray. Raises `ConfigError` if Ray is not installed, or there is no such cluster."""
    ray = ray_engine.connected(workers, address)
    return [RayHand(ray, device) for _ in range(workers)]
