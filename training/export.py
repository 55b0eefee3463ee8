"""The last stage: trained weights as a Stable-Diffusion-format folder in half precision."""

import json
from pathlib import Path

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin
from transformers import CLIPTokenizer

from synccontrol.models.codec import PatchAutoencoder
from training.networks import CONTROLS, Networks, load_weights, scheduler

_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["synccontrol.models.codec", "PatchAutoencoder"],
}


def export(checkpoint: Path, codec_folder: Path, tokenizer_folder: Path, target: Path) -> None:
    """Write the averaged weights of a checkpoint, the codec and the tokenizer to `target` in diffusers layout."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    codec = PatchAutoencoder.from_pretrained(codec_folder)
    networks = Networks.fresh(codec.config.latent_channels, tokenizer)
    load_weights(networks, checkpoint)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model_index.json").write_text(
        json.dumps({**_INDEX, "_diffusers_version": diffusers.__version__}, indent=2) + "\n"
    )
    tokenizer.save_pretrained(target / "tokenizer")
    scheduler().save_pretrained(target / "scheduler")
    networks.text.half().save_pretrained(target / "text_encoder")
    parts: dict[str, ModelMixin] = {"vae": codec, "unet": networks.unet}
    parts |= {f"controlnet-{control}": networks.controlnets[control] for control in CONTROLS}
    for name, part in parts.items():
        part.to(torch.float16).to(memory_format=torch.contiguous_format).save_pretrained(target / name)
