"""How much memory a run takes: its networks are rehearsed on tensors that have shapes but no data."""

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synccontrol.canvas.layout import AbstractLayout
from synccontrol.sampling.sync import window_gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of memory; the parts below the weights come one after the other, not together."""

    weights: int
    sampling: int  # predicting one batch of windows
    sync: int  # nudging one batch of windows, without the objective's own network
    decoding: int  # one tile of the canvas, or one view of a sphere

    @property
    def peak(self) -> int:
        """Returns the weights and the largest of the parts."""
        return self.weights + max(self.sampling, self.sync, self.decoding)


def rehearse(skeleton: Any, layout: AbstractLayout, batch: int, halves: int, gradient: str | None) -> Footprint:
    """Returns the footprint of a picture. Call it, and build the skeleton, under the same `FakeTensorMode`.

    Args:
        skeleton: a family's networks without weights.
        layout: the canvas.
        batch: windows in one call.
        halves: network evaluations per window, 2 with guidance.
        gradient: 'full' or 'x0'; None when nothing is synced.
    """
    n = min(batch, len(layout))
    windows = skeleton.latents(n, *layout.window)
    with torch.no_grad(), _Live() as sampling:
        skeleton.predict(windows, halves)
    with _Live() as sync:
        if gradient is not None:
            window_gradient(
                windows,
                range(n),
                lambda z, _: skeleton.predict(z, halves),
                lambda _, prediction: prediction,
                lambda x0: torch.stack([skeleton.decode(one[None]).sum() for one in x0]),
                gradient == "full",
            )
    with torch.no_grad(), _Live() as decoding:
        skeleton.decode(skeleton.latents(1, *layout.decoded))
    return Footprint(weights=skeleton.weights(), sampling=sampling.peak, sync=sync.peak, decoding=decoding.peak)


def fake() -> FakeTensorMode:
    """Returns the mode in which skeletons are built and rehearsed."""
    return FakeTensorMode()


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def drop(_: object) -> None:
            del self._storages[key]
            self._live -= size

        self._storages[key] = weakref.ref(storage, drop)
        self._live += size
        self.peak = max(self.peak, self._live)
