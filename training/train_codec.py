"""The first stage: the autoencoder, from the principal components of patches."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from synccontrol.models.codec import PatchAutoencoder
from training.cache import HELD_OUT, read
from training.parallel import average_gradients, mean_over_processes, same_start
from training.render import render

CROP = 96  # px
BATCH = 16  # crops a process
LEARNING_RATE = 1.5e-3
MOST_NOISE = 0.25  # standard deviation of the noise that the decoder learns to remove; latents are of unit size
CLEAN_SHARE = 0.4  # of the crops that are decoded without noise
SCALE_WEIGHT = 0.02  # of the penalty that keeps every channel at its starting size


def pictures(images: NDArray[np.uint8]) -> Tensor:
    """Return uint8 pictures (n, H, W, 3) as floats (n, 3, H, W) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def held_out(count: int) -> Tensor:
    """Return pictures (n, 3, 256, 256) of scenes that are in no cache."""
    return pictures(np.stack([render(np.random.default_rng(HELD_OUT + i)).image for i in range(count)]))


@torch.no_grad()
def start_from_components(codec: PatchAutoencoder, sample: Tensor) -> Tensor:
    """Set the linear halves to principal components, silence the residuals; return the channels' sizes (c,).

    Each component is divided by the square root of its standard deviation, then all by one factor: large scale
    stays larger than detail, so that a diffusion model settles it first, but not by as much as in pictures.
    """
    channels = codec.config.latent_channels
    patches = F.pixel_unshuffle(sample, codec.cell).permute(0, 2, 3, 1).reshape(-1, codec.linear_decoder.out_channels)
    mean = patches.mean(0)
    centred = patches - mean
    basis = torch.linalg.eigh(centred.T @ centred / len(centred))[1].flip(1)[:, :channels]  # (patch, c)
    deviation = (centred @ basis).std(0)
    size = deviation.sqrt() / deviation.mean().sqrt()  # after division; root mean square 1
    divisor = deviation / size
    middle = codec.linear_encoder.kernel_size[0] // 2
    for layer, matrix, bias in (
        (codec.linear_encoder, (basis / divisor).T, -(mean @ basis) / divisor),
        (codec.linear_decoder, basis * divisor, mean),
    ):
        assert layer.bias is not None
        layer.weight.zero_()
        layer.weight[:, :, middle, middle] = matrix
        layer.bias.copy_(bias)
    for last in (codec.residual_encoder[-1], codec.residual_decoder[-2]):
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.mul_(0.05)
        last.bias.zero_()
    return torch.as_tensor(size)


@torch.no_grad()
def psnr(codec: PatchAutoencoder, sample: Tensor, noise: float = 0.0) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels of pictures that went through the codec."""
    latents = codec.encode(sample).latent_dist.mode()
    latents = latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    error = F.mse_loss(codec.decode(latents).sample.clamp(-1, 1), sample)
    return float(10 * torch.log10(4 / error))


def _crops(rng: np.random.Generator, images: NDArray[np.uint8]) -> Tensor:
    height, width = images.shape[1:3]
    taken = []
    for _ in range(BATCH):
        y, x = rng.integers(height - CROP + 1), rng.integers(width - CROP + 1)
        crop = images[rng.integers(len(images)), y : y + CROP, x : x + CROP]
        taken.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return pictures(np.stack(taken))


def train_codec(rank: int, folder: Path, cache: Path, seconds: float, channels: int) -> None:
    """Train the codec for `seconds` and write it, in float32, to `folder`."""
    torch.manual_seed(rank)
    rng = np.random.default_rng(rank)
    files = sorted(cache.glob("[0-9]*.npz"))[:6]
    images = np.concatenate([read(file).images for file in files])
    codec = PatchAutoencoder(latent_channels=channels)
    size = start_from_components(codec, pictures(images[:200]))
    same_start([codec])
    test = held_out(48) if rank == 0 else None
    if test is not None:
        print(f"codec: components alone {psnr(codec, test):.2f} dB", flush=True)
    parameters = list(codec.parameters())
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0)
    start, step, share = time.monotonic(), 0, 0.0
    while share < 1:
        share = mean_over_processes(torch.tensor((time.monotonic() - start) / seconds))
        rate = LEARNING_RATE * min(1.0, (step + 1) / 100) * max(0.0, 0.5 + 0.5 * np.cos(np.pi * min(1.0, share)))
        optimizer.param_groups[0]["lr"] = rate
        loss = _loss(codec, _crops(rng, images), size)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(parameters)
        optimizer.step()
        step += 1
        if test is not None and step % 100 == 0:
            print(
                f"codec: {step} steps {time.monotonic() - start:.0f} s loss {loss.item():.4f} clean "
                f"{psnr(codec, test):.2f} dB, noise 0.1 {psnr(codec, test, 0.1):.2f}, 0.2 {psnr(codec, test, 0.2):.2f}",
                flush=True,
            )
    if rank == 0:
        codec.save_pretrained(folder)


def _loss(codec: PatchAutoencoder, crops: Tensor, size: Tensor) -> Tensor:
    """Return the mean absolute and squared error after decoding with noise, and the drift of the channels' sizes."""
    latents = codec.encode(crops).latent_dist.mode()
    amount = MOST_NOISE * torch.rand(len(crops), 1, 1, 1) * (torch.rand(len(crops), 1, 1, 1) > CLEAN_SHARE)
    decoded = codec.decode(latents + amount * torch.randn_like(latents)).sample
    drift = (latents.std((0, 2, 3)) / size).log().square().mean() + latents.mean((0, 2, 3)).square().mean()
    return torch.as_tensor(F.l1_loss(decoded, crops) + 3 * F.mse_loss(decoded, crops) + SCALE_WEIGHT * drift)
