"""A diffusers Stable Diffusion as one file with the names of the original program, as checkpoints are traded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
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
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


OPEN_CLIP = {  # the second text encoder of Stable Diffusion XL
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def save(pipe: Any, file: Path) -> Path:
    """Return the file, with the UNet, the autoencoder and the text encoders of a Stable Diffusion 1.x or XL."""
    unet, vae = pipe.unet, pipe.vae
    attended = [index for index, block in enumerate(unet.config.up_block_types) if block.startswith("CrossAttn")]
    layers, blocks = unet.config.layers_per_block, len(vae.config.block_out_channels)
    named = {f"model.diffusion_model.{_unet(key, layers, attended)}": one for key, one in unet.state_dict().items()}
    named |= {f"first_stage_model.{_vae(key, blocks)}": _as_conv(key, one) for key, one in vae.state_dict().items()}
    second = getattr(pipe, "text_encoder_2", None)
    first = "conditioner.embedders.0.transformer" if second is not None else "cond_stage_model.transformer"
    for key, one in pipe.text_encoder.state_dict().items():
        named[f"{first}.text_model.{key.removeprefix('text_model.')}"] = one
    if second is not None:
        named |= {f"conditioner.embedders.1.model.{key}": one for key, one in _open_clip(second).items()}
    save_file({key: one.contiguous() for key, one in named.items()}, file)
    return file


def _open_clip(encoder: Any) -> dict[str, Tensor]:
    """Return the weights of a text encoder with a projection by OpenCLIP's names."""
    state = {key.removeprefix("text_model."): one for key, one in encoder.state_dict().items()}
    found = {theirs: state[ours] for ours, theirs in OPEN_CLIP.items()}
    found["text_projection"] = state["text_projection.weight"].T
    for layer in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            together = [state[f"{ours}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            found[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(together)
            for own, name in OPEN_CLIP_LAYER.items():
                found[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{own}.{kind}"]
    return found


def _unet(key: str, layers: int, attended: Sequence[int]) -> str:
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
        return f"output_blocks.{(layers + 1) * block + layers}.{2 if block in attended else 1}.conv.{last}"
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
