"""Is a canvas decoded in strips the canvas decoded whole? python -m benchmarks.decoding

Three decoders: `bundled`, the bundled model's, without norms; `trained`, an `AutoencoderKL` of Stable Diffusion's shape
with a quarter of its channels, which learns to decode the bundled model's latents here; `sd`, the full size, random
weights. The latents are those of one montage of the bundled model, for `sd` twice as large. Differences are from the
whole decode, in levels of 255 (`sd`: its picture is stretched to a deviation of 0.5 first, as pictures have).

`largest`, `mean`: of the differences. `drift`: from the lightest to the darkest column mean of the differences. `step`:
the largest change of that mean from one column to the next, where a tile starts, stops or begins to count: a seam of
colour; `other step`: the median of the largest in as many columns drawn elsewhere. `spoilt px`: how far from a tile's
border its columns differ from those of a tile that starts before by a level more than columns in its middle do; a
third of a tile at most.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from synccontrol import Montage, SamplingConfig
from synccontrol.canvas import tiled_decode
from synccontrol.io import images
from training.render import render

PROMPT = "a mountain valley at sunset"
HEIGHT, WIDTH = 256, 2048  # px, of the montage
PARTS = ("bundled", "trained", "sd")
TILES = (0.75, 1.5, 2.0, 3.0)  # windows
OVERLAPS = (3, 6, 12)  # tiles per overlap
TRIMS = (0.0, 0.125, 0.25, 0.375)  # of an overlap
CROP, BATCH, SCENES, LEARNING_RATE = 16, 4, 200, 1e-3  # cells; for `trained`
TILING_OVERLAP = 0.25  # of a tile, in diffusers
DEVIATION = 0.5  # of a picture in -1..1
CELL = 8  # px, of all three

Decode = Callable[[Tensor], Tensor]
Values = npt.NDArray[np.float64]


def latents(steps: int) -> tuple[Montage, Tensor]:
    """Returns the bundled model and the latents (1, 8, 32, 256) of a montage that it draws in some steps."""
    montage = Montage.from_pretrained("tiny")
    return montage, montage(PROMPT, height=HEIGHT, width=WIDTH, sampling=SamplingConfig(steps=steps).complete()).latents


def bundled(steps: int) -> dict[str, Any]:
    """Returns `margins` of the bundled model's decoder."""
    montage, x0 = latents(steps)
    return margins(montage.denoiser.decode, x0, 32, None)


def trained(steps: int, training: int) -> dict[str, Any]:
    """Returns `margins` of a small autoencoder of Stable Diffusion's shape, trained for some steps."""
    montage, x0 = latents(steps)
    vae = autoencoder(4, x0.shape[1], 32)
    error = train(vae, montage.denoiser.pipe.vae, training)
    print(f"RMS error of the trained decoder {error:.1f}", flush=True)
    return {"error": error, **of_vae(vae, x0, 32)}


