"""How much memory a run takes: its networks are rehearsed on tensors that have shapes but no data."""

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
from synccontrol.families.base import AbstractFamily, Crops, View
from synccontrol.families.unet_base import EMBEDDING_BUDGET
from synccontrol.models import devices
from synccontrol.sampling.batching import Batches
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import Level
from synccontrol.sampling.objectives import AbstractObjective, FunctionObjective
from synccontrol.sampling.sync import Networks, Sync
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig

LEVEL = Level(index=0, signal=0.7, noise=0.7, t=500.0)  # any
CANVAS_COPIES = 4  # the windows before and after sync, their predictions, and a batch's inputs
PICTURE_BYTES = 3  # a pixel, in 8 bit
MAP_BYTES = 2 * 3  # a pixel of a control map, in 8 bit: as a picture, and by channel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of memory. Sampling, sync and decoding come one after the other; the rest is there all the time."""

    weights: int  # of the model and the objective
    at_once: int  # of them on the device, where whole networks wait in memory for their turn
    embeddings: int  # of prompts and control maps, as long as the picture is drawn
    canvas: int  # the windows and their predictions, the picture and its control maps
    sampling: int  # predicting one batch of windows
    sync: int  # comparing one window with the anchor, and the way back through the networks
    decoding: int  # one tile of the canvas, or one view of a sphere

    @property
    def peak(self) -> int:
        """Returns what is needed at once."""
        return self._lasting + max(self.sampling, self.sync, self.decoding)

    @property
    def grown(self) -> int:
        """Returns by how much a process grows that computes on the CPU.

        What sampling gives back, in many small pieces, the C library keeps, while sync and decoding take large ones.
        """
        return self._lasting + self.sampling + max(self.sync, self.decoding)

    @property
    def further(self) -> int:
        """Returns what each device beyond the first needs, where several share the windows: no canvas, no decoding."""
        return self.weights + self.embeddings + self.sampling

    def offloaded(self, how: str) -> "Footprint":
        """Returns the footprint on a card where networks wait in memory, as `devices.OFFLOADS` names it."""
        left = {devices.MODEL: self.at_once, devices.SEQUENTIAL: 0}.get(how, self.weights)
        return dataclasses.replace(self, weights=left)

    @property
    def _lasting(self) -> int:
        return self.weights + self.embeddings + self.canvas


def rehearse(
    family: AbstractFamily,
    layout: AbstractLayout,
    sampling: SamplingConfig,
    windows: WindowConfig,
    sync: SyncConfig | None,
    objective: AbstractObjective | None,
    regions: Sequence[int] = (),
) -> Footprint:
    """Returns the footprint of a picture: what a session does, done with a few windows.

    Args:
        family: a family around a blank pipeline, built under `fake`; call this under the same mode.
        layout: the canvas.
        sampling: guidance, and control.
        windows: how many are predicted in a call.
        sync: how windows are compared; None: they are not.
        objective: what compares, loaded as ever; None where it is not to be had.
        regions: how many each window touches; none: there are no regions.
    """
    views_in_all, most = (sum(regions), max(regions)) if regions else (len(layout), 1)
    n, (h, w) = min(windows.batch, len(layout)), family.geometry.window_px
    z = torch.zeros(max(n, 2), family.geometry.channels, *layout.window, dtype=family.canvas_dtype)
    blank = family.blank_prompt()
    views = [View(window=window, prompt=blank, negative_prompt=blank) for window in range(len(z))]
    crops: list[Crops] = [lambda some: torch.zeros(len(some), 3, h, w)] * family.controls
    with family.session():
        with torch.no_grad(), Live() as predicting:
            predict = family.condition(views, crops, sampling, sampling.steps, str)
            text = predicting.live
            predict(z[:n], LEVEL, range(n))
            kept = (predicting.live - text) // n
        syncing = _rehearse_sync(family, z, predict, sync, objective)
        with torch.no_grad(), Live() as decoding:
            family.decode(torch.zeros(1, family.geometry.channels, *layout.decoded, dtype=family.canvas_dtype))
    networks = [part for part in [*family.pipe.components.values(), family.tiny_vae] if isinstance(part, nn.Module)]
    networks += objective.networks() if objective is not None else []
    return Footprint(
        weights=_held(networks),
        at_once=_at_once(family, objective),
        embeddings=text + min(kept * views_in_all, most * EMBEDDING_BUDGET),
        canvas=CANVAS_COPIES * len(layout) * z[0].nbytes
        + (PICTURE_BYTES + MAP_BYTES * family.controls) * layout.height * layout.width * family.geometry.cell**2,
        sampling=predicting.peak - predicting.live,
        sync=syncing * (most if sync is not None and sync.gradient == "full" else 1),  # a graph for each region
        decoding=decoding.peak,
    )


def _held(networks: Sequence[nn.Module]) -> int:
    """Returns the bytes of the weights of networks; what several share is there once."""
    weights = [tensor for network in networks for tensor in network.state_dict(keep_vars=True).values()]
    return sum({id(tensor): tensor.nbytes for tensor in weights}.values())


def _at_once(family: AbstractFamily, objective: AbstractObjective | None) -> int:
    """Returns the bytes of the largest network that takes turns, and of those that stay, as diffusers moves them."""
    parts = {name: part for name, part in family.pipe.components.items() if isinstance(part, nn.Module)}
    turns = [name for name in family.pipe.model_cpu_offload_seq.split("->") if name in parts]
    staying = [part for name, part in parts.items() if name not in turns]
    staying += objective.networks() if objective is not None else []
    staying += [family.tiny_vae] if family.tiny_vae is not None else []
    return max((_held([parts[name]]) for name in turns), default=0) + _held(staying)


def _rehearse_sync(
    family: AbstractFamily, z: Tensor, predict: Predict, config: SyncConfig | None, objective: AbstractObjective | None
) -> int:
    if config is None:
        return 0
    networks = Networks(
        decode=family.glimpse,
        encode=family.encode,
        kind="epsilon",
        half=family.dtype == torch.float16,
        offloaded=family.offloaded,
    )
    sync = Sync(config, objective or FunctionObjective(_sums), 0, networks, Batches(1, str))
    with Live() as live:
        sync.nudge(z[:2], LEVEL, lambda some, indices: predict(some, LEVEL, indices))
    peak: int = live.peak
    return peak


def _sums(images: Tensor, anchor: Tensor) -> Tensor:
    return images.sum(dim=(1, 2, 3))


def fake() -> FakeTensorMode:
    """Returns the mode in which blank pipelines are built and rehearsed."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def resident() -> int:
    """Returns the bytes that this process holds: Python, the libraries, and what has been loaded so far."""
    found: int = psutil.Process().memory_info().rss
    return found


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made inside and alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.live = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # what the session asks of numbers that are not there, e.g. whether they are finite
        for storage in _storages((args, kwargs)):
            self._see(storage, 0)  # it was there before, as weights are, of which views are taken
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._see(storage, storage.nbytes())
        return result

    def _see(self, storage: torch.UntypedStorage, size: int) -> None:
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
