"""Tiny random checkpoints in the real diffusers format, made once per session and loaded from disk like any other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face import: tests never reach for the network

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from jaxtyping import install_import_hook
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# Shapes in signatures are checked at every call.
install_import_hook(["synccontrol.canvas", "synccontrol.sampling"], "beartype.beartype")

WINDOW = 8  # cells of one window of the tiny checkpoint
CELL = 8  # pixels of one cell
CHANNELS = 4  # latent channels
CONTROLS = ("depth", "canny")
TOKENS = 12  # longest prompt, in tokens
FEATURES = 16  # width of the text encoder
CONTROL_GAIN = 0.1  # deviation of the ControlNets' output convolutions, which real training starts at zero
MAP_GAIN = 1.5  # factor on every convolution that looks at the control map, so that its content matters
TEXT_GAIN = 20.0  # factor on the UNet's cross attention, so that a random network heeds its prompt
PICTURE_GAIN = 0.3  # factor on the decoder's last convolution, so that pictures stay inside [-1, 1]

PipeFactory = Callable[..., StableDiffusionPipeline]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Returns nothing; runs torch on one thread, so that sums are added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_tokenizer() -> CLIPTokenizer:
    """Returns a CLIP tokenizer that knows single bytes, within a word and at its end."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Returns a two-layer CLIP text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=FEATURES,
        intermediate_size=2 * FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=FEATURES,
    )
    return CLIPTextModel(config)


def tiny_unet() -> UNet2DConditionModel:
    """Returns a two-level UNet whose cross attention is loud enough to hear the prompt."""
    unet = UNet2DConditionModel(
        sample_size=WINDOW,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
        cross_attention_dim=FEATURES,
    )
    for name, weight in unet.named_parameters():
        if "attn2.to_out.0.weight" in name:
            weight.data.mul_(TEXT_GAIN)
    return unet


def tiny_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Returns a ControlNet for the UNet, its zero convolutions made non-zero."""
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
    for name, weight in controlnet.named_parameters():
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
            weight.data.normal_(0.0, CONTROL_GAIN)
    louder_embedding(controlnet)
    return controlnet


def louder_embedding(controlnet: Any) -> None:
    """Makes a ControlNet heed what its control map shows."""
    for layer in controlnet.controlnet_cond_embedding.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_uniform_(layer.weight)
            layer.weight.data.mul_(MAP_GAIN)
            layer.bias.data.zero_()


def tiny_vae() -> AutoencoderKL:
    """Returns an autoencoder of eight pixels per cell whose pictures stay inside [-1, 1]."""
    blocks = 4
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=2,
        sample_size=WINDOW * CELL,
    )
    vae.decoder.conv_out.weight.data.mul_(PICTURE_GAIN)
    return vae


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a tiny random Stable Diffusion and a ControlNet for each of `CONTROLS` inside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer, unet = tiny_tokenizer(), tiny_unet()
        pipe = StableDiffusionPipeline(
            vae=tiny_vae(),
            text_encoder=tiny_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=unet,
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.save_pretrained(folder)
        for control in CONTROLS:
            tiny_controlnet(unet).save_pretrained(folder / f"controlnet-{control}")
    return folder


@pytest.fixture(scope="session")
def make_pipe(checkpoint: Path) -> PipeFactory:
    """Returns a function that loads the tiny checkpoint: (controls, dtype, DDIM options) -> pipeline."""

    def load(controls: int = 1, dtype: torch.dtype = torch.float64, **scheduler: Any) -> StableDiffusionPipeline:
        kind, extra = StableDiffusionPipeline, {}
        if controls:
            folders = [checkpoint / f"controlnet-{control}" for control in CONTROLS[:controls]]
            nets = [ControlNetModel.from_pretrained(folder, dtype=dtype) for folder in folders]
            kind, extra = StableDiffusionControlNetPipeline, {"controlnet": nets[0] if controls == 1 else nets}
        pipe = kind.from_pretrained(checkpoint, dtype=dtype, **extra)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **scheduler)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


@pytest.fixture(scope="session")
def make_map() -> Callable[..., Image.Image]:
    """Returns a function that draws a control map: (width, height, seed) -> smooth waves with hard bars, RGB."""

    def draw(width: int, height: int, seed: int = 0) -> Image.Image:
        generator = np.random.default_rng(seed)
        frequency, phase = generator.uniform(1, 5, (3, 2)), generator.uniform(0, 2 * np.pi, 3)
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(f[0] * x / CELL / 2 + f[1] * y / CELL / 2 + p) for f, p in zip(frequency, phase, strict=True)]
        picture = 127.5 + 127.5 * np.stack(waves, axis=-1)
        picture[(x // (2 * CELL)) % 5 == seed % 5] = 255
        return Image.fromarray(picture.round().astype(np.uint8))

    return draw


@pytest.fixture(scope="session")
def make_noise() -> Callable[..., torch.Tensor]:
    """Returns a function that draws unit-variance latents: (h, w, seed, dtype) -> (1, c, h, w)."""

    def draw(h: int, w: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, CHANNELS, h, w, generator=generator, dtype=torch.float64).to(dtype)

    return draw