def autoencoder(share: int, latents: int, window: int) -> AutoencoderKL:
    """Returns a random autoencoder of Stable Diffusion's shape with 1 / share of its channels, for windows of cells."""
    return AutoencoderKL(
        block_out_channels=tuple(channels // share for channels in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=latents,
        norm_num_groups=32 // share,
        sample_size=window * CELL,
    )


def train(vae: AutoencoderKL, codec: Any, steps: int) -> float:
    """Trains the decoder to draw what the codec's latents show; returns its RMS error on other scenes, in levels."""
    scenes = np.stack([render(np.random.default_rng(seed)).image for seed in range(SCENES)])
    pictures = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = torch.cat([codec.encode(batch).latent_dist.mode() for batch in torch.split(pictures, 20)])
    training, rng = slice(0, SCENES - 20), np.random.default_rng(0)
    parts = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(parts, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        numbers = rng.integers(0, training.stop, BATCH)
        top, left = rng.integers(0, latents.shape[-1] - CROP + 1, 2)
        x0 = latents[numbers, :, top : top + CROP, left : left + CROP]
        truth = pictures[numbers][..., top * CELL :, left * CELL :][..., : CROP * CELL, : CROP * CELL]
        loss = F.l1_loss(vae.decode(x0, return_dict=False)[0], truth)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        errors = [
            vae.decode(x0[None], return_dict=False)[0][0] - picture
            for x0, picture in zip(latents[-20:], pictures[-20:], strict=True)
        ]
    return float(torch.stack(errors).square().mean().sqrt() * 127.5)


def remembered(decode: Decode) -> Decode:
    """Returns a decoder without gradients that decodes the same latents once."""
    known: dict[bytes, Tensor] = {}

    def look_up(x0: Tensor) -> Tensor:
        key = x0.contiguous().numpy().tobytes()
        if key not in known:
            with torch.no_grad():
                known[key] = decode(x0)
        return known[key].clone()

    return look_up


def compare(made: npt.NDArray[np.uint8], whole: npt.NDArray[np.uint8], seams: Iterable[float]) -> dict[str, float]:
    """Returns how two pictures (H, W, 3) differ, in levels; seams are the first columns of something else."""
    difference: Values = made.astype(np.float64) - whole
    columns = difference.mean(axis=0)  # (W, 3)
    steps = np.abs(np.diff(columns, axis=0)).max(axis=1)  # into column x + 1
    at = np.unique([round(seam) - 1 for seam in seams if 0 < seam < len(columns)])
    others = np.delete(steps, at)
    drawn = [np.random.default_rng(seed).choice(others, len(at)).max() for seed in range(1000)]
    return {
        "largest": float(np.abs(difference).max()),
        "mean": float(np.abs(difference).mean()),
        "drift": float(np.ptp(columns, axis=0).max()),
        "step": float(steps[at].max()),
        "other step": float(np.median(drawn)),
    }


def seams_of(side: tiled_decode.Spans) -> list[float]:
    """Returns the columns, px, where a span starts or stops, or where its share leaves 0 or reaches 1."""
    reach = side.overlap * CELL
    offsets = (0, tiled_decode.TRIM * reach, (1 - tiled_decode.TRIM) * reach, reach)
    return [start * CELL + offset for start, _ in side.bounds[1:] for offset in offsets]


def spoilt(decode: Decode, x0: Tensor, tile: int) -> int:
    """Returns how many px from its left border a tile in the middle of the canvas differs from one that starts before.

    The other one is as long, and starts a third of a tile before; a column differs where it does by a level more
    than columns far from both borders do.
    """
    start = x0.shape[-1] // 2
    earlier = start - tile // 3
    one, other = (decode(x0[..., left : left + tile]) for left in (start, earlier))
    shared = tile * CELL - tile // 3 * CELL
    difference = (one[..., :shared] - other[..., -shared:]).abs().mean(dim=(0, 1, 2)) * 127.5
    level = float(difference[shared // 3 : 2 * shared // 3].mean())
    (beyond,) = (difference[: shared // 2] > level + 1).nonzero(as_tuple=True)
    return int(beyond[-1]) + 1 if len(beyond) else 0


def margins(decode: Decode, x0: Tensor, window: int, tiling: Decode | None) -> dict[str, Any]:
    """Returns how pictures of a canvas differ from the whole decode, by the way they are decoded."""
    height, width = (side * CELL for side in x0.shape[-2:])
    decode = remembered(decode)
    whole = np.asarray(images.to_pil(decode(x0)))
    found: dict[str, Any] = {"spoilt px": spoilt(decode, x0, round(1.5 * window))}
    side_by_side = torch.cat([decode(part) for part in torch.split(x0, window, -1)], -1)
    joins = [float(x) for x in range(0, width, window * CELL)]
    found["windows side by side"] = compare(np.asarray(images.to_pil(side_by_side)), whole, joins)
    if tiling is not None:
        with torch.no_grad():
            starts = range(0, width, round(window * CELL * (1 - TILING_OVERLAP)))
            joins = [float(start + offset) for start in starts for offset in (0, window * CELL * TILING_OVERLAP)]
            found["diffusers' tiling"] = compare(np.asarray(images.to_pil(tiling(x0))), whole, joins)
    for tile in TILES:
        for overlap in OVERLAPS if tile == 1.5 else OVERLAPS[:1]:
            for trim in TRIMS if tile == 1.5 else (tiled_decode.TRIM,):
                with patch.multiple(tiled_decode, TILES_PER_OVERLAP=overlap, TRIM=trim):
                    cells = round(tile * window)
                    made = tiled_decode.decode(x0, decode, CELL, height, width, cells)
                    seams = seams_of(tiled_decode.Spans(length=x0.shape[-1], tile=cells))
                name = f"tile {tile:g} windows, overlap 1/{overlap} tile, trim {trim:g} overlap"
                found[name] = compare(made, whole, seams)
                print(f"{name:60}", *(f"{key} {value:6.2f}" for key, value in found[name].items()), flush=True)
    return found


def of_vae(vae: AutoencoderKL, x0: Tensor, window: int) -> dict[str, Any]:
    """Returns `margins` of an autoencoder, its picture stretched to what pictures are."""
    with torch.no_grad():
        picture = vae.decode(x0[..., : 2 * window], return_dict=False)[0]
    middle, factor = picture.mean(dim=(2, 3), keepdim=True), float(DEVIATION / picture.std(dim=(2, 3)).mean())
    plain, tiled = autoencoder_like(vae), autoencoder_like(vae)
    tiled.enable_tiling()

    def decode(x0: Tensor, by: AutoencoderKL = plain) -> Tensor:
        stretched: Tensor = (by.decode(x0, return_dict=False)[0] - middle) * factor
        return stretched

    return margins(decode, x0, window, lambda x0: decode(x0, tiled))


def autoencoder_like(vae: AutoencoderKL) -> AutoencoderKL:
    """Returns an autoencoder with the same configuration and weights."""
    like: AutoencoderKL = AutoencoderKL.from_config(vae.config)
    like.load_state_dict(vae.state_dict())
    return like


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25, help="of the montage (default: 25)")
    parser.add_argument("--training", type=int, default=400, help="steps in which `trained` learns (default: 400)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to measure; the file keeps the others")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/decoding.json"), help="file")
    args = parser.parse_args()
    found: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {}
    parts: dict[str, Callable[[], Any]] = {
        "bundled": lambda: bundled(args.steps),
        "trained": lambda: trained(args.steps, args.training),
        "sd": lambda: of_vae(
            autoencoder(1, 4, 64), F.interpolate(latents(args.steps)[1][:, :4], scale_factor=2, mode="bilinear"), 64
        ),
    }
    for name in args.only or PARTS:
        torch.manual_seed(0)
        found[name] = parts[name]()
    found["machine"] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
