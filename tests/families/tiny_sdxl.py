"""A tiny random Stable Diffusion XL in the hub's layout, with ControlNets inside its folder."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    DDIMScheduler,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLControlNetUnionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from tests.conftest import (
    CHANNELS,
    CONTROL_GAIN,
    CONTROLS,
    FEATURES,
    TEXT_GAIN,
    TOKENS,
    WINDOW,
    louder_embedding,
    tiny_controlnet,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)

SECOND_FEATURES, POOLED = 24, 20  # widths of the second text encoder: of its states, and of its pooled ones
TIME_FEATURES = 4  # of each number of the time ids
UNION, PROMAX = "union", "union-promax"  # folders of ControlNets for several control types
ADDED_GAIN = 5.0  # factor on what the networks make of pooled states and time ids, so that a random network heeds them


def second_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Return a text encoder with pooled states."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=SECOND_FEATURES,
        intermediate_size=2 * SECOND_FEATURES,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=POOLED,
    )
    return CLIPTextModelWithProjection(config)


def unet(time_ids: int = 6, **options: Any) -> UNet2DConditionModel:
    """Return a UNet that is told pooled states and time ids; options of its class."""
    network = UNet2DConditionModel(
        sample_size=WINDOW,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=8,
        norm_num_groups=4,
        use_linear_projection=True,
        cross_attention_dim=FEATURES + SECOND_FEATURES,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_FEATURES,
        projection_class_embeddings_input_dim=time_ids * TIME_FEATURES + POOLED,
        **options,
    )
    for name, weight in network.named_parameters():
        if "attn2.to_out.0.weight" in name:
            weight.data.mul_(TEXT_GAIN)
        if "add_embedding" in name:
            weight.data.mul_(ADDED_GAIN)
    return network


def save(folder: Path) -> Path:
    """Return the folder, with a checkpoint and a ControlNet for each of `CONTROLS` in it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer, network = tiny_tokenizer(), unet()
        pipe = StableDiffusionXLPipeline(
            vae=tiny_vae(),
            text_encoder=tiny_text_encoder(tokenizer),
            text_encoder_2=second_text_encoder(tokenizer),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=network,
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
        )
        pipe.save_pretrained(folder)
        for control in CONTROLS:
            tiny_controlnet(network).save_pretrained(folder / f"controlnet-{control}")
        union(network).save_pretrained(folder / UNION)
        union(network, types=8).save_pretrained(folder / PROMAX)
    return folder


def load(folder: Path, controls: int = 1, dtype: torch.dtype = torch.float32) -> Any:
    """Return the stock pipeline with some of the ControlNets."""
    kind, extra = StableDiffusionXLPipeline, {}
    if controls:
        nets = [ControlNetModel.from_pretrained(folder / f"controlnet-{of}", dtype=dtype) for of in CONTROLS[:controls]]
        kind, extra = StableDiffusionXLControlNetPipeline, {"controlnet": nets[0] if controls == 1 else nets}
    pipe = kind.from_pretrained(folder, dtype=dtype, **extra)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_union(folder: Path, *names: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return the stock pipeline with one union ControlNet, or with several."""
    nets = [ControlNetUnionModel.from_pretrained(folder / name, dtype=dtype) for name in names]
    pipe = StableDiffusionXLControlNetUnionPipeline.from_pretrained(
        folder, controlnet=nets[0] if len(nets) == 1 else nets, dtype=dtype
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def union(network: UNet2DConditionModel, types: int = 6) -> ControlNetUnionModel:
    """Return a union ControlNet for the UNet, its zero layers made non-zero."""
    own = {"conditioning_embedding_out_channels": (4, 4, 8, 8), "num_control_type": types, "num_trans_head": 2}
    channels = network.config.block_out_channels[0]
    known = set(signature(ControlNetUnionModel.__init__).parameters) & set(network.config)
    shared = {name: network.config[name] for name in known}
    net = ControlNetUnionModel(**shared, **own, num_trans_channel=channels, num_proj_channel=channels)
    for name, weight in net.named_parameters():
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block", "spatial_ch_projs")):
            weight.data.normal_(0.0, CONTROL_GAIN)
    louder_embedding(net)
    return net
