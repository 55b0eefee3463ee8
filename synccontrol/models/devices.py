"""Where networks run, and in what numbers."""

from typing import Any

import torch

from synccontrol.checks import require_choice
from synccontrol.errors import ConfigError, ModelError

NONE, MODEL, SEQUENTIAL = OFFLOADS = ("none", "model", "sequential")  # what waits in memory for its turn on a card

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def check_device(device: str) -> None:
    """Raises `ModelError` when a torch device is unknown or not there."""
    kind, _, number = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in count or (number and not number.isdigit()):
        raise ModelError(f"unknown device {device!r}; use cpu, cuda, cuda:1 or mps")
    if count[kind] <= int(number or 0):
        there = [name for name, devices in count.items() if devices]
        raise ModelError(f"device {device!r} is not there; this machine has {', '.join(there)}")


def check_offload(offload: str, device: str) -> None:
    """Raises `ConfigError` for an unknown kind of offloading, or one for which there is no card to leave."""
    require_choice("offload", offload, OFFLOADS)
    if offload != NONE and device == "cpu":
        raise ConfigError(f"offload {offload} frees a card, and the device is cpu; leave it out")


def settle(pipe: Any, device: str, offload: str) -> Any:
    """Returns a pipeline on a device; offloaded ones come there network by network, or layer by layer."""
    if offload == MODEL:
        pipe.enable_model_cpu_offload(device=device)
    elif offload == SEQUENTIAL:
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe
