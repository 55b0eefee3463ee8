"""Cached scenes as latents and control maps, and the batches that are cut from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from preprocess.people.skeleton import draw
from synccontrol.models.codec import PatchAutoencoder
from training.cache import HEIGHT, WIDTH, read
from training.canvas import Floats
from training.captions import caption, people_word
from training.train_codec import pictures

CELL = 8  # px
PROMPT_DROP = 0.1  # share of windows that are trained without a prompt, for guidance
CONTROL_SHARES = {"depth": 0.3, "canny": 0.24, "pose": 0.46}  # of the controlled windows
_ENCODE_BATCH = 25
_JOINTS_TO_COUNT = 9  # visible joints that make a figure at a window's edge count as one of its people


@torch.no_grad()
def encode_cache(rank: int, cache: Path, folder: Path, codec_folder: Path) -> None:
    """Write the latents of every cached scene to `folder`, the files shared out among the processes; none twice."""
    codec = PatchAutoencoder.from_pretrained(codec_folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(cache.glob("[0-9]*.npz"))[rank :: dist.get_world_size()]:
        target = folder / f"{path.stem}.npy"
        if target.exists():
            continue
        images = read(path).images
        latents = [
            codec.encode(pictures(images[at : at + _ENCODE_BATCH])).latent_dist.mode()
            for at in range(0, len(images), _ENCODE_BATCH)
        ]
        np.save(target, torch.cat(latents).half().numpy())


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows for one step; the first ones are controlled, in the order of `maps`."""

    latents: Tensor  # (b, c, h, w)
    tokens: Tensor  # (b, LENGTH)
    maps: dict[str, Tensor]  # control -> (k, 3, H, W), 0..1


class Windows:
    """Cuts windows out of the scenes of a cache."""

    def __init__(
        self, cache: Path, latents: Path, tokenizer: CLIPTokenizer, rank: int, workers: int, controlled_share: float
    ) -> None:
        self.tokenizer = tokenizer
        self.controlled_share = controlled_share
        self.latents: list[NDArray[np.float16]] = []
        self.depths: list[NDArray[np.uint8]] = []
        self.canny: list[NDArray[np.uint8]] = []
        self.people: list[Floats] = []
        self.attributes: list[dict[str, str]] = []
        for path in sorted(cache.glob("[0-9]*.npz"))[rank::workers]:
            chunk = read(path)
            self.latents.extend(np.load(latents / f"{path.stem}.npy"))
            self.depths.extend(chunk.depths)
            self.canny.extend(chunk.canny)
            self.people.extend(chunk.people)
            self.attributes.extend(chunk.attributes)
        self.crowded = np.flatnonzero([_visible(people) > 0 for people in self.people])

    def batch(self, rng: np.random.Generator, size: int, width: int) -> Batch:
        """Return `size` random windows, 256 px high and `width` px wide, with captions and control maps."""
        controlled = max(1, round(self.controlled_share * size))
        controls = rng.choice(list(CONTROL_SHARES), controlled, p=list(CONTROL_SHARES.values())).tolist()
        taken: dict[str, list[tuple[Tensor, str, Tensor]]] = {control: [] for control in (*CONTROL_SHARES, "none")}
        for control in controls + ["none"] * (size - controlled):
            index, left, people = self._place(rng, width, crowded=control == "pose")
            attributes = self.attributes[index] | {"people": people_word(_visible(people))}
            words = "" if rng.random() < PROMPT_DROP else caption(rng, attributes)
            cells = slice(left // CELL, (left + width) // CELL)
            latents = torch.from_numpy(self.latents[index][:, :, cells].astype(np.float32))
            image = self._map(control, index, people, left, width)
            taken[control].append((latents, words, torch.from_numpy(image)))
        ordered = [window for windows in taken.values() for window in windows]
        tokens = self.tokenizer(
            [words for _, words, _ in ordered],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        maps = {
            control: torch.stack([image for *_, image in windows]).permute(0, 3, 1, 2).float() / 255
            for control, windows in taken.items()
            if windows and control != "none"
        }
        return Batch(latents=torch.stack([latents for latents, *_ in ordered]), tokens=tokens, maps=maps)

    def _place(self, rng: np.random.Generator, width: int, *, crowded: bool) -> tuple[int, int, Floats]:
        """Return a random scene's number, a left edge in it and the people seen there; `crowded` asks for some."""
        while True:
            index = int(rng.choice(self.crowded) if crowded else rng.integers(len(self.latents)))
            left = int(rng.integers((WIDTH - width) // CELL + 1)) * CELL
            people = inside(self.people[index], left, width)
            if _visible(people) or not crowded:
                return index, left, people

    def _map(self, control: str, index: int, people: Floats, left: int, width: int) -> NDArray[np.uint8]:
        """Return the control map (256, width, 3) of a window."""
        if control == "none":
            return np.zeros((0, 0, 3), np.uint8)
        if control == "pose":
            return draw(people, HEIGHT, width)
        if control == "depth":
            grey = self.depths[index][:, left : left + width]
        else:
            packed = self.canny[index][:, left // CELL : (left + width) // CELL]
            grey = np.unpackbits(packed, axis=1) * np.uint8(255)
        return np.repeat(grey[..., None], 3, 2)


def inside(people: Floats, left: int, width: int) -> Floats:
    """Return the people (k, 18, 3) of a window; joints outside of it are marked as not visible."""
    moved = people.copy()
    moved[..., 0] -= left
    moved[..., 2] *= (moved[..., 0] >= 0) & (moved[..., 0] < width)
    return moved[moved[..., 2].any(1)] if len(moved) else moved


def _visible(people: Floats) -> int:
    """Return how many people show at least half of their joints."""
    return int((people[..., 2].sum(1) >= _JOINTS_TO_COUNT).sum()) if len(people) else 0
