"""Descriptions of the named models: licence, download size, GPU and local files."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import DiffusionPipeline, UNet2DConditionModel
from huggingface_hub import CacheNotFound, constants, scan_cache_dir

from synccontrol.families import checkpoints
from synccontrol.families.checkpoints import fetch, parse_source, source_location
from synccontrol.models import loader, registry, single_file
from synccontrol.models.registry import Preset

GB = 1e9
CARDS = (8, 12, 16, 24, 32, 48, 80, 96, 141)  # GB of usual GPUs
USABLE_SHARE = 0.92  # of a GPU's memory


def model_lines() -> list[str]:
    """Return the lines of `--list-models`."""
    on_disk = cached_sizes()
    lines = []
    for name, preset in registry.PRESETS.items():
        lines += [
            f"{name}: {preset.about}",
            *(f"  {key:9} {value}" for key, value in _properties(preset, on_disk).items()),
        ]
    return [
        *lines,
        "Cards are forecast at 4096x1024 px with one ControlNet, in 16 bits, without offloading.",
        "Any diffusers folder, hub id (owner/name, owner/name@revision) or .safetensors file of Stable Diffusion "
        "serves as --model too, with --mask also an inpainting model.",
    ]


def controls(model: str) -> list[str]:
    """Return the control types that a model has ControlNets for, sorted. Raise `ModelError` for an unknown model."""
    folders = Path(loader.base_model(model)).glob("controlnet-*")
    preset = single_file.known_preset(model)
    preset_controls = registry.PRESETS[preset].controlnets if preset else {}
    return sorted({*preset_controls, *(folder.name.removeprefix("controlnet-") for folder in folders)})


def is_inpainting_model(model: str, offline: bool = False) -> bool:
    """Return whether a model's UNet is an inpainting one, without loading weights.

    Raise `ModelError` if it cannot be read.
    """
    base = loader.base_model(model)

    def read(local: bool) -> bool:
        if "unet" not in checkpoints.component_config(DiffusionPipeline, base, local_files_only=local):
            return False
        unet = checkpoints.component_config(UNet2DConditionModel, (base, "unet"), local_files_only=local)
        channels = single_file.channels_option(model, base, local).get("channels", unet["in_channels"])
        return bool(channels == 2 * unet["out_channels"] + 1)

    return model not in registry.PRESETS and fetch(read, [source_location(base)], offline)


def _properties(preset: Preset, cached: Mapping[str, int]) -> dict[str, str]:
    h, w = preset.geometry.window_px
    bundled = Path(preset.base).is_dir()
    return {
        "licence": preset.licence,
        "windows": f"{w}x{h} px, and so the native height is {h}",
        "controls": ", ".join(preset.controlnets) or "depth, canny, pose",
        "download": preset.download,
        "card": "none: two CPU cores do"
        if bundled
        else f"{smallest_card(preset.memory)} GB (forecast {preset.memory:g})",
        "here": describe_local_files(preset, cached),
    }


def smallest_card(memory: float) -> int:
    """Return the smallest usual GPU, in GB, that fits some GB and leaves room for the driver and libraries."""
    return next(size for size in CARDS if memory <= size * USABLE_SHARE)


def describe_fit(preset: Preset, memory: float, offload: bool) -> str:
    """Return how a preset fits into some GB, in 16 bits and at 4096x1024 px; empty if it does not.

    Args:
        preset: the model.
        memory: free GB.
        offload: whether the memory is a GPU's, so that offloading can help.
    """
    descriptions = ("fits", "fits with --offload model", "fits with --offload sequential, slowly")
    sizes = (preset.memory, *(preset.offloaded if offload else ()))
    fitting = (text for text, size in zip(descriptions, sizes, strict=False) if size <= memory * USABLE_SHARE)
    return next(fitting, "")


def describe_local_files(preset: Preset, cached: Mapping[str, int]) -> str:
    """Return which files of a preset are on this machine."""
    if Path(preset.base).is_dir():
        return "all of it"
    size = cached.get(source_location(preset.base), 0)
    nets = [control for control, name in preset.controlnets.items() if source_location(parse_source(name)) in cached]
    parts = [f"{size / GB:.1f} GB of the base model"] if size else []
    parts += [f"ControlNets for {', '.join(nets)}"] if nets else []
    return "; ".join(parts) or "nothing"


def cached_sizes() -> dict[str, int]:
    """Return the bytes of each repository in the hub's cache, by hub id."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return {}
    return {repository.repo_id: repository.size_on_disk for repository in repositories}
