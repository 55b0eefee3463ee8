"""`synccontrol doctor`: list installed versions, the machine, and the models that fit it."""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from synccontrol.cli.terminal import BAD_INPUT, COMMANDS, DONE, Parser, status

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pillow", "opencv-python")
OPTIONAL = ("ray", "rtmlib", "onnxruntime", "xformers")
VARIABLES = ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")
GB = 1e9
CPU_FACTOR = 2.0  # networks run in 32 bits on the CPU, and estimates are for 16


def build_parser(prog: str = "synccontrol doctor") -> argparse.ArgumentParser:
    """Return the parser."""
    about = COMMANDS["doctor"].about.capitalize()
    return Parser(prog=prog, allow_abbrev=False, description=f"{about}. Paste its lines into a report of a problem.")


def main(argv: Sequence[str] | None = None, prog: str = "synccontrol doctor") -> int:
    """Return the exit status: 0 all is well, 2 bad usage, or the bundled model cannot be loaded."""

    def run() -> int:
        build_parser(prog).parse_args(argv)
        well = True
        for line in lines():
            print(line)
            well = well and "error:" not in line
        return DONE if well else BAD_INPUT

    return status(run)


def lines() -> Iterator[str]:
    """Yield the lines; the home folder is written ~, and no token is shown."""
    yield f"programs  synccontrol {version('synccontrol')}, Python {platform.python_version()}, {platform.platform()}"
    yield f"libraries {', '.join(_versions())}"
    yield f"settings  {', '.join(_variables()) or 'no relevant environment variable is set'}"
    yield from _machine()
    yield f"bundled   {_bundled()}"
    yield from _models()


def _versions() -> Iterator[str]:
    for name in (*LIBRARIES, *OPTIONAL):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            if name in LIBRARIES:
                yield f"error: {name} is missing; pip install {name}"


def _variables() -> Iterator[str]:
    for name in VARIABLES:
        if name in os.environ:
            yield f"{name}={_private(os.environ[name])}"
    if "HF_TOKEN" in os.environ:
        yield "HF_TOKEN is set"


def _private(path: str) -> str:
    return path.replace(str(Path.home()), "~")


def _machine() -> Iterator[str]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"cpu       {cores} cores, {torch.get_num_threads()} threads of torch"
    yield f"memory    {memory.total / GB:.1f} GB, {memory.available / GB:.1f} free"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        about = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}    {about.name}, {total / GB:.1f} GB, {free / GB:.1f} free, CUDA {torch.version.cuda}"
    if (cards := torch.cuda.device_count()) > 1:
        devices = ",".join(f"cuda:{index}" for index in range(cards))
        yield f"          --device {devices} generates one wide image on all"
    if torch.backends.mps.is_available():
        yield "mps       Apple GPU, which shares the memory above"
    if not torch.cuda.device_count() and not torch.backends.mps.is_available():
        yield "gpu       none that torch can use: the bundled model is made for CPUs, others are slow"


def _bundled() -> str:
    from synccontrol.errors import SyncControlError
    from synccontrol.models import loader

    try:
        loader.load("tiny", ["depth", "canny", "pose"], offline=True)
    except (SyncControlError, OSError) as error:
        return f"error: the bundled model cannot be loaded ({error}); install SyncControl again"
    return "the bundled model and its ControlNets load"


def _models() -> Iterator[str]:
    import psutil
    import torch
    from huggingface_hub import constants

    from synccontrol.models import listing, registry

    on_card = torch.cuda.device_count() > 0
    free = (torch.cuda.mem_get_info(0)[0] if on_card else psutil.virtual_memory().available / CPU_FACTOR) / GB
    place = "on cuda:0" if on_card else "in memory, in 32 bits"
    cached = listing.cached_sizes()
    size = sum(cached.values()) / GB
    yield f"cache     {_private(constants.HF_HUB_CACHE)}, {size:.1f} GB of {len(cached)} models"
    yield f"models    an image of 4096x1024 px with one ControlNet {place}, by estimate:"
    for name, preset in registry.PRESETS.items():
        fits = (
            listing.describe_fit(preset, free, offload=on_card)
            or f"does not fit (estimate {preset.memory:g} GB in 16 bits)"
        )
        yield f"  {name:14} {fits}; here: {listing.describe_local_files(preset, cached)}"


if __name__ == "__main__":
    sys.exit(main())
