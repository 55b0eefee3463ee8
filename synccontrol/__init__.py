"""SyncControl: one coherent wide image that follows a guide."""

import os
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synccontrol.errors import SyncControlError
    from synccontrol.pipeline.montage import Montage
    from synccontrol.pipeline.output import Result, Step
    from synccontrol.spec.image_spec import ImageSpec
    from synccontrol.spec.region import Region
    from synccontrol.spec.settings import (
        Adapters,
        Img2ImgConfig,
        SamplingConfig,
        SyncConfig,
        UpscaleConfig,
        WindowConfig,
    )

__all__ = [
    "Adapters",
    "ImageSpec",
    "Img2ImgConfig",
    "Montage",
    "Region",
    "Result",
    "SamplingConfig",
    "Step",
    "SyncConfig",
    "SyncControlError",
    "UpscaleConfig",
    "WindowConfig",
]
__version__ = "0.1.0"

if "torch" not in sys.modules:  # threads that wait give their core away; OpenMP reads this once, when torch loads it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "Adapters": "spec.settings",
    "ImageSpec": "spec.image_spec",
    "Img2ImgConfig": "spec.settings",
    "Montage": "pipeline.montage",
    "Region": "spec.region",
    "Result": "pipeline.output",
    "SamplingConfig": "spec.settings",
    "Step": "pipeline.output",
    "SyncConfig": "spec.settings",
    "SyncControlError": "errors",
    "UpscaleConfig": "spec.settings",
    "WindowConfig": "spec.settings",
}


_RENAMED = {
    "ComposeConfig": "Img2ImgConfig",
    "EnlargeConfig": "UpscaleConfig",
    "Extras": "Adapters",
    "Picture": "ImageSpec",
}


def __getattr__(name: str) -> Any:
    """Return a public name from its module, loaded on first use: torch and diffusers take seconds."""
    if name in _RENAMED:
        warnings.warn(f"{name} is called {_RENAMED[name]} now", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
