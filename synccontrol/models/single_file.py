"""Checkpoints in one file, as Stable Diffusion's are traded: what they are, and whose configuration describes them."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors import SafetensorError, safe_open

from synccontrol.errors import ModelError
from synccontrol.families import checkpoints
from synccontrol.families.checkpoints import SUFFIX
from synccontrol.models import registry

UNET = "model.diffusion_model.input_blocks.0.0.weight"  # is there in every file of Stable Diffusion
LIKE = {  # what diffusers calls a file -> a preset of the same shape, but for the channels of inpainting UNets
    "v1": "sd15",
    "inpainting": "sd15",
    "v2": "sd21-768",
    "inpainting_v2": "sd21",
    "xl_base": "sdxl",
    "xl_inpaint": "sdxl",
}


def is_one(model: str) -> bool:
    """Returns whether a model is named as one file."""
    return model.endswith(SUFFIX) and not Path(model).is_dir()


def preset_of(file: str) -> str:
    """Returns the preset whose configuration and tokenizers describe a checkpoint; no weights are read.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    shapes = _shapes(file)
    kind = infer_diffusers_model_type({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    if UNET not in shapes or kind not in LIKE:
        raise ModelError(
            f"{file} is no checkpoint of Stable Diffusion 1.x, 2.x or XL base; of other models give a diffusers folder "
            "or hub id, and of a part of a model name it with --lora, --vae or --controlnet"
        )
    return LIKE[kind]


def known_preset(model: str) -> str:
    """Return the preset that a model is, or is shaped like as a file; empty: none."""
    return model if model in registry.PRESETS else preset_of(model) if is_one(model) else ""


def named(model: str) -> dict[str, str]:
    """Returns the option of loading that names a model's file; none where it is no file."""
    return {"file": model} if is_one(model) else {}


def channels(model: str, base: str, local_files_only: bool) -> dict[str, int]:
    """Returns the option that says how many channels a file's UNet takes; none where they are its base model's.

    Those that are made for repainting take 9. Raises as `preset_of`.
    """
    if not is_one(model):
        return {}
    unet = checkpoints.component_config(UNet2DConditionModel, (base, "unet"), local_files_only=local_files_only)
    found = _shapes(model)[UNET][1]
    return {} if found == unet["in_channels"] else {"channels": found}


def _shapes(file: str) -> dict[str, list[int]]:
    if not Path(file).is_file():
        raise ModelError(f"{file} is not there; give a file on this machine, a diffusers folder or a hub id")
    try:
        with safe_open(file, framework="pt") as weights:
            return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: it is no .safetensors file ({error})") from error
