"""The networks of the bundled model, all of stock classes."""

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
    """Everything that is trained together after the codec."""

    unet: UNet2DConditionModel
    controlnets: nn.ModuleDict  # one ControlNetModel a control
    text: CLIPTextModel

    @classmethod
    def fresh(cls, latent_channels: int, tokenizer: CLIPTokenizer) -> "Networks":
        """Return untrained networks; the ControlNets differ in the embeddings of their maps alone."""
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
        controlnets = nn.ModuleDict()
        for control in CONTROLS:
            embedding = ControlNetConditioningEmbedding(
                trunk.config.block_out_channels[0], block_out_channels=EMBEDDING_CHANNELS
            )
            nn.init.kaiming_uniform_(embedding.conv_out.weight)  # nothing is pretrained here that zeros would protect
            controlnets[control] = deepcopy(trunk)
            controlnets[control].controlnet_cond_embedding = embedding
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
        return cls(unet, controlnets, text)

    @classmethod
    def exported(cls, model: Path) -> "Networks":
        """Return the networks of an exported model, to be trained further, in float32."""
        controlnets = {
            control: ControlNetModel.from_pretrained(model / f"controlnet-{control}") for control in CONTROLS
        }
        return cls(
            UNet2DConditionModel.from_pretrained(model / "unet"),
            nn.ModuleDict(controlnets),
            CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32),
        )

    def modules(self) -> dict[str, nn.Module]:
        """Return the parts by name."""
        return {"unet": self.unet, "controlnets": self.controlnets, "text": self.text}

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
        residuals, start = [], 0
        for control, images in maps.items():
            these = slice(start, start + len(images))
            down, middle = self.controlnets[control](
                x_t[these], t[these], states[these], controlnet_cond=images, return_dict=False
            )
            residuals.append([*down, middle])
            start = these.stop
        *down, middle = (
            torch.cat([*parts, parts[0].new_zeros(len(x_t) - start, *parts[0].shape[1:])])
            for parts in zip(*residuals, strict=True)
        )
        prediction: Tensor = self.unet(
            x_t,
            t,
            states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return prediction

    def share_gradients(self) -> None:
        """Give what the ControlNets have in common the sum of its gradients: equal weights stay equal."""
        trunks = [
            [p for name, p in network.named_parameters() if not name.startswith("controlnet_cond_embedding")]
            for network in self.controlnets.values()
        ]
        for same in zip(*trunks, strict=True):
            given = [parameter.grad for parameter in same if parameter.grad is not None]
            if given:
                total = torch.stack(given).sum(0)
                for parameter in same:
                    parameter.grad = total.clone()


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_weights(networks: Networks, path: Path, which: str = "ema") -> dict[str, Any]:
    """Load a checkpoint's weights (`ema` or `model`) into the networks and return the whole checkpoint."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in networks.modules().items():
        module.load_state_dict(state[which][name])
    return state
