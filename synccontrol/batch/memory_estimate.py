"""Estimate the memory of a run: its networks are run on tensors that have shapes but no data."""

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synccontrol.canvas.base import AbstractLayout
from synccontrol.families.base import AbstractFamily, Crops, WindowCondition
from synccontrol.families.unet_base import EMBEDDING_BUDGET
from synccontrol.models import devices
from synccontrol.sampling.batching import BatchedPredictor
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.sampling.objectives import AbstractObjective, FunctionObjective
from synccontrol.sampling.sync import Sync, SyncNetworks
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig

LEVEL = NoiseLevel(index=0, signal=0.7, noise=0.7, t=500.0)  # any level will do
CANVAS_COPIES = 4  # the windows before and after sync, their predictions, and a batch's inputs
IMAGE_BYTES = 3  # a pixel, in 8 bit
MAP_BYTES = 2 * 3  # a pixel of a control map, in 8 bit: as an image, and as a tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of memory. Sampling, sync and decoding follow each other; the other parts stay allocated."""

    weights: int  # of the model and the objective
    at_once: int  # of the weights on the device at once, with offloading of whole networks
    embeddings: int  # of prompts and control maps
    canvas: int  # the windows and their predictions, the image and its control maps
    sampling: int  # predicting one batch of windows
    sync: int  # comparing one window with the anchor, with the gradient through the networks
    decoding: int  # one tile of the canvas, or one view of an equirectangular panorama

    @property
    def peak(self) -> int:
        """Return the largest number of bytes allocated at once."""
        return self._static + max(self.sampling, self.sync, self.decoding)

    @property
    def grown(self) -> int:
        """Return the growth of a process that computes on the CPU.

        The C library keeps the many small pieces that sampling frees, while sync and decoding allocate large ones.
        """
        return self._static + self.sampling + max(self.sync, self.decoding)

    @property
    def further(self) -> int:
        """Return the bytes of each further device of several: without canvas and decoding."""
        return self.weights + self.embeddings + self.sampling

    def offloaded(self, how: str) -> "MemoryEstimate":
        """Return the estimate with offloading, one of `devices.OFFLOADS`."""
        weights = {devices.MODEL: self.at_once, devices.SEQUENTIAL: 0}.get(how, self.weights)
        return dataclasses.replace(self, weights=weights)

    @property
    def _static(self) -> int:
        return self.weights + self.embeddings + self.canvas


def estimate(
    family: AbstractFamily,
    layout: AbstractLayout,
    sampling: SamplingConfig,
    windows: WindowConfig,
    sync: SyncConfig | None,
    objective: AbstractObjective | None,
    regions: Sequence[int] = (),
) -> MemoryEstimate:
    """Return the memory of an image, by the work of a session on a few windows.

    Args:
        family: a family around a blank pipeline, built under `fake_mode`; call this under the same mode.
        layout: the canvas.
        sampling: guidance and control.
        windows: sets the number of windows in a call.
        sync: the settings of sync; None: sync is off.
        objective: the sync objective with its weights; None if they are not on this machine.
        regions: number of regions that each window touches; none: there are no regions.
    """
    total_views, max_views = (sum(regions), max(regions)) if regions else (len(layout), 1)
    n, (h, w) = min(windows.batch, len(layout)), family.geometry.window_px
    z = torch.zeros(max(n, 2), family.geometry.channels, *layout.window, dtype=family.canvas_dtype)
    blank = family.blank_prompt()
    views = [WindowCondition(window=window, prompt=blank, negative_prompt=blank) for window in range(len(z))]
    crops: list[Crops] = [lambda indices: torch.zeros(len(indices), 3, h, w)] * family.controls
    with family.session():
        with torch.no_grad(), Live() as predicting:
            predict = family.condition(views, crops, sampling, sampling.steps, str)
            text_bytes = predicting.live
            predict(z[:n], LEVEL, range(n))
            per_window = (predicting.live - text_bytes) // n
        syncing = _estimate_sync(family, z, predict, sync, objective)
        with torch.no_grad(), Live() as decoding:
            family.decode(torch.zeros(1, family.geometry.channels, *layout.decode_shape, dtype=family.canvas_dtype))
    networks = [part for part in [*family.pipe.components.values(), family.tiny_vae] if isinstance(part, nn.Module)]
    networks += objective.networks() if objective is not None else []
    return MemoryEstimate(
        weights=_held(networks),
        at_once=_bytes_at_once(family, objective),
        embeddings=text_bytes + min(per_window * total_views, max_views * EMBEDDING_BUDGET),
        canvas=CANVAS_COPIES * len(layout) * z[0].nbytes
        + (IMAGE_BYTES + MAP_BYTES * family.controls) * layout.height * layout.width * family.geometry.cell**2,
        sampling=predicting.peak - predicting.live,
        sync=syncing * (max_views if sync is not None and sync.gradient == "full" else 1),  # a graph for each region
        decoding=decoding.peak,
    )


def _held(networks: Sequence[nn.Module]) -> int:
    """Return the bytes of the weights of networks; shared weights count once."""
    weights = [tensor for network in networks for tensor in network.state_dict(keep_vars=True).values()]
    return sum({id(tensor): tensor.nbytes for tensor in weights}.values())


def _bytes_at_once(family: AbstractFamily, objective: AbstractObjective | None) -> int:
    """Return the bytes of the largest offloaded network, and of those that stay, as diffusers moves them."""
    parts = {name: part for name, part in family.pipe.components.items() if isinstance(part, nn.Module)}
    offloaded = [name for name in family.pipe.model_cpu_offload_seq.split("->") if name in parts]
    resident_networks = [part for name, part in parts.items() if name not in offloaded]
    resident_networks += objective.networks() if objective is not None else []
    resident_networks += [family.tiny_vae] if family.tiny_vae is not None else []
    return max((_held([parts[name]]) for name in offloaded), default=0) + _held(resident_networks)


def _estimate_sync(
    family: AbstractFamily, z: Tensor, predict: Predict, config: SyncConfig | None, objective: AbstractObjective | None
) -> int:
    if config is None:
        return 0
    networks = SyncNetworks(
        decode=family.decode_preview,
        encode=family.encode,
        kind="epsilon",
        half=family.dtype == torch.float16,
        offloaded=family.offloaded,
    )
    sync = Sync(config, objective or FunctionObjective(_sums), 0, networks, BatchedPredictor(1, str))
    with Live() as live:
        sync.nudge(z[:2], LEVEL, lambda windows, indices: predict(windows, LEVEL, indices))
    peak: int = live.peak
    return peak


def _sums(images: Tensor, anchor: Tensor) -> Tensor:
    return images.sum(dim=(1, 2, 3))


def fake_mode() -> FakeTensorMode:
    """Return the mode in which blank pipelines are built and run."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def resident() -> int:
    """Return the bytes that this process holds."""
    size: int = psutil.Process().memory_info().rss
    return size


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors that were made in this mode, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.live = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # for questions about data, e.g. whether latents are finite
        for storage in _storages((args, kwargs)):
            self._track(storage, 0)  # it existed before, as weights do
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._track(storage, storage.nbytes())
        return result

    def _track(self, storage: torch.UntypedStorage, size: int) -> None:
        key = id(storage)
        if key in self._storages:
            return

        def drop(_: object) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, drop)
        self.live += size
        self.peak = max(self.peak, self.live)


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [tensor.untyped_storage() for tensor in tree_leaves(values) if isinstance(tensor, torch.Tensor)]
