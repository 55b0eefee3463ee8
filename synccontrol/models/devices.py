"""Where networks run, and in what numbers."""

from typing import Any

import torch

from synccontrol.errors import ConfigError, ModelError
from synccontrol.spec.schema import require_choice

NONE, MODEL, SEQUENTIAL = OFFLOADS = ("none", "model", "sequential")  # what waits in memory for its turn on a card

CPU = "cpu"
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


def named(devices: str, offload: str = NONE) -> list[str]:
    """Returns the devices of a comma list, on each of which the model is to be.

    Raises:
        ModelError: one is unknown or not there.
        ConfigError: they are of several kinds, or one is named twice (the CPU may be, to try it without cards); or they
            do not go with the offloading.
    """
    found = [device.strip() for device in devices.split(",")]
    for device in found:
        check_device(device)
    places = [(kind, int(number or 0)) for kind, _, number in (device.partition(":") for device in found)]
    if len({kind for kind, _ in places}) > 1:
        raise ConfigError(f"devices {devices} are of several kinds, which do not compute alike; name those of one kind")
    if places[0][0] != CPU and len(set(places)) < len(places):
        raise ConfigError(f"devices {devices} name one twice, which would hold the model twice; name each once")
    check_offload(offload, devices)
    return found


def check_offload(offload: str, device: str) -> None:
    """Raises `ConfigError` for an unknown kind of offloading, or where there is no card to leave, or several."""
    require_choice("offload", offload, OFFLOADS)
    if offload != NONE and "," in device:
        raise ConfigError(f"offload {offload} frees one card, and the devices are {device}; leave it out, or name one")
    if offload != NONE and device == CPU:
        raise ConfigError(f"offload {offload} frees a card, and the device is cpu; leave it out")


def settle(pipe: Any, device: str, offload: str) -> Any:
    """Returns a pipeline on a device; offloaded ones come there network by network, or layer by layer.

    Raises:
        ConfigError: two networks share parts, which cannot be offloaded.
    """
    if offload != NONE and _shares(pipe):
        raise ConfigError(
            f"offload {offload} is not for a ControlNet that shares parts with its transformer, as this one does: "
            "the one would take them away from the other; leave it out, or draw without the ControlNet"
        )
    if offload == MODEL:
        pipe.enable_model_cpu_offload(device=device)
    elif offload == SEQUENTIAL:
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def _shares(pipe: Any) -> bool:
    """Returns whether some weights are part of two networks."""
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = [{id(weight) for weight in network.parameters()} for network in networks]
    return len(set().union(*weights)) < sum(map(len, weights))
