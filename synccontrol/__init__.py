"""SyncControl: one coherent wide picture that follows a guide."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synccontrol.compose import ComposeConfig
    from synccontrol.config import SamplingConfig, SyncConfig, WindowConfig
    from synccontrol.enlarge import EnlargeConfig
    from synccontrol.errors import SyncControlError
    from synccontrol.extras import Extras
    from synccontrol.montage import Montage
    from synccontrol.picture import Picture
    from synccontrol.region import Region
    from synccontrol.result import Result, Step

__all__ = [
    "ComposeConfig",
    "EnlargeConfig",
    "Extras",
    "Montage",
    "Picture",
    "Region",
    "Result",
    "SamplingConfig",
    "Step",
    "SyncConfig",
    "SyncControlError",
    "WindowConfig",
]
__version__ = "0.1.0"

if "torch" not in sys.modules:  # threads that wait give their core away; OpenMP reads this once, when torch loads it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "ComposeConfig": "compose",
    "EnlargeConfig": "enlarge",
    "Extras": "extras",
    "Montage": "montage",
    "Picture": "picture",
    "Region": "region",
    "Result": "result",
    "SamplingConfig": "config",
    "Step": "result",
    "SyncConfig": "config",
    "SyncControlError": "errors",
    "WindowConfig": "config",
}


def __getattr__(name: str) -> Any:
    """Returns a public name from its module, loaded on first use: torch and diffusers take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
