"""One model on several devices: the windows of a call are split among them and predicted in parallel."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from synccontrol.families.base import AbstractFamily, Crops, PromptEmbeds, WindowCondition
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.spec.settings import SamplingConfig


class MultiDeviceFamily(AbstractFamily):
    """Replicas of one model, each on its own device. The first one also encodes, decodes and holds the canvas.

    Args:
        replicas: the model, loaded once on every device, with the same adapters.
    """

    def __init__(self, replicas: Sequence[AbstractFamily]) -> None:
        self.replicas = tuple(replicas)
        self.primary = self.replicas[0]
        self.pipe = self.primary.pipe
        self.geometry = self.primary.geometry
        self.controls = self.primary.controls
        self.is_inpainting_model = self.primary.is_inpainting_model
        # One thread per further device, always the same: libraries keep their state of a device per thread.
        self._threads = [ThreadPoolExecutor(1, "replica") for _ in self.replicas[1:]]

    @property
    def devices(self) -> tuple[torch.device, ...]:
        return tuple(replica.device for replica in self.replicas)

    @property
    def pipes(self) -> tuple[Any, ...]:
        return tuple(replica.pipe for replica in self.replicas)

    @property
    def dtype(self) -> torch.dtype:
        return self.primary.dtype

    def _modules(self) -> list[nn.Module]:
        return [*super()._modules(), *(module for replica in self.replicas for module in replica._modules())]

    @contextmanager
    def _prepare_networks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for replica in self.replicas:
                stack.enter_context(replica.session())
            yield

    def condition(
        self, views: Sequence[WindowCondition], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        predicts = [
            replica.condition([_to_device(replica.device, view) for view in views], crops, sampling, steps, note)
            for replica in self.replicas
        ]
        return MultiDevicePredict(predict=predicts, devices=self.devices, threads=self._threads)

    def shift(self) -> float | None:
        return self.primary.shift()

    def masked_value(self, control: int) -> float:
        return self.primary.masked_value(control)

    def blank_prompt(self) -> PromptEmbeds:
        return self.primary.blank_prompt()

    def decode(self, x0: Tensor) -> Tensor:
        return self.primary.decode(x0)

    def encode(self, images: Tensor) -> Tensor:
        return self.primary.encode(images)

    def inpaint_channels(self, images: Tensor, new: Tensor) -> Tensor:
        return self.primary.inpaint_channels(images, new)

    def cache_prompts(self, prompts: int) -> None:
        for replica in self.replicas:
            replica.cache_prompts(prompts)

    def release(self) -> None:
        for replica in self.replicas:
            replica.release()


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiDevicePredict:
    """The prediction of windows by several replicas in parallel; implements `Predict`."""

    predict: Sequence[Predict]  # one per replica
    devices: Sequence[torch.device]  # one per replica
    threads: Sequence[Executor]  # one per replica but the first

    def __call__(self, z: Tensor, level: NoiseLevel, views: Sequence[int]) -> Tensor:
        size = -(-len(views) // len(self.predict))
        first_part, *other_parts = [slice(start, start + size) for start in range(0, len(views), size)]
        futures = [
            thread.submit(self._predict_replica, replica, z[part], level, views[part], torch.is_grad_enabled())
            for replica, (thread, part) in enumerate(zip(self.threads, other_parts, strict=False), start=1)
        ]
        try:
            predictions = self.predict[0](z[first_part], level, views[first_part])
        finally:
            wait(futures)  # no call outlives its step, not even after an error
        return torch.cat([predictions, *(future.result() for future in futures)])

    def _predict_replica(self, replica: int, z: Tensor, level: NoiseLevel, views: Sequence[int], graph: bool) -> Tensor:
        """Return the prediction of one replica, on the device of `z`.

        Args:
            graph: keep the graph for gradients.
        """
        with torch.set_grad_enabled(graph):  # the setting is per thread
            return self.predict[replica](z.to(self.devices[replica]), level, views).to(z.device)


def _to_device(device: torch.device, view: WindowCondition) -> WindowCondition:
    """Return a window condition with its tensors on another device."""
    return (
        view
        if view.inpaint_channels is None
        else dataclasses.replace(view, inpaint_channels=view.inpaint_channels.to(device))
    )
