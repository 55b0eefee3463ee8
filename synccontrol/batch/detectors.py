"""`Detectors`: those that a process has loaded. Jobs share them; they go when nobody needs them or memory is short."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import preprocess
from preprocess.control import Option
from synccontrol.batch import model_request
from synccontrol.batch.job import Recipe
from synccontrol.batch.model_request import ModelRequest
from synccontrol.errors import MemoryLimitError
from synccontrol.sampling import batching

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

    def load(self, recipe: Recipe, control: str, name: str | None, **options: Option) -> preprocess.Detector:
        """Returns the detector of a control. Raises as `runtime.detector`.

        Args:
            recipe: whose machine it runs on, and whether guides are rings.
            control: its type.
            name: the detector; None: the default.
            options: of the control type.
        """
        request, loop = recipe.request, recipe.windows.closed
        device, said = model_request.device_of(request), json.dumps(options, sort_keys=True)
        key = _Key(control, name, loop, device, request.offline, said)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = model_request.detector(request, control, name, loop, **options)
                while len(self._loaded) > MOST:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def keep(self, request: ModelRequest) -> None:
        """Frees those that a request has no use for."""
        machine = model_request.device_of(request), request.offline
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
