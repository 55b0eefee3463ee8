"""Which model, detectors and machine a job needs, and the detectors that a process has loaded."""

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
from synccontrol.spec.image_spec import followed
from synccontrol.spec.schema import require_choice
from synccontrol.spec.settings import Adapters

if TYPE_CHECKING:
    from synccontrol.batch.job import Recipe

AUTO = "auto"
BUNDLED_WORLD = "tiny"  # the bundled model, and the detectors that were made for its pictures
BLACK = (0, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """Which model, detectors and machine to use."""

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
    def followed(self) -> tuple[str, ...]:
        """Returns the controls that follow a map, detected or ready-made; places of maps and detectors count these."""
        return followed(self.controls)

    @property
    def unweighed(self) -> "ModelRequest":
        """Returns what is to be loaded, however strong LoRAs and the like are then."""
        return dataclasses.replace(self, adapters=self.adapters.unweighed)

    def __post_init__(self) -> None:
        require_choice("offload", self.offload, devices.OFFLOADS)


def devices_of(request: ModelRequest) -> list[str]:
    """Returns the torch devices: as asked, or the best there is.

    Raises:
        ModelError: one is unknown or not there.
        ConfigError: they do not go together, or not with the offloading.
    """
    if request.device != AUTO:
        return devices.named(request.device, request.offload)
    if torch.cuda.is_available():
        return ["cuda"]
    return ["mps" if torch.backends.mps.is_available() else devices.CPU]


def device_of(request: ModelRequest) -> str:
    """Returns the device of all that is on one: the first of `devices_of`, whose errors are raised."""
    return devices_of(request)[0]


def dtype_of(request: ModelRequest) -> torch.dtype:
    """Returns the dtype: as asked, or 16 bits on cuda, of the kind that suits the model, and float32 elsewhere.

    Raises:
        ConfigError: it is unknown.
        ModelError: the model cannot be read.
    """
    if request.dtype == AUTO:
        on_card = device_of(request).startswith("cuda")
        return loader.half(request.model, request.offline) if on_card else torch.float32
    if request.dtype not in devices.DTYPES:
        raise ConfigError(f"unknown dtype {request.dtype!r}; known: {', '.join(devices.DTYPES)}")
    return devices.DTYPES[request.dtype]


def dtype_name(request: ModelRequest) -> str:
    """Returns the dtype as its flag has it. Raises `ConfigError` as `dtype_of`."""
    return str(dtype_of(request)).removeprefix("torch.")


def machine_of(request: ModelRequest) -> tuple[str, str]:
    """Returns device and dtype as a picture records them. Raises as `device_of` and `dtype_of`."""
    return ",".join(devices_of(request)), dtype_name(request)


def own_detectors(model: str, controls: Sequence[str]) -> tuple[str, ...]:
    """Returns what reads each control off the guides of a model, by name: a preset has its own; none: the defaults."""
    known = single_file.known_preset(model)
    own = registry.PRESETS[known].detectors if known else {}
    types = preprocess.names()
    if not any(control in own for control in controls) or any(control not in types for control in controls):
        return ()
    return tuple(own.get(control) or preprocess.detectors(control)[0] for control in controls)


def remarks(request: ModelRequest, detected: Sequence[int]) -> list[str]:
    """Returns a line for every control, of those detected, that only a detector of the bundled world reads."""
    if request.model == BUNDLED_WORLD or request.detectors:
        return []
    controls = [request.followed[place] for place in detected]
    found = [control for control in controls if preprocess.detectors(control)[0] == BUNDLED_WORLD]
    return [
        f"{control} is read by the bundled detector, which knows pictures of the bundled model; for photographs name "
        f"another with --detector: {', '.join(preprocess.detectors(control)[1:])}"
        for control in found
    ]


def detector(
    request: ModelRequest, control: str, name: str | None, loop: bool, **options: float | str | bool
) -> preprocess.Detector:
    """Returns the detector of a control, loaded.

    Args:
        request: whose machine it runs on.
        control: its type.
        name: the detector; None: the default.
        loop: guides are rings, and so are the control maps.
        options: of the control type, as `preprocess.load` takes them.

    Raises:
        ConfigError: a control type, detector or option is unknown.
        ModelError: a detector's weights cannot be had.
    """
    with translated():
        detect = preprocess.load(
            control, name, device=device_of(request), offline=request.offline, loop=loop, **options
        )
    return translated()(detect)


def detector_names(request: ModelRequest, detected: Sequence[int]) -> list[str | None]:
    """Returns the detector's name of each control that is detected from the guide; None: the default.

    Args:
        request: what is asked for.
        detected: which controls, by their place.

    Raises:
        ConfigError: there are names, but not one for each.
    """
    names, controls = request.detectors, request.followed
    if not names:
        return [None] * len(detected)
    if len(names) == len(controls):
        return [names[index] for index in detected]
    if len(names) == len(detected):
        return list(names)
    raise ConfigError(f"{len(names)} detectors for {len(detected)} controls that are detected; give one for each")


def check_control(control: str) -> None:
    """Raise `ConfigError` for a control type that no guide can be turned into."""
    require_choice("control", control, preprocess.names(), "controls")


def check_detectors(request: ModelRequest, detected: Sequence[int]) -> None:
    """Raise `ConfigError` for a control type without detectors, of those that are detected, or an unknown detector."""
    names = detector_names(request, detected)
    for place, name in zip(detected, names, strict=True):
        control = request.followed[place]
        check_control(control)
        with translated():
            preprocess.check_detector(control, name)


def outside(request: ModelRequest) -> list[Colour | None]:
    """Returns what the map of each control shows beyond its guide: a colour, or None: its border goes on."""
    known = preprocess.names()
    return [preprocess.outside(control) if control in known else BLACK for control in request.followed]


def load(request: ModelRequest) -> Montage:
    """Returns the montage of a request. Raises `ModelError` when something is not to be had."""
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


MOST = 8  # that stay loaded

Made = TypeVar("Made")


class _Key(NamedTuple):
    """What tells detectors apart."""

    control: str
    name: str | None
    loop: bool
    device: str
    offline: bool
    options: str  # as JSON


class Detectors:
    """Loads detectors, each once as long as it stays; of too many the one that was used longest ago goes."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[_Key, preprocess.Detector] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, recipe: "Recipe", control: str, name: str | None, **options: Option) -> preprocess.Detector:
        """Returns the detector of a control. Raises as `runtime.detector`.

        Args:
            recipe: whose machine it runs on, and whether guides are rings.
            control: its type.
            name: the detector; None: the default.
            options: of the control type.
        """
        request, loop = recipe.request, recipe.windows.closed
        device, said = device_of(request), json.dumps(options, sort_keys=True)
        key = _Key(control, name, loop, device, request.offline, said)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = detector(request, control, name, loop, **options)
                while len(self._loaded) > MOST:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def keep(self, request: ModelRequest) -> None:
        """Frees those that a request has no use for."""
        machine = device_of(request), request.offline
        with self._lock:
            for key in list(self._loaded):
                if key.control not in request.controls or (key.device, key.offline) != machine:
                    del self._loaded[key]

    def free(self) -> bool:
        """Frees all; returns whether there were any. What detects right now goes when it is done."""
        with self._lock:
            found = bool(self._loaded)
            self._loaded.clear()
        return found

    def make_room(self, make: Callable[[], Made]) -> Made:
        """Returns what `make` returns, which is called once more, with all detectors gone, if memory does not suffice.

        Raises:
            Exception: what `make` raises the last time.
        """
        try:
            return make()
        except (RuntimeError, MemoryError) as error:
            short = isinstance(error, MemoryLimitError) or batching.is_out_of_memory(error)
            if not short or not self.free():
                raise
        batching.free()
        return make()
