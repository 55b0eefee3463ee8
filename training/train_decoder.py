"""Trains the codec's decoder further, by what people see: `python -m training.train_decoder --out DIR`.

The latents stay as they are, so that the diffusion model need not be trained again. Beside the error of pixels and of
their slopes counts Shift-Tolerant LPIPS (its AlexNet; what measures fidelity is another network, its VGG-16).
Latents are noised for most of the pictures, as those that the diffusion model draws are not exact.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from synccontrol.models.codec import PatchAutoencoder
from synccontrol.sampling import objectives
from training.cache import HELD_OUT
from training.render import render
from training.train_codec import held_out, pictures, psnr

START = Path("synccontrol/models/tiny/vae")
FINE_BLOCKS, PIXEL_CHANNELS = 2, 16  # of the decoder that is trained
FIRST_SEED, SCENES = 300_000, 1400  # of scenes that nothing else has learnt from
CROP, BATCH, SEEN = 128, 6, 2  # px, crops a step, and how many of them the perceptual network sees
MOST_NOISE, CLEAN_SHARE = 0.15, 0.4  # of latents
LEARNING_RATE = 1e-3
AVERAGE = 0.998  # memory of the averaged weights, which are what is kept
SLOPES, PERCEPTUAL = 0.7, 0.8  # weights
LOG_EVERY = 100  # steps


def grown(codec: PatchAutoencoder) -> PatchAutoencoder:
    """Return a codec with a larger decoder that gives the same pictures."""
    if codec.finish is not None:
        return codec
    larger: PatchAutoencoder = PatchAutoencoder(
        **{**codec.config, "fine_blocks": FINE_BLOCKS, "pixel_channels": PIXEL_CHANNELS}
    )
    shuffle = next(i for i, layer in enumerate(codec.residual_decoder) if isinstance(layer, nn.PixelShuffle))
    old, new = list(codec.residual_decoder), list(larger.residual_decoder)
    for before, after in zip(old, new[: shuffle + 2] + new[shuffle + 2 + FINE_BLOCKS :], strict=True):
        after.load_state_dict(before.state_dict())
    for name in ("linear_encoder", "residual_encoder", "linear_decoder"):
        getattr(larger, name).load_state_dict(getattr(codec, name).state_dict())
    assert larger.finish is not None
    for part in (*new[shuffle + 2 : shuffle + 2 + FINE_BLOCKS], larger.finish):
        last = [module for module in part.modules() if isinstance(module, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
    return larger


class Judge:
    """What decoded pictures are asked for."""

    def __init__(self) -> None:
        distance = objectives.load("stlpips")
        assert isinstance(distance, objectives.FeatureDistance)
        self._distance = distance
        self._distance.for_anchor(torch.zeros(1, 3, CROP, CROP))  # brings its network into the layout it computes in

    def loss(self, wanted: Tensor, decoded: Tensor) -> Tensor:
        """Return the loss of decoded pictures (n, 3, H, W)."""
        error = decoded - wanted
        slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        features, targets = self._features(decoded[:SEEN]), self._features(wanted[:SEEN])
        layers = zip(features, targets, self._distance.network.lins, strict=True)
        perceptual = torch.stack([weigh((f - t) ** 2).mean() for f, t, weigh in layers]).sum()
        return error.abs().mean() + SLOPES * slopes + PERCEPTUAL * perceptual

    def _features(self, images: Tensor) -> list[Tensor]:
        return self._distance.features(images.contiguous(memory_format=torch.channels_last))


def crops(rng: np.random.Generator, scenes: np.ndarray) -> Tensor:
    """Return random parts (BATCH, 3, CROP, CROP) of scenes (n, H, W, 3), mirrored or not."""
    taken = []
    for _ in range(BATCH):
        y, x = (rng.integers(side - CROP + 1) for side in scenes.shape[1:3])
        crop = scenes[rng.integers(len(scenes)), y : y + CROP, x : x + CROP]
        taken.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return pictures(np.stack(taken))


def train(codec: PatchAutoencoder, scenes: np.ndarray, minutes: float, folder: Path) -> None:
    """Train the decoder for so many minutes of CPU time on scenes (n, H, W, 3), and write the codec to a folder."""
    torch.manual_seed(0)
    rng, test = np.random.default_rng(0), held_out(8)
    for part in (codec.linear_encoder, codec.residual_encoder):
        part.requires_grad_(False)
    judge, kept = Judge(), copy.deepcopy(codec)
    optimizer = torch.optim.Adam([p for p in codec.parameters() if p.requires_grad], LEARNING_RATE, betas=(0.5, 0.99))
    start, step = time.process_time(), 0
    while (share := (time.process_time() - start) / (60 * minutes)) < 1:
        rate = LEARNING_RATE * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * share))
        optimizer.param_groups[0]["lr"] = rate
        wanted = crops(rng, scenes)
        with torch.no_grad():
            latents = codec.encode(wanted).latent_dist.mode()
            noised = torch.rand(BATCH, 1, 1, 1) > CLEAN_SHARE
            latents += MOST_NOISE * torch.rand(BATCH, 1, 1, 1) * noised * torch.randn_like(latents)
        decoded = codec.decode(latents).sample
        loss = judge.loss(wanted, decoded)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        memory = min(AVERAGE, step / (step + 10))
        for average, new in zip(kept.parameters(), codec.parameters(), strict=True):
            average.data.lerp_(new.data, 1 - memory)
        step += 1
        if step % LOG_EVERY == 0:
            clean, noisy = psnr(kept, test), psnr(kept, test, 0.1)
            print(
                f"{step} steps {time.process_time() - start:.0f} s: {clean:.2f} dB, noise 0.1 {noisy:.2f}", flush=True
            )
    kept.save_pretrained(folder)


def main() -> None:
    """Read the command line, render the scenes and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained codec")
    parser.add_argument("--start", type=Path, default=START, help=f"the codec to start from (default: {START})")
    parser.add_argument("--minutes", type=float, default=18.0, help="of CPU time (default: 18)")
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"rendered to learn from (default: {SCENES})")
    options = parser.parse_args()
    assert FIRST_SEED + options.scenes <= HELD_OUT
    seeds = range(FIRST_SEED, FIRST_SEED + options.scenes)
    scenes = np.stack([render(np.random.default_rng(seed), height=256, width=320).image for seed in seeds])
    train(
        grown(PatchAutoencoder.from_pretrained(options.start, torch_dtype=torch.float32)),
        scenes,
        options.minutes,
        options.out,
    )


if __name__ == "__main__":
    main()
