"""Cached scenes as latents, tokens and control maps, and the batches that are cut from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from synccontrol.models.codec import PatchAutoencoder
from synccontrol.preprocess.people.skeleton import draw
from training.cache import HEIGHT, WIDTH, Chunk, read
from training.canvas import Floats
from training.captions import PEOPLE, caption, people_word
from training.train_codec import pictures

CELL = 8  # px
WINDOW, NARROW = 256, 128  # px of width
CAPTIONS = 8  # wordings of a scene, for each word for its people
PROMPT_DROP = 0.1  # share of windows that are trained without a prompt, for guidance
CONTROL_SHARES = {"depth": 0.3, "canny": 0.24, "pose": 0.46}  # of the controlled windows
_ENCODE_BATCH = 25
_JOINTS_TO_COUNT = 9  # visible joints that make a figure at a window's edge count as one of its people
_BITS = 128, 64, 32, 16, 8, 4, 2, 1  # of a byte of packed edges, from the left


@torch.no_grad()
def encode_cache(rank: int, cache: Path, folder: Path, codec_folder: Path, tokenizer_folder: Path) -> None:
    """Write to `folder` what training reads of every cached scene, the files shared out among the processes."""
    codec = PatchAutoencoder.from_pretrained(codec_folder)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(cache.glob("[0-9]*.npz"))[rank :: dist.get_world_size()]:
        target = folder / path.name
        if target.exists():
            continue
        chunk = read(path)
        latents = [
            codec.encode(pictures(chunk.images[at : at + _ENCODE_BATCH])).latent_dist.mode()
            for at in range(0, len(chunk.images), _ENCODE_BATCH)
        ]
        partial = target.with_suffix(".partial.npz")
        np.savez(
            partial,
            latents=torch.cat(latents).half().numpy(),
            tokens=_worded(chunk, tokenizer, np.random.default_rng(int(path.stem))),
            depth=chunk.depths,
            canny=chunk.canny,
            pose=np.stack([draw(people, HEIGHT, WIDTH) for people in chunk.people]),
            joints=_joints(chunk.people),
        )
        partial.rename(target)


def _worded(chunk: Chunk, tokenizer: CLIPTokenizer, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return the tokens (n, words for people, CAPTIONS, LENGTH) of captions of every scene."""
    words = [
        caption(rng, attributes | {"people": people})
        for attributes in chunk.attributes
        for people in PEOPLE
        for _ in range(CAPTIONS)
    ]
    tokens = tokenizer(words, padding="max_length", truncation=True, return_tensors="np").input_ids
    return np.asarray(tokens, np.int16).reshape(len(chunk.attributes), len(PEOPLE), CAPTIONS, -1)


