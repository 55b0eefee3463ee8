"""Tiny random checkpoints of the flow-matching families, written in the layout that the hub has them in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageControlNetModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImageControlNetModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

WINDOW = 8  # cells of one window
CELL = 8  # pixels of one cell
CHANNELS = 16  # latent channels
FEATURES = 16  # width of the text encoder
AXES = (4, 6, 6)  # of the rotary embedding: together, one head's width
HEADS = 2
CONTROL_GAIN = 0.1  # deviation of the ControlNets' projections, which real training starts at zero
VELOCITY_GAIN = 3.0  # factor on the transformer's last layer, so that predictions are about as large as noise
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Return the context in which weights are drawn from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def tiny_tokenizer() -> Qwen2Tokenizer:
    """Return a Qwen tokenizer that knows single bytes, with a chat template."""
    words = [*sorted(ByteLevel.alphabet()), *SPECIAL]
    tokenizer = Qwen2Tokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    tokenizer.chat_template = CHAT
    return tokenizer


def tiny_vae() -> AutoencoderKL:
    """Return an autoencoder of 16 channels with a shift, as FLUX has it."""
    blocks = 4
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=2,
        sample_size=WINDOW * CELL,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def tiny_z_image_transformer() -> ZImageTransformer2DModel:
    """Return a transformer of three layers whose padding is not zero."""
    transformer = ZImageTransformer2DModel(
        dim=HEADS * sum(AXES),
        n_layers=3,
        n_refiner_layers=2,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        cap_feat_dim=FEATURES,
        axes_dims=list(AXES),
        axes_lens=[1024, 64, 64],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        token.data.normal_()
    transformer.all_final_layer["2-1"].linear.weight.data.mul_(VELOCITY_GAIN)
    return transformer


def tiny_z_image_controlnet(refiner: str | None) -> ZImageControlNetModel:
    """Return a ControlNet of the first kind (refiner None) or of a later one, its zero projections made non-zero."""
    net = ZImageControlNetModel(
        control_layers_places=[0, 1, 2],
        control_refiner_layers_places=[0, 1] if refiner else None,
        control_in_dim=2 * CHANNELS + 1 if refiner else CHANNELS,
        add_control_noise_refiner=refiner,
        dim=HEADS * sum(AXES),
        n_heads=HEADS,
        n_kv_heads=HEADS,
    )
    for name, weight in net.named_parameters():
        if "before_proj" in name or "after_proj" in name:
            weight.data.normal_(0.0, CONTROL_GAIN)
    return net


CONTROLNETS = {"canny": None, "depth": "control_noise_refiner", "pose": "control_layers"}  # versions 1, 2.1 and 2.0


def write_z_image(folder: Path) -> None:
    """Write a Z-Image with a ControlNet for each of `CONTROLNETS` inside it."""
    with seeded(0):
        tokenizer = tiny_tokenizer()
        ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=tiny_vae(),
            text_encoder=Qwen3Model(_qwen3(len(tokenizer))),
            tokenizer=tokenizer,
            transformer=tiny_z_image_transformer(),
        ).save_pretrained(folder)
        for control, refiner in CONTROLNETS.items():
            tiny_z_image_controlnet(refiner).save_pretrained(folder / f"controlnet-{control}")


def _qwen3(words: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=words,
        hidden_size=FEATURES,
        intermediate_size=2 * FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=FEATURES // 2,
        max_position_embeddings=1024,
    )


def tiny_qwen_image_vae() -> AutoencoderKLQwenImage:
    """Return an autoencoder that is sure of what it encodes: samples of its latents are their mode."""
    vae = AutoencoderKLQwenImage(base_dim=4, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    vae.quant_conv.weight.data[CHANNELS:] = 0.0
    vae.quant_conv.bias.data[CHANNELS:] = -100.0  # log of the variance
    return vae


def tiny_qwen_image_controlnet(transformer: QwenImageTransformer2DModel) -> QwenImageControlNetModel:
    """Return a ControlNet of two layers, its zero projections made non-zero."""
    net = QwenImageControlNetModel.from_transformer(
        transformer, num_layers=2, attention_head_dim=sum(AXES), num_attention_heads=HEADS
    )
    for name, weight in net.named_parameters():
        if name.startswith(("controlnet_blocks", "controlnet_x_embedder")):
            weight.data.normal_(0.0, CONTROL_GAIN)
    return net


def write_qwen_image(folder: Path) -> None:
    """Write a Qwen-Image with a ControlNet for depth inside it."""
    with seeded(0):
        tokenizer = tiny_tokenizer()
        transformer = QwenImageTransformer2DModel(
            in_channels=4 * CHANNELS,
            out_channels=CHANNELS,
            num_layers=3,
            attention_head_dim=sum(AXES),
            num_attention_heads=HEADS,
            joint_attention_dim=FEATURES,
            axes_dims_rope=AXES,
        )
        QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_image_seq_len=8,
                max_image_seq_len=64,
                base_shift=0.5,
                max_shift=0.9,
                shift_terminal=0.02,
            ),
            vae=tiny_qwen_image_vae(),
            text_encoder=Qwen2_5_VLForConditionalGeneration(_qwen25_vl(len(tokenizer))),
            tokenizer=tokenizer,
            transformer=transformer,
        ).save_pretrained(folder)
        tiny_qwen_image_controlnet(transformer).save_pretrained(folder / "controlnet-depth")


def _qwen25_vl(words: int) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": words,
            "bos_token_id": None,
            "eos_token_id": None,
            "hidden_size": FEATURES,
            "intermediate_size": 2 * FEATURES,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            "max_position_embeddings": 2048,
        },
        vision_config={
            "depth": 1,
            "hidden_size": FEATURES,
            "intermediate_size": FEATURES,
            "num_heads": 2,
            "out_hidden_size": FEATURES,
        },
    )
