"""What the exported model gives, measured: `python -m training.measure`; the figures stand in the model card.

Prompt: a small classifier, trained here on rendered scenes, names time of day and biome of generated windows.
Control: edges of windows drawn under a Canny map against that map, and the same windows with the control off.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from synccontrol.evaluate.control import edge_f1
from training.cache import HELD_OUT, edges
from training.captions import BIOME_WORDS, TIME_WORDS
from training.render import BIOMES, TIMES, render
from training.samples import Picture, control_map, draw_windows, pipeline

SIDE = 64  # px of the classifier's input
SCENES = 3000  # that it learns from
FRESH = 400  # that it is tested on
STEPS, BATCH, RATE = 500, 32, 2e-3
TOLERANCE = 2  # px between edges that count as the same
_TEST = HELD_OUT + 50_000  # first seed of the scenes that are measured on


def _small(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _tensor(pictures: list[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([_small(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 127.5 - 1


class Classifier(nn.Module):
    """Names the time of day and the biome of a picture."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        self.layers = nn.Sequential(
            *(
                layer
                for inside, outside in pairwise(widths)
                for layer in (nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.SiLU())
            ),
            nn.AdaptiveAvgPool2d((4, 1)),  # what is above and what is below matters; left and right do not
            nn.Flatten(),
            nn.Linear(4 * widths[-1], len(TIMES) + len(BIOMES)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the times, then of the biomes."""
        logits: Tensor = self.layers(x)
        return logits

    def right(self, pictures: list[Picture], times: list[str], biomes: list[str]) -> tuple[float, float]:
        """Return the shares of pictures whose time and whose biome it names as given."""
        time, biome = self.names(pictures)
        return (
            float(np.mean([named == wanted for named, wanted in zip(time, times, strict=True)])),
            float(np.mean([named == wanted for named, wanted in zip(biome, biomes, strict=True)])),
        )

    @torch.no_grad()
    def names(self, pictures: list[Picture]) -> tuple[list[str], list[str]]:
        """Return the time and the biome of every picture."""
        logits = self(_tensor(pictures))
        times, biomes = logits[:, : len(TIMES)].argmax(1).tolist(), logits[:, len(TIMES) :].argmax(1).tolist()
        return [TIMES[index] for index in times], [BIOMES[index] for index in biomes]


def train_classifier() -> Classifier:
    """Return a classifier trained on rendered scenes."""
    torch.manual_seed(0)
    rng = np.random.default_rng(HELD_OUT + 40_000)
    scenes = [render(rng) for _ in range(SCENES)]
    inputs = _tensor([scene.image for scene in scenes])
    times = torch.tensor([TIMES.index(scene.attributes["time"]) for scene in scenes])
    biomes = torch.tensor([BIOMES.index(scene.attributes["biome"]) for scene in scenes])
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        chosen = torch.from_numpy(rng.integers(0, SCENES, BATCH))
        logits = classifier(inputs[chosen])
        loss = F.cross_entropy(logits[:, : len(TIMES)], times[chosen])
        loss = loss + F.cross_entropy(logits[:, len(TIMES) :], biomes[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return classifier.eval()


def measure(model: Path, count: int) -> None:
    """Print the figures."""
    classifier = train_classifier()
    fresh = [render(np.random.default_rng(_TEST + i)) for i in range(FRESH)]
    _report(classifier, "rendered scenes", [s.image for s in fresh], [s.attributes for s in fresh])
    wanted = [{"time": TIMES[i % len(TIMES)], "biome": BIOMES[i % len(BIOMES)]} for i in range(count)]
    prompts = [f"{BIOME_WORDS[kind['biome']][0]} {TIME_WORDS[kind['time']][0]}" for kind in wanted]
    scenes = [
        render(np.random.default_rng(_TEST + FRESH + i), time=kind["time"], biome=kind["biome"])
        for i, kind in enumerate(wanted)
    ]
    maps = [control_map(scene, "canny") for scene in scenes]
    pipe = pipeline(model, "canny")
    free = draw_windows(pipe, prompts, maps, strength=0.0)
    _report(classifier, "windows drawn from prompts alone", free, wanted)
    drawn = draw_windows(pipe, prompts, maps)
    _report(classifier, "windows drawn from prompts and edges", drawn, wanted)
    for name, pictures in (("on", drawn), ("off", free)):
        pairs = zip(pictures, maps, strict=True)
        f1 = np.mean([edge_f1(edges(picture) > 0, image[..., 0] > 0, TOLERANCE) for picture, image in pairs])
        print(f"canny F1 at {TOLERANCE} px, control {name}: {f1:.3f}", flush=True)


def _report(classifier: Classifier, name: str, pictures: list[Picture], wanted: list[dict[str, str]]) -> None:
    """Print how often the classifier agrees with what was wanted."""
    time, biome = classifier.right(pictures, [kind["time"] for kind in wanted], [kind["biome"] for kind in wanted])
    print(f"{len(pictures)} {name}: time {time:.3f}, biome {biome:.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("synccontrol/models/tiny"))
    parser.add_argument("--count", type=int, default=40, help="windows a measurement")
    arguments = parser.parse_args()
    measure(arguments.model, arguments.count)
