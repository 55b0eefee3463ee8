"""One model on several devices: the windows of a call are shared out, and predicted at the same time."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from synccontrol.families.base import AbstractFamily, Crops, Encoded, View
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import Level
from synccontrol.spec.settings import SamplingConfig


class Sharded(AbstractFamily):
    """Replicas of one model, each on a device of its own; the first also encodes, decodes and holds the canvas.

    Args:
        replicas: the model, loaded once for every device, with the same additions.
    """

    def __init__(self, replicas: Sequence[AbstractFamily]) -> None:
        self.replicas = tuple(replicas)
        self.first = self.replicas[0]
        self.pipe = self.first.pipe
        self.geometry = self.first.geometry
        self.controls = self.first.controls
        self.inpaints = self.first.inpaints
        # One thread for each further device, always the same: what libraries prepare for a device belongs to a thread.
        self._threads = [ThreadPoolExecutor(1, "replica") for _ in self.replicas[1:]]

    @property
    def devices(self) -> tuple[torch.device, ...]:
        return tuple(replica.device for replica in self.replicas)

    @property
    def pipes(self) -> tuple[Any, ...]:
        return tuple(replica.pipe for replica in self.replicas)

    @property
    def dtype(self) -> torch.dtype:
        return self.first.dtype

    def _modules(self) -> list[nn.Module]:
        return [*super()._modules(), *(module for replica in self.replicas for module in replica._modules())]

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        with ExitStack() as stack:
            for replica in self.replicas:
                stack.enter_context(replica.session())
            yield

    def condition(
        self, views: Sequence[View], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        conditioned = [
            replica.condition([_on(replica.device, view) for view in views], crops, sampling, steps, note)
            for replica in self.replicas
        ]
        return ShardedPredict(predict=conditioned, devices=self.devices, threads=self._threads)

    def shift(self) -> float | None:
        return self.first.shift()

    def hole(self, control: int) -> float:
        return self.first.hole(control)

    def blank_prompt(self) -> Encoded:
        return self.first.blank_prompt()

    def decode(self, x0: Tensor) -> Tensor:
        return self.first.decode(x0)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.first.encode(pictures)

    def beside(self, pictures: Tensor, new: Tensor) -> Tensor:
        return self.first.beside(pictures, new)

    def remember(self, prompts: int) -> None:
        for replica in self.replicas:
            replica.remember(prompts)

    def release(self) -> None:
        for replica in self.replicas:
            replica.release()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardedPredict:
    """The prediction of views by several replicas at the same time. It is a `Predict`."""

    predict: Sequence[Predict]  # of each replica
    devices: Sequence[torch.device]  # on which they are
    threads: Sequence[Executor]  # in which all but the first predict

    def __call__(self, z: Tensor, level: Level, views: Sequence[int]) -> Tensor:
        size = -(-len(views) // len(self.predict))
        first, *others = [slice(start, start + size) for start in range(0, len(views), size)]
        further = [
            thread.submit(self._one, replica, z[share], level, views[share], torch.is_grad_enabled())
            for replica, (thread, share) in enumerate(zip(self.threads, others, strict=False), start=1)
        ]
        try:
            found = self.predict[0](z[first], level, views[first])
        finally:
            wait(further)  # in a session nothing outlives its step, an error neither
        return torch.cat([found, *(one.result() for one in further)])

    def _one(self, replica: int, z: Tensor, level: Level, views: Sequence[int], graph: bool) -> Tensor:
        """Returns what one replica predicts, where the windows came from; `graph`: for gradients to go back."""
        with torch.set_grad_enabled(graph):  # a thread has its own answer to that
            return self.predict[replica](z.to(self.devices[replica]), level, views).to(z.device)


def _on(device: torch.device, view: View) -> View:
    """Returns a view as it is on another device."""
    return view if view.beside is None else dataclasses.replace(view, beside=view.beside.to(device))
