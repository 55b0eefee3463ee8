"""The solvers that can be chosen, and what others call them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

MODEL = "model"  # whatever the model comes with


class Scheduler(NamedTuple):
    """What others call a scheduler."""

    diffusers: str  # its class; empty: whatever the model comes with
    automatic1111: str


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType(
    {
        MODEL: Scheduler("", "model default"),
        "ddim": Scheduler("DDIMScheduler", "DDIM"),
        "euler": Scheduler("EulerDiscreteScheduler", "Euler"),
        "euler_a": Scheduler("EulerAncestralDiscreteScheduler", "Euler a"),
        "dpmpp_2m": Scheduler("DPMSolverMultistepScheduler", "DPM++ 2M"),
        "unipc": Scheduler("UniPCMultistepScheduler", "UniPC"),
    }
)
