"""LoRAs and IP-Adapters for the tiny models, in the layout of the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor
from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SEEN, HIDDEN, PROJECTED = 16, 12, 10  # px of an image, features of the image encoder before and after its projection
PICTURES = 4  # tokens that an image becomes


def image_encoder() -> CLIPVisionModelWithProjection:
    """Return a tiny image encoder."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            projection_dim=PROJECTED,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SEEN,
            patch_size=SEEN // 2,
        )
    ).eval()


def ip_adapter(unet: Any, full: bool = False) -> dict[str, dict[str, Tensor]]:
    """Return the weights of an IP-Adapter in the published layout; a full one sees the image's patches."""
    features = unet.config.cross_attention_dim
    if full:
        state = IPAdapterFullImageProjection(HIDDEN, features).state_dict()
        names = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
    else:
        state = ImageProjection(PROJECTED, features, PICTURES).state_dict()
        names = {"proj": "image_embeds", "norm": "norm"}
    projection = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"] for ours, theirs in names.items() for kind in ("weight", "bias")
    }
    layers = {}
    crossed = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    for number, name in enumerate(crossed):
        hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        state = IPAdapterAttnProcessor(hidden, features).state_dict()
        layers[f"{2 * number + 1}.to_k_ip.weight"] = state["to_k_ip.0.weight"]
        layers[f"{2 * number + 1}.to_v_ip.weight"] = state["to_v_ip.0.weight"]
    return {"image_proj": projection, "ip_adapter": layers}


def save_ip_adapter(unet: Any, folder: Path, file: str) -> Path:
    """Return the file of an IP-Adapter in a folder, its image encoder beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image_encoder().save_pretrained((folder / file).parent / "image_encoder")
        weights = ip_adapter(unet)
    named = {f"{part}.{key}": value.contiguous() for part, of in weights.items() for key, value in of.items()}
    save_file(named, folder / file)
    return folder / file


def save_lora(pipe: Any, folder: Path, network: str = "unet") -> Path:
    """Return the file of a LoRA for a pipeline's denoiser, which is left as it was."""
    denoiser = getattr(pipe, network)
    adapter = peft.LoraConfig(r=2, target_modules=["to_q", "to_v", "to_out.0"], init_lora_weights="gaussian")
    denoiser.add_adapter(adapter)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for name, weight in denoiser.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight.data)
    layers = peft.get_peft_model_state_dict(denoiser)
    type(pipe).save_lora_weights(folder, **{f"{network}_lora_layers": layers})
    denoiser.delete_adapters("default")
    return folder / "pytorch_lora_weights.safetensors"
