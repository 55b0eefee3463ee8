"""The decoder is trained further with the latents as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from synccontrol.models.codec import PatchAutoencoder
from training import train_decoder
from training.render import render
from training.train_codec import pictures


def small() -> PatchAutoencoder:
    """Returns a codec of random weights without the larger decoder's parts."""
    torch.manual_seed(0)
    return PatchAutoencoder(hidden_channels=8, fine_channels=8)


@torch.no_grad()
def test_a_grown_codec_gives_the_same_pictures() -> None:
    codec, latents = small(), torch.randn(2, 8, 4, 6)
    larger = train_decoder.grown(codec)
    assert larger.finish is not None and sum(p.numel() for p in larger.parameters()) > sum(
        p.numel() for p in codec.parameters()
    )
    torch.testing.assert_close(larger.decode(latents).sample, codec.decode(latents).sample)
    assert train_decoder.grown(larger) is larger


def test_the_decoder_learns_and_latents_stay(tmp_path: Path) -> None:
    codec, scenes = small(), np.stack([render(np.random.default_rng(5), height=128, width=128).image])
    wanted = pictures(scenes)
    with torch.no_grad():
        latents = codec.encode(wanted).latent_dist.mode()
        before = (codec.decode(latents).sample - wanted).abs().mean()
    train_decoder.train(train_decoder.grown(codec), scenes, 0.05, tmp_path)
    trained = PatchAutoencoder.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(trained.encode(wanted).latent_dist.mode(), latents)
        assert (trained.decode(latents).sample - wanted).abs().mean() < before


def test_blur_and_a_grid_cost_more_than_they_do_in_pixels() -> None:
    judge = train_decoder.Judge()
    wanted = pictures(np.stack([render(np.random.default_rng(6), height=128, width=128).image]))
    grid = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 2.0 - 1
    brighter, dotted = (wanted + 0.02 * pattern for pattern in (torch.ones_like(grid), grid))  # alike in pixels
    assert float(judge.loss(wanted, dotted)) > 2 * float(judge.loss(wanted, brighter))
    assert float(judge.loss(wanted, wanted)) < 1e-6
