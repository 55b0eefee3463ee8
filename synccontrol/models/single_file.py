"""Single-file Stable Diffusion checkpoints: detect their type and the preset that describes it."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors import SafetensorError, safe_open

from synccontrol.errors import ModelError
from synccontrol.families import checkpoints
from synccontrol.families.checkpoints import SUFFIX
from synccontrol.models import registry

UNET_KEY = "model.diffusion_model.input_blocks.0.0.weight"  # present in every Stable Diffusion checkpoint
PRESET_OF_TYPE = {  # diffusers' name of a file's type -> preset of the same shape, apart from inpainting channels
    "v1": "sd15",
    "inpainting": "sd15",
    "v2": "sd21-768",
    "inpainting_v2": "sd21",
    "xl_base": "sdxl",
    "xl_inpaint": "sdxl",
}


def is_single_file(model: str) -> bool:
    """Return whether a model name is a single file."""
    return model.endswith(SUFFIX) and not Path(model).is_dir()


def preset_of(file: str) -> str:
    """Return the preset whose configuration and tokenizers match a checkpoint. Only the header is read.

    Raises:
        ModelError: the file cannot be read, or is not a supported checkpoint.
    """
    shapes = _shapes(file)
    kind = infer_diffusers_model_type({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    if UNET_KEY not in shapes or kind not in PRESET_OF_TYPE:
        raise ModelError(
            f"{file} is no checkpoint of Stable Diffusion 1.x, 2.x or XL base; of other models give a diffusers folder "
            "or hub id, and of a part of a model name it with --lora, --vae or --controlnet"
        )
    return PRESET_OF_TYPE[kind]


def known_preset(model: str) -> str:
    """Return the preset of a model, or the one that matches its file; empty if there is none."""
    return model if model in registry.PRESETS else preset_of(model) if is_single_file(model) else ""


def file_option(model: str) -> dict[str, str]:
    """Return the keyword argument `file` of a single-file model; empty for others."""
    return {"file": model} if is_single_file(model) else {}


def channels_option(model: str, base: str, local_files_only: bool) -> dict[str, int]:
    """Return the keyword argument `channels` of a file's UNet, if it differs from the base model's.

    Inpainting UNets have 9 channels. Errors are those of `preset_of`.
    """
    if not is_single_file(model):
        return {}
    unet = checkpoints.component_config(UNet2DConditionModel, (base, "unet"), local_files_only=local_files_only)
    in_channels = _shapes(model)[UNET_KEY][1]
    return {} if in_channels == unet["in_channels"] else {"channels": in_channels}


def _shapes(file: str) -> dict[str, list[int]]:
    if not Path(file).is_file():
        raise ModelError(f"{file} is not there; give a file on this machine, a diffusers folder or a hub id")
    try:
        with safe_open(file, framework="pt") as weights:
            return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: it is no .safetensors file ({error})") from error
