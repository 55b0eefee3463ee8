"""The codec of the bundled model: the contract of a diffusers VAE, sharpness, and no absolute positions."""

from pathlib import Path

import numpy as np
import pytest
import torch

import synccontrol
from synccontrol.models.codec import PatchAutoencoder
from training.render import render

SHIPPED = Path(synccontrol.__file__).parent / "models" / "tiny" / "vae"
LEAST_PSNR = 34.0  # dB over scenes that no training has seen
FRESH_SEED = 5 * 10**9


@pytest.fixture(scope="module")
def codec() -> PatchAutoencoder:
    loaded: PatchAutoencoder = PatchAutoencoder.from_pretrained(SHIPPED, torch_dtype=torch.float32)
    return loaded


def scenes(count: int, width: int = 256) -> torch.Tensor:
    images = [render(np.random.default_rng(FRESH_SEED + i), width=width).image for i in range(count)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def test_unseen_scenes_survive_encoding_and_decoding(codec: PatchAutoencoder) -> None:
    pictures = scenes(24)
    error = (codec(pictures).clamp(-1, 1) - pictures).square().mean()
    assert 10 * torch.log10(4 / error) >= LEAST_PSNR


@torch.no_grad()
def test_latents_are_of_unit_size(codec: PatchAutoencoder) -> None:
    latents = codec.encode(scenes(16)).latent_dist.mode()
    assert latents.shape == (16, codec.config.latent_channels, 32, 32)
    assert 0.8 < latents.square().mean().sqrt() < 1.3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_every_dtype(codec: PatchAutoencoder, dtype: torch.dtype) -> None:
    lower = PatchAutoencoder.from_pretrained(SHIPPED, torch_dtype=dtype)
    picture = scenes(1)[..., :64]
    latents = lower.encode(picture.to(dtype)).latent_dist.sample()
    decoded = lower.decode(latents).sample
    assert lower.dtype == latents.dtype == decoded.dtype == dtype
    torch.testing.assert_close(decoded.float(), codec(picture), atol=0.06, rtol=0)


@torch.no_grad()
def test_codec_is_equivariant_to_shifts_by_whole_cells(codec: PatchAutoencoder) -> None:
    cells, margin = 5, 8
    picture = scenes(1, width=384).double()
    double = PatchAutoencoder.from_pretrained(SHIPPED, torch_dtype=torch.float64)
    whole = double.encode(picture).latent_dist.mode()
    part = double.encode(picture[..., cells * 8 :]).latent_dist.mode()
    torch.testing.assert_close(part[..., margin:], whole[..., cells + margin :])
    decoded = double.decode(whole[..., cells:]).sample
    torch.testing.assert_close(decoded[..., margin * 8 :], double.decode(whole).sample[..., (cells + margin) * 8 :])


@torch.no_grad()
def test_contract_of_a_vae(codec: PatchAutoencoder) -> None:
    assert 2 ** (len(codec.config.block_out_channels) - 1) == codec.cell == 8
    assert codec.config.force_upcast is False
    latents = torch.randn(2, codec.config.latent_channels, 3, 7)
    (pictures,) = codec.decode(latents, return_dict=False, generator=torch.Generator())
    assert pictures.shape == (2, 3, 24, 56)
    (distribution,) = codec.encode(pictures, return_dict=False)
    assert torch.equal(distribution.sample(torch.Generator()), distribution.mode())


def test_decoding_is_differentiable(codec: PatchAutoencoder) -> None:
    latents = torch.randn(1, codec.config.latent_channels, 4, 4, requires_grad=True)
    codec.decode(latents).sample.square().mean().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0
