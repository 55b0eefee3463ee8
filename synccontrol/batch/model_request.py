"""`ModelRequest`: the model, detectors and machine of a job; and a cache of loaded detectors."""

import dataclasses
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from synccontrol import preprocess
from synccontrol.errors import ConfigError, MemoryLimitError, translated
from synccontrol.io.resize import Colour
from synccontrol.models import devices, loader, registry, single_file
from synccontrol.pipeline.montage import Montage
from synccontrol.preprocess.control import Option
from synccontrol.sampling import batching
from synccontrol.spec.image_spec import mapped_controls
from synccontrol.spec.schema import require_choice
from synccontrol.spec.settings import Adapters

if TYPE_CHECKING:
    from synccontrol.batch.job import Recipe

AUTO = "auto"
BUNDLED_WORLD = "tiny"  # the bundled model, and the detectors for its images
BLACK = (0, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """The model, detectors and machine of a job."""

    model: str
    controls: tuple[str, ...]
    controlnets: tuple[str, ...]
    detectors: tuple[str, ...]
    adapters: Adapters = Adapters()
    device: str = AUTO
    dtype: str = AUTO
    offload: str = devices.NONE
    offline: bool = False

    @functools.cached_property
    def mapped_controls(self) -> tuple[str, ...]:
        """Return the controls that follow a map; control maps and detectors have the same order."""
        return mapped_controls(self.controls)

    @property
    def at_full_strength(self) -> "ModelRequest":
        """Return the request with all adapters at full strength: the key of a loaded model."""
        return dataclasses.replace(self, adapters=self.adapters.at_full_strength)

    def __post_init__(self) -> None:
        require_choice("offload", self.offload, devices.OFFLOADS)


def devices_of(request: ModelRequest) -> list[str]:
    """Return the requested torch devices, or the fastest one.

    Raises:
        ModelError: a device is unknown or not available.
        ConfigError: the devices cannot be combined, or not with this offloading.
    """
    if request.device != AUTO:
        return devices.parse_devices(request.device, request.offload)
    if torch.cuda.is_available():
        return ["cuda"]
    return ["mps" if torch.backends.mps.is_available() else devices.CPU]


def device_of(request: ModelRequest) -> str:
    """Return the first of `devices_of`. Raises as it does."""
    return devices_of(request)[0]


def dtype_of(request: ModelRequest) -> torch.dtype:
    """Return the requested dtype, or the model's 16-bit one on cuda, and float32 elsewhere.

    Raises:
        ConfigError: the dtype is unknown.
        ModelError: the model cannot be read.
    """
    if request.dtype == AUTO:
        is_cuda = device_of(request).startswith("cuda")
        return loader.half_dtype(request.model, request.offline) if is_cuda else torch.float32
    if request.dtype not in devices.DTYPES:
        raise ConfigError(f"unknown dtype {request.dtype!r}; known: {', '.join(devices.DTYPES)}")
    return devices.DTYPES[request.dtype]


def dtype_name(request: ModelRequest) -> str:
    """Return the dtype as its flag has it. Raises `ConfigError` as `dtype_of`."""
    return str(dtype_of(request)).removeprefix("torch.")


def machine_of(request: ModelRequest) -> tuple[str, str]:
    """Return device and dtype as an image records them. Raises as `device_of` and `dtype_of`."""
    return ",".join(devices_of(request)), dtype_name(request)


def own_detectors(model: str, controls: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a model's own detectors for controls; empty: the defaults."""
    preset = single_file.known_preset(model)
    detectors = registry.PRESETS[preset].detectors if preset else {}
    types = preprocess.names()
    if not any(control in detectors for control in controls) or any(control not in types for control in controls):
        return ()
    return tuple(detectors.get(control) or preprocess.detectors(control)[0] for control in controls)


def remarks(request: ModelRequest, detected: Sequence[int]) -> list[str]:
    """Return a line for every detected control whose detector knows images of the bundled model only."""
    if request.model == BUNDLED_WORLD or request.detectors:
        return []
    controls = [request.mapped_controls[place] for place in detected]
    bundled = [control for control in controls if preprocess.detectors(control)[0] == BUNDLED_WORLD]
    return [
        f"{control} is read by the bundled detector, which knows images of the bundled model; for photographs name "
        f"another with --detector: {', '.join(preprocess.detectors(control)[1:])}"
        for control in bundled
    ]


def detector(
    request: ModelRequest, control: str, name: str | None, loop: bool, **options: float | str | bool
) -> preprocess.Detector:
    """Load the detector of a control.

    Args:
        request: gives the device.
        control: its type.
        name: the detector; None: the default.
        loop: guides and control maps wrap around horizontally.
        options: of the control type, as `preprocess.load` takes them.

    Raises:
        ConfigError: a control type, detector or option is unknown.
        ModelError: the detector's weights are not available.
    """
    with translated():
        detect = preprocess.load(
            control, name, device=device_of(request), offline=request.offline, loop=loop, **options
        )
    return translated()(detect)


def detector_names(request: ModelRequest, detected: Sequence[int]) -> list[str | None]:
    """Return the detector's name of each detected control; None: the default.

    Args:
        request: the request.
        detected: places of the detected controls.

    Raises:
        ConfigError: the number of names is wrong.
    """
    names, controls = request.detectors, request.mapped_controls
    if not names:
        return [None] * len(detected)
    if len(names) == len(controls):
        return [names[index] for index in detected]
    if len(names) == len(detected):
        return list(names)
    raise ConfigError(f"{len(names)} detectors for {len(detected)} controls that are detected; give one for each")


def check_control(control: str) -> None:
    """Raise `ConfigError` for an unknown control type."""
    require_choice("control", control, preprocess.names(), "controls")


def check_detectors(request: ModelRequest, detected: Sequence[int]) -> None:
    """Raise `ConfigError` for an unknown detector, or a detected control without detectors."""
    names = detector_names(request, detected)
    for place, name in zip(detected, names, strict=True):
        control = request.mapped_controls[place]
        check_control(control)
        with translated():
            preprocess.check_detector(control, name)


def outside(request: ModelRequest) -> list[Colour | None]:
    """Return the padding colour of each control map outside of the guide; None: its border is repeated."""
    types = preprocess.names()
    return [preprocess.outside(control) if control in types else BLACK for control in request.mapped_controls]


def load(request: ModelRequest) -> Montage:
    """Load the montage of a request. Raises `ModelError` if something is not available."""
    return Montage.from_pretrained(
        request.model,
        request.controls,
        controlnets=request.controlnets,
        adapters=request.adapters,
        device=",".join(devices_of(request)),
        dtype=dtype_of(request),
        offload=request.offload,
        offline=request.offline,
    )


MAX_LOADED = 8  # detectors

T = TypeVar("T")


class _Key(NamedTuple):
    """The key of a loaded detector."""

    control: str
    name: str | None
    loop: bool
    device: str
    offline: bool
    options: str  # as JSON


class Detectors:
    """Loads and caches detectors; beyond `MAX_LOADED` the least recently used one is freed."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[_Key, preprocess.Detector] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, recipe: "Recipe", control: str, name: str | None, **options: Option) -> preprocess.Detector:
        """Return the detector of a control. Raises as `detector`.

        Args:
            recipe: gives the device, and whether guides wrap around.
            control: its type.
            name: the detector; None: the default.
            options: of the control type.
        """
        request, loop = recipe.request, recipe.windows.closed
        device, options_json = device_of(request), json.dumps(options, sort_keys=True)
        key = _Key(control, name, loop, device, request.offline, options_json)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = detector(request, control, name, loop, **options)
                while len(self._loaded) > MAX_LOADED:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def free_unused(self, request: ModelRequest) -> None:
        """Free the detectors that a request does not use."""
        machine = device_of(request), request.offline
        with self._lock:
            for key in list(self._loaded):
                if key.control not in request.controls or (key.device, key.offline) != machine:
                    del self._loaded[key]

    def free(self) -> bool:
        """Free all detectors, running ones after their work; return whether any were loaded."""
        with self._lock:
            had_any = bool(self._loaded)
            self._loaded.clear()
        return had_any

    def retry_without(self, work: Callable[[], T]) -> T:
        """Return the result of `work`. If memory runs out, free all detectors and call `work` once more.

        Raises:
            Exception: of the last call.
        """
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            is_memory_error = isinstance(error, MemoryLimitError) or batching.is_out_of_memory(error)
            if not is_memory_error or not self.free():
                raise
        batching.free_memory()
        return work()
