"""Trains the bundled detectors: `python -m training.train_detectors depth|pose --out DIR`.

An interrupted run goes on where it stopped when it is started again with the same folder.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synccontrol.preprocess.estimators.bundled import MapNet, MapNetConfig
from synccontrol.preprocess.people.skeleton import JOINTS
from training.detector_data import Cut, Sample, samples, scenes
from training.detector_losses import depth_loss, pose_loss, pose_targets

STATE_FILE = "training_state.pt"
MOST_PEOPLE = {"depth": 4, "pose": 5}  # in a scene that the detector learns from
POSE_CHANNELS = len(JOINTS) * 3  # a heatmap and a two-dimensional vote for each joint

RARE = -4.0  # first logit of every joint: joints are in one cell of many


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast a detector is trained."""

    samples: int = 72_000
    scenes: int = 4_000  # rendered before training starts
    batch: int = 8
    rate: float = 2e-3  # largest learning rate; rises over `warm_up`, falls to zero as a cosine
    warm_up: float = 0.05  # share of the run
    decay: float = 0.02  # weight decay of AdamW
    distorted: float = 1.0  # share of samples that are distorted; the rest is the world as it is drawn
    average: float = 0.998  # memory of the averaged weights, which are what is kept
    clip: float = 1.0  # largest gradient norm
    save_every: int = 250  # steps between written states
    seed: int = 0


class Trainer:
    """A network, its averaged copy and its optimiser, that can be written to a folder and read back."""

    def __init__(self, kind: str, recipe: Recipe, folder: Path, start: Path | None = None) -> None:
        self.kind, self.recipe, self.folder = kind, recipe, folder
        torch.manual_seed(recipe.seed)
        network = MapNet.load(start).train() if start else _new(kind)
        self.network = network.to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
        self.step = 0
        if (folder / STATE_FILE).exists():
            self._resume()

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""
        return self.recipe.samples // self.recipe.batch

    def learn(self, batch: list[Sample]) -> float:
        """Returns the loss of `batch`, after one step of the optimiser."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        pictures = torch.from_numpy(np.stack([sample.image for sample in batch])).permute(0, 3, 1, 2) / 255
        with torch.autocast("cpu", torch.bfloat16):
            maps = self.network(pictures)
        loss = self._loss(maps.float(), batch)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    def save(self) -> None:
        """Writes the averaged network, and the state from which the run can go on unless it is over."""
        self.averaged.save(self.folder)
        if self.step == self.steps:
            (self.folder / STATE_FILE).unlink(missing_ok=True)
            return
        parts = {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimiser")}
        torch.save({"step": self.step, **parts}, self.folder / STATE_FILE)

    def _resume(self) -> None:
        state = torch.load(self.folder / STATE_FILE)
        self.step = state["step"]
        for name in ("network", "averaged", "optimiser"):
            getattr(self, name).load_state_dict(state[name])

    def _rate(self) -> float:
        warm_up = self.recipe.warm_up * self.steps
        rise = min(1.0, (self.step + 1) / warm_up)
        fall = 0.5 * (1 + np.cos(np.pi * self.step / self.steps))
        return float(self.recipe.rate * rise * fall)

    def _loss(self, maps: Tensor, batch: list[Sample]) -> Tensor:
        if self.kind == "depth":
            return depth_loss(maps[:, 0].sigmoid(), torch.from_numpy(np.stack([sample.depth for sample in batch])))
        height, width = maps.shape[2:]
        heatmaps, votes, near = pose_targets([sample.people for sample in batch], height, width)
        return pose_loss(maps, heatmaps, votes, near)

    @torch.no_grad()
    def _average(self) -> None:
        memory = min(self.recipe.average, self.step / (self.step + 10))
        for kept, new in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - memory)


def _new(kind: str) -> MapNet:
    """Returns the network of a detector, untrained."""
    if kind == "depth":
        return MapNet(MapNetConfig(channels=1, full_resolution=8))
    network = MapNet(MapNetConfig(channels=POSE_CHANNELS))
    network.head.state_dict()["bias"][: len(JOINTS)].fill_(RARE)
    return network


def train(kind: str, recipe: Recipe, folder: Path, start: Path | None = None) -> None:
    """Trains the detector `kind` into `folder`, from nothing or from a network, printing the loss as it goes."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(kind, recipe, folder, start)
    rng = np.random.default_rng((recipe.seed, trainer.step))
    cut = Cut()
    pool = scenes(rng, recipe.scenes, cut, MOST_PEOPLE[kind])
    stream = samples(rng, pool, cut, recipe.distorted)
    started, losses = time.monotonic(), []
    while trainer.step < trainer.steps:
        losses.append(trainer.learn(list(itertools.islice(stream, recipe.batch))))
        if trainer.step % recipe.save_every == 0 or trainer.step == trainer.steps:
            trainer.save()
            minutes = (time.monotonic() - started) / 60
            print(f"{trainer.step}/{trainer.steps}  loss {np.mean(losses):.4f}  {minutes:.1f} min", flush=True)
            losses.clear()


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("depth", "pose"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the network; an interrupted run goes on")
    parser.add_argument("--start", type=Path, help="folder of a network that is trained further (default: none)")
    names = ("samples", "scenes", "batch", "rate", "distorted", "seed")
    for name in names:
        default = getattr(Recipe(), name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    options = parser.parse_args()
    recipe = Recipe(**{name: getattr(options, name) for name in names})
    train(options.kind, recipe, options.out, options.start)


if __name__ == "__main__":
    main()