def _joints(people: list[Floats]) -> NDArray[np.float16]:
    """Return where the visible joints of every scene's people are: x (n, k, 18), px; NaN where there is none."""
    joints = np.full((len(people), max(map(len, people)) or 1, 18), np.nan, np.float16)
    for row, figures in zip(joints, people, strict=True):
        row[: len(figures)] = np.where(figures[..., 2] > 0, figures[..., 0], np.nan)
    return joints


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows for one step; the first ones are controlled, in the order of `maps`."""

    latents: Tensor  # (b, c, h, w)
    tokens: Tensor  # (b, LENGTH)
    maps: dict[str, Tensor]  # control -> (k, 3, H, W), 0..1

    def copy(self) -> "Batch":
        """Return the same values in memory of their own."""
        maps = {control: maps.clone(memory_format=torch.contiguous_format) for control, maps in self.maps.items()}
        return Batch(latents=self.latents.clone(), tokens=self.tokens.clone(), maps=maps)

    def fill(self, other: "Batch") -> None:
        """Take over the values of a batch of the same shapes, in place."""
        self.latents.copy_(other.latents)
        self.tokens.copy_(other.tokens)
        for control, maps in self.maps.items():
            maps.copy_(other.maps[control])


class Windows:
    """Cuts windows out of the scenes of a folder, all of which lie on one device."""

    def __init__(
        self, folder: Path, empty: Tensor, rank: int, workers: int, controlled_share: float, device: str
    ) -> None:
        self.empty = empty.to(device)  # the tokens (LENGTH,) of no prompt
        self.controlled_share = controlled_share
        files = [np.load(path) for path in sorted(folder.glob("[0-9]*.npz"))[rank::workers]]

        def gather(name: str) -> Tensor:
            return torch.cat([torch.from_numpy(file[name]).to(device) for file in files])

        self.latents, self.tokens = gather("latents"), gather("tokens")
        self.depth, self.canny, self.pose = gather("depth"), gather("canny"), gather("pose")
        self.words, self.crowded = self._people([file["joints"] for file in files])

    def _people(self, joints: list[NDArray[np.float16]]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Return, by width, the number of the word for the people at (scene, left edge), and the places with some."""
        words, crowded = {}, {}
        for width in (NARROW, WINDOW):
            lefts = CELL * np.arange((WIDTH - width) // CELL + 1)
            counts = np.concatenate([visible(xs, lefts, width) for xs in joints])
            index = np.array([PEOPLE.index(people_word(count)) for count in range(counts.max() + 1)])
            words[width] = torch.from_numpy(index[counts]).to(self.latents.device)
            crowded[width] = torch.from_numpy(np.argwhere(counts > 0)).to(self.latents.device)
        return words, crowded

    def batch(self, generator: torch.Generator, size: int, width: int) -> Batch:
        """Return `size` random windows, 256 px high and `width` px wide, with captions and control maps."""

        def random(count: int, end: int) -> Tensor:
            return torch.randint(end, (count,), generator=generator, device=generator.device)

        counts = self._shares(size, generator)
        scenes, lefts = random(size, len(self.latents)), random(size, self.words[width].shape[1])
        if counts["pose"]:
            start = counts["depth"] + counts["canny"]
            places = self.crowded[width][random(counts["pose"], len(self.crowded[width]))]
            scenes[start : start + counts["pose"]], lefts[start : start + counts["pose"]] = places.unbind(1)
        tokens = self.tokens[scenes, self.words[width][scenes, lefts], random(size, CAPTIONS)].long()
        dropped = torch.rand(size, generator=generator, device=generator.device) < PROMPT_DROP
        return Batch(
            latents=self.latents.unfold(3, width // CELL, 1)[scenes, :, :, lefts].float(),
            tokens=torch.where(dropped[:, None], self.empty, tokens),
            maps=self._maps(counts, scenes, lefts, width),
        )

    def _shares(self, size: int, generator: torch.Generator) -> dict[str, int]:
        """Return how many windows are under each control; what does not come out even is drawn."""
        controlled = max(1, round(self.controlled_share * size))
        exact = controlled * torch.tensor(list(CONTROL_SHARES.values()))
        counts = exact.add(1e-4).floor()
        for _ in range(controlled - int(counts.sum())):
            left = (exact - counts).clamp(min=0)
            counts[torch.multinomial(left.to(generator.device), 1, generator=generator).cpu()] += 1
        return dict(zip(CONTROL_SHARES, map(int, counts.tolist()), strict=True))

    def _maps(self, counts: dict[str, int], scenes: Tensor, lefts: Tensor, width: int) -> dict[str, Tensor]:
        """Return the control maps of the first windows."""
        maps, start = {}, 0
        for control, count in counts.items():
            these = slice(start, start := start + count)
            at, left = scenes[these], lefts[these]
            if not count:
                continue
            if control == "pose":
                found = self.pose.unfold(2, width, CELL)[at, :, left].transpose(1, 2)
            elif control == "depth":
                found = self.depth.unfold(2, width, CELL)[at, :, left][:, None]
            else:
                packed = self.canny.unfold(2, width // CELL, 1)[at, :, left][:, None, :, :, None]
                found = 255 * (packed & torch.tensor(_BITS, device=packed.device)).bool().flatten(3)
            maps[control] = (found.float() / 255).expand(-1, 3, -1, -1)
        return maps


def visible(xs: NDArray[np.float16], lefts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return how many people (n, edges) show at least half of their joints in windows of a width.

    Args:
        xs: of the visible joints (n, k, 18), px; NaN where there is none.
        lefts: left edges (edges,), px.
        width: of the windows, px.
    """
    inside = (xs[:, None] >= lefts[:, None, None]) & (xs[:, None] < (lefts + width)[:, None, None])
    return np.asarray((inside.sum(-1) >= _JOINTS_TO_COUNT).sum(-1))
