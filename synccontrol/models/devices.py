"""Where networks run, and in what numbers."""

import torch

from synccontrol.errors import ModelError

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
