"""Checkpoints in one file, as Stable Diffusion's are traded: what they are, and whose configuration describes them."""

from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors import SafetensorError, safe_open

from synccontrol.errors import ModelError
from synccontrol.families.sources import SUFFIX

UNET = "model.diffusion_model.input_blocks.0.0.weight"  # is there in every file of Stable Diffusion
LIKE = {"v1": "sd15", "v2": "sd21-768", "xl_base": "sdxl"}  # what diffusers calls a file -> a preset of the same shape


def is_one(model: str) -> bool:
    """Returns whether a model is named as one file."""
    return model.endswith(SUFFIX) and not Path(model).is_dir()


def preset_of(file: str) -> str:
    """Returns the preset whose configuration and tokenizers describe a checkpoint; no weights are read.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    if not Path(file).is_file():
        raise ModelError(f"{file} is not there; give a file on this machine, a diffusers folder or a hub id")
    try:
        with safe_open(file, framework="pt") as weights:
            shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: it is no .safetensors file ({error})") from error
    kind = infer_diffusers_model_type({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    if UNET not in shapes or kind not in LIKE:
        raise ModelError(
            f"{file} is no checkpoint of Stable Diffusion 1.x, 2.x or XL base; of other models give a diffusers folder "
            "or hub id, and of a part of a model name it with --lora, --vae or --controlnet"
        )
    return LIKE[kind]
