"""The named models in words: what each is, its licence, its download, its card, and what of it is on this machine."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import DiffusionPipeline, UNet2DConditionModel
from huggingface_hub import CacheNotFound, constants, scan_cache_dir

from synccontrol.families import checkpoints
from synccontrol.families.checkpoints import fetch, place, source
from synccontrol.models import loader, registry, single_file
from synccontrol.models.registry import Preset

GB = 1e9
CARDS = (8, 12, 16, 24, 32, 48, 80, 96, 141)  # GB
USABLE = 0.92  # of a card


def lines() -> list[str]:
    """Returns what `--list-models` says."""
    on_disk = cached()
    found = []
    for name, preset in registry.PRESETS.items():
        found += [f"{name}: {preset.about}", *(f"  {key:9} {value}" for key, value in _facts(preset, on_disk).items())]
    return [
        *found,
        "Cards are forecast at 4096x1024 px with one ControlNet, in 16 bits, without offloading.",
        "Any diffusers folder, hub id (owner/name, owner/name@revision) or .safetensors file of Stable Diffusion "
        "serves as --model too, with --mask also one made for repainting.",
    ]


def controls(model: str) -> list[str]:
    """Returns the control types that a model has a ControlNet for, sorted. Raises `ModelError` for an unknown model."""
    own = Path(loader.base_of(model)).glob("controlnet-*")
    known = registry.PRESETS[single_file.known_preset(model)].controlnets if single_file.known_preset(model) else {}
    return sorted({*known, *(folder.name.removeprefix("controlnet-") for folder in own)})


def repaints(model: str, offline: bool = False) -> bool:
    """Returns whether a model's UNet is made for repainting, its weights not loaded. Raises `ModelError`."""
    base = loader.base_of(model)

    def read(local: bool) -> bool:
        if "unet" not in checkpoints.component_config(DiffusionPipeline, base, local_files_only=local):
            return False
        unet = checkpoints.component_config(UNet2DConditionModel, (base, "unet"), local_files_only=local)
        channels = single_file.channels(model, base, local).get("channels", unet["in_channels"])
        return bool(channels == 2 * unet["out_channels"] + 1)

    return model not in registry.PRESETS and fetch(read, [place(base)], offline)


def _facts(preset: Preset, cached: Mapping[str, int]) -> dict[str, str]:
    h, w = preset.geometry.window_px
    bundled = Path(preset.base).is_dir()
    return {
        "licence": preset.licence,
        "windows": f"{w}x{h} px, and so the native height is {h}",
        "controls": ", ".join(preset.controlnets) or "depth, canny, pose",
        "download": preset.download,
        "card": "none: two CPU cores do" if bundled else f"{card(preset.memory)} GB (forecast {preset.memory:g})",
        "here": here(preset, cached),
    }


def card(memory: float) -> int:
    """Returns the smallest usual card that so many GB fit, with something left for its driver and libraries."""
    return next(size for size in CARDS if memory <= size * USABLE)


def fits(preset: Preset, memory: float, offload: bool) -> str:
    """Returns how a preset, in 16 bits and 4096x1024 px, fits into so many GB, as forecast; empty: it does not.

    Args:
        preset: the model.
        memory: GB that are free.
        offload: they are a card's, and networks can wait beside it.
    """
    ways = ("fits", "fits with --offload model", "fits with --offload sequential, slowly")
    sizes = (preset.memory, *(preset.offloaded if offload else ()))
    return next((way for way, size in zip(ways, sizes, strict=False) if size <= memory * USABLE), "")


def here(preset: Preset, cached: Mapping[str, int]) -> str:
    """Returns what of a preset is on this machine."""
    if Path(preset.base).is_dir():
        return "all of it"
    size = cached.get(place(preset.base), 0)
    nets = [of for of, name in preset.controlnets.items() if place(source(name)) in cached]
    parts = [f"{size / GB:.1f} GB of the base model"] if size else []
    parts += [f"ControlNets for {', '.join(nets)}"] if nets else []
    return "; ".join(parts) or "nothing"


def cached() -> dict[str, int]:
    """Returns the bytes that the hub's cache holds, by hub id."""
    try:
        found = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return {}
    return {repository.repo_id: repository.size_on_disk for repository in found}
