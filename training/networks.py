"""The networks of the bundled model, all of stock classes, and how the three ControlNets share a trunk in training."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CONTROLS = ("depth", "canny", "pose")
TEXT_WIDTH = 128
EMBEDDING_CHANNELS = (8, 16, 32, 48)  # of a control map on its way from pixels to cells
_SHARED = {
    "block_out_channels": (64, 128, 160),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": (2, 4, 5),  # heads: 32 channels each
    "norm_num_groups": 16,
}


def scheduler() -> DDIMScheduler:
    """Return the noise schedule: v-prediction, almost no signal (1.6 %) left at its end."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # trailing spacing does not use it; pipelines warn about any other value
        timestep_spacing="trailing",
    )


@dataclass
class Networks:
    """Everything that is trained together after the codec; `trunk` serves all controls until they are exported."""

    unet: UNet2DConditionModel
    trunk: ControlNetModel
    embeddings: nn.ModuleDict
    text: CLIPTextModel

    @classmethod
    def fresh(cls, latent_channels: int, tokenizer: CLIPTokenizer) -> "Networks":
        """Return untrained networks."""
        unet = UNet2DConditionModel(
            sample_size=32,
            in_channels=latent_channels,
            out_channels=latent_channels,
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            **_SHARED,
        )
        trunk = ControlNetModel(
            in_channels=latent_channels, conditioning_embedding_out_channels=EMBEDDING_CHANNELS, **_SHARED
        )
        width = trunk.config.block_out_channels[0]
        embeddings = nn.ModuleDict()
        for control in CONTROLS:
            embedding = ControlNetConditioningEmbedding(width, block_out_channels=EMBEDDING_CHANNELS)
            nn.init.kaiming_uniform_(embedding.conv_out.weight)  # nothing is pretrained here that zeros would protect
            embeddings[control] = embedding
        trunk.controlnet_cond_embedding = nn.Identity()  # it is given maps that are embedded already
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=2 * TEXT_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                projection_dim=TEXT_WIDTH,
                hidden_act="gelu",
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        return cls(unet, trunk, embeddings, text)

    def modules(self) -> dict[str, nn.Module]:
        """Return the parts by name."""
        return {"unet": self.unet, "trunk": self.trunk, "embeddings": self.embeddings, "text": self.text}

    def parameters(self) -> list[nn.Parameter]:
        """Return every trained parameter."""
        return [parameter for module in self.modules().values() for parameter in module.parameters()]

    def predict(self, x_t: Tensor, t: Tensor, tokens: Tensor, maps: dict[str, Tensor]) -> Tensor:
        """Return the prediction (b, c, h, w); the first windows of the batch are controlled, in the order of `maps`.

        Args:
            x_t: noised windows (b, c, h, w).
            t: their timesteps (b,).
            tokens: prompts (b, LENGTH).
            maps: for each control, the maps (k, 3, H, W), 0..1, of the next k windows; the rest go without.
        """
        states = self.text(tokens).last_hidden_state
        embedded = torch.cat([self.embeddings[control](control_maps) for control, control_maps in maps.items()])
        count = len(embedded)
        down, middle = self.trunk(x_t[:count], t[:count], states[:count], controlnet_cond=embedded, return_dict=False)

        def pad(features: Tensor) -> Tensor:
            return torch.cat([features, features.new_zeros(len(x_t) - count, *features.shape[1:])])

        prediction: Tensor = self.unet(
            x_t,
            t,
            states,
            down_block_additional_residuals=[pad(features) for features in down],
            mid_block_additional_residual=pad(middle),
            return_dict=False,
        )[0]
        return prediction

    def controlnet(self, control: str) -> ControlNetModel:
        """Return the stock ControlNet of one control: the trunk with that control's own embedding."""
        network = deepcopy(self.trunk)
        network.controlnet_cond_embedding = deepcopy(self.embeddings[control])
        return network


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_weights(networks: Networks, path: Path, which: str = "ema") -> dict[str, Any]:
    """Load a checkpoint's weights (`ema` or `model`) into the networks and return the whole checkpoint."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in networks.modules().items():
        module.load_state_dict(state[which][name])
    return state
