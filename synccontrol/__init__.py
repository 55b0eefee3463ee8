"""SyncControl: one coherent wide picture that follows a guide."""

from synccontrol.config import SamplingConfig, SyncConfig, WindowConfig
from synccontrol.errors import SyncControlError
from synccontrol.loop import Step
from synccontrol.montage import Montage, Result

__all__ = ["Montage", "Result", "SamplingConfig", "Step", "SyncConfig", "SyncControlError", "WindowConfig"]
__version__ = "0.1.0"
