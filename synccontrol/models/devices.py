"""Devices, dtypes and offloading."""

from typing import Any

import torch

from synccontrol.errors import ConfigError, ModelError
from synccontrol.spec.schema import require_choice

NONE, MODEL, SEQUENTIAL = OFFLOADS = ("none", "model", "sequential")  # granularity of CPU offloading

CPU = "cpu"
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def check_device(device: str) -> None:
    """Raise `ModelError` if a torch device is unknown or missing."""
    kind, _, number = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in count or (number and not number.isdigit()):
        raise ModelError(f"unknown device {device!r}; use cpu, cuda, cuda:1 or mps")
    if count[kind] <= int(number or 0):
        available = [name for name, devices in count.items() if devices]
        raise ModelError(f"device {device!r} is not there; this machine has {', '.join(available)}")


def parse_devices(devices: str, offload: str = NONE) -> list[str]:
    """Return the devices of a comma-separated list; the model is loaded on each.

    The CPU may be repeated, for tests without GPUs.

    Raises:
        ModelError: a device is unknown or missing.
        ConfigError: the devices are of several kinds, a device other than the CPU is repeated, or the devices do not
            support the offloading.
    """
    names = [device.strip() for device in devices.split(",")]
    for device in names:
        check_device(device)
    indexed = [(kind, int(number or 0)) for kind, _, number in (device.partition(":") for device in names)]
    if len({kind for kind, _ in indexed}) > 1:
        raise ConfigError(
            f"devices {devices} are of several kinds, which give different results; name those of one kind"
        )
    if indexed[0][0] != CPU and len(set(indexed)) < len(indexed):
        raise ConfigError(f"devices {devices} name one twice, which would hold the model twice; name each once")
    check_offload(offload, devices)
    return names


def check_offload(offload: str, device: str) -> None:
    """Raise `ConfigError` for an unknown offloading mode, or one that the device does not support."""
    require_choice("offload", offload, OFFLOADS)
    if offload != NONE and "," in device:
        raise ConfigError(f"offload {offload} frees one card, and the devices are {device}; leave it out, or name one")
    if offload != NONE and device == CPU:
        raise ConfigError(f"offload {offload} frees a card, and the device is cpu; leave it out")


def place_pipeline(pipe: Any, device: str, offload: str) -> Any:
    """Move a pipeline to a device, or enable its offloading.

    Raises:
        ConfigError: two networks share parts, which cannot be offloaded.
    """
    if offload != NONE and _has_shared_weights(pipe):
        raise ConfigError(
            f"offload {offload} is not for a ControlNet that shares parts with its transformer, as this one does: "
            "each would take them away from the other; leave it out, or generate without the ControlNet"
        )
    if offload == MODEL:
        pipe.enable_model_cpu_offload(device=device)
    elif offload == SEQUENTIAL:
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def _has_shared_weights(pipe: Any) -> bool:
    """Return whether two networks share weights."""
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = [{id(weight) for weight in network.parameters()} for network in networks]
    return len(set().union(*weights)) < sum(map(len, weights))
