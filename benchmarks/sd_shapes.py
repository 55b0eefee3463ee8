"""Folders that describe a Stable Diffusion with a ControlNet for depth, as diffusers writes them, without weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

TOKENS = 77
WINDOW_PX = 512
CELL = 8

_UNET: Mapping[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": WINDOW_PX // CELL,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_VAE: Mapping[str, Any] = {
    "_class_name": "AutoencoderKL",
    "sample_size": WINDOW_PX,
    "latent_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_TEXT: Mapping[str, Any] = {  # CLIP ViT-L/14
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": TOKENS,
    "projection_dim": 768,
}
_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_INDEX: Mapping[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
_UNET_ONLY = ("out_channels", "up_block_types", "sample_size")  # a ControlNet has the other half


def sd15(folder: Path) -> None:
    """Writes the shape of Stable Diffusion 1.5."""
    _write(folder, _UNET, _VAE, _TEXT)


def sd21(folder: Path, window: int) -> None:
    """Writes the shape of Stable Diffusion 2.1, with windows of so many px."""
    unet = {"sample_size": window // CELL, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024}
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
    _write(folder, {**_UNET, **unet, "use_linear_projection": True}, _VAE, {**_TEXT, **text})


def sdxl(folder: Path) -> None:
    """Writes the shape of Stable Diffusion XL base, with an autoencoder that needs no float32."""
    unet = {
        **_UNET,
        "sample_size": 1024 // CELL,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
        "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    second = {  # OpenCLIP ViT-bigG
        **_TEXT,
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    }
    index = {
        **_INDEX,
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    _write(folder, unet, {**_VAE, "sample_size": 1024, "force_upcast": False}, _TEXT)
    write(folder, {"model_index.json": index, "text_encoder_2/config.json": second})


def scaled(folder: Path, unet: tuple[int, ...], vae: tuple[int, ...], text: int, window: int = WINDOW_PX) -> None:
    """Writes the same shape with other widths: those of the UNet's and the autoencoder's blocks, and of the text.

    Args:
        folder: for the files.
        unet: channels of its four blocks, in multiples of 32.
        vae: likewise.
        text: features of a token.
        window: its side, px.
    """
    _write(
        folder,
        {
            **_UNET,
            "block_out_channels": list(unet),
            "cross_attention_dim": text,
            "sample_size": window // CELL,
        },
        {**_VAE, "block_out_channels": list(vae), "sample_size": window},
        {
            **_TEXT,
            "hidden_size": text,
            "intermediate_size": 4 * text,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "vocab_size": len(tokenizer()),
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
    )


def tokenizer() -> CLIPTokenizer:
    """Returns a tokenizer that knows single bytes, for text encoders whose weights are random anyway."""
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: row for row, word in enumerate(words)}, merges=[], model_max_length=TOKENS)


def _write(folder: Path, unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    net = {key: value for key, value in unet.items() if key not in _UNET_ONLY} | {"_class_name": "ControlNetModel"}
    files = {
        "model_index.json": _INDEX,
        "unet/config.json": unet,
        "vae/config.json": vae,
        "text_encoder/config.json": text,
        "scheduler/scheduler_config.json": _SCHEDULER,
        "controlnet-depth/config.json": net,
    }
    write(folder, files)


def write(folder: Path, files: Mapping[str, Any]) -> None:
    """Writes JSON files, by their path in a folder."""
    for name, values in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(values, indent=2), encoding="utf-8")
