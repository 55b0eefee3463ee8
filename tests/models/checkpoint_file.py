"""A diffusers Stable Diffusion as one file with the names of the original program, as checkpoints are traded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def save(pipe: Any, file: Path) -> Path:
    """Returns the file, with the UNet, the autoencoder and the text encoder of a Stable Diffusion 1.x."""
    layers = pipe.unet.config.layers_per_block
    unet = {f"model.diffusion_model.{_unet(key, layers)}": one for key, one in pipe.unet.state_dict().items()}
    blocks = len(pipe.vae.config.block_out_channels)
    vae = {f"first_stage_model.{_vae(key, blocks)}": _as_conv(key, one) for key, one in pipe.vae.state_dict().items()}
    text = {
        f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}": one
        for key, one in pipe.text_encoder.state_dict().items()
    }
    save_file({key: one.contiguous() for key, one in {**unet, **vae, **text}.items()}, file)
    return file


def _unet(key: str, layers: int) -> str:
    name, _, last = key.rpartition(".")
    if name in UNET:
        return f"{UNET[name]}.{last}"
    where = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    if where is None:
        kind, number, rest = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", key).groups()
        return f"middle_block.{2 * int(number) if kind == 'resnets' else 1}.{_inside(kind, rest)}"
    side, block, kind, number, rest = where.groups()
    block, number = int(block), int(number)
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{last}"
    if kind == "upsamplers":
        attended = 1 if block == 0 else 2  # the first block has no attention
        return f"output_blocks.{(layers + 1) * block + layers}.{attended}.conv.{last}"
    place = f"input_blocks.{(layers + 1) * block + number + 1}" if side == "down" else ""
    place = place or f"output_blocks.{(layers + 1) * block + number}"
    return f"{place}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    name, _, last = rest.rpartition(".")
    return f"{RESNET[name]}.{last}"


def _vae(key: str, blocks: int) -> str:
    key = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    up = re.match(r"decoder\.up_blocks\.(\d+)\.(.*)", key)
    if up:
        rest = re.sub(r"resnets\.(\d+)", r"block.\1", up[2]).replace("upsamplers.0", "upsample")
        key = f"decoder.up.{blocks - 1 - int(up[1])}.{rest}"
    key = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    if "mid_block.attentions.0" in key:
        head, _, rest = key.partition("mid_block.attentions.0.")
        name, _, last = rest.rpartition(".")
        key = f"{head}mid.attn_1.{ATTENTION[name]}.{last}"
    return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def _as_conv(key: str, weight: Tensor) -> Tensor:
    linear = "mid_block.attentions.0.to_" in key and key.endswith("weight")
    return weight[:, :, None, None] if linear else weight
