"""The detectors that come with the package: small networks trained on rendered landscapes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from synccontrol.preprocess.estimators.checkpoints import torch_device
from synccontrol.preprocess.people.skeleton import JOINTS, NECK

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """How peaks become people."""

    peak: float = 0.3  # probability that a joint must reach
    neck: float = 0.3  # probability that a person's neck must reach
    radius: int = 2  # cells; of two peaks of one joint this close, the higher stays
    slack: float = 0.3  # a vote may miss the neck by this share of the distance from joint to neck ...
    slack_cells: float = 3.0  # ... plus this many cells
    joints: int = 5  # a person has at least so many


def people_from_maps(heatmaps: Floats, votes: Floats, grouping: Grouping = Grouping()) -> Floats:
    """Returns people (n, 18, 3): x and y in cells of the maps, and confidence, 0 for joints that were not found.

    Every neck peak is a person. Every other peak votes for where its neck is, and joins the person whose neck is
    nearest to the vote; nearest pairs are served first, and a person takes one joint of each kind.

    Args:
        heatmaps: (18, h, w) probabilities that a joint lies in a cell.
        votes: (18, 2, h, w) vector from a joint in a cell to its person's neck, x and y in cells.
        grouping: The thresholds.
    """
    necks = find_peaks(heatmaps[NECK], grouping.neck, grouping.radius)
    people = np.zeros((len(necks), len(JOINTS), 3), np.float32)
    people[:, NECK] = necks
    for joint in range(len(JOINTS)):
        if joint != NECK and len(necks):
            peaks = find_peaks(heatmaps[joint], grouping.peak, grouping.radius)
            _assign(people, joint, peaks, votes[joint], grouping)
    visible = (people[:, :, 2] > 0).sum(axis=1)
    whole: Floats = people[visible >= grouping.joints]
    return whole


def find_peaks(heatmap: Floats, threshold: float, radius: int) -> Floats:
    """Returns the local maxima (n, 3) of an (h, w) map: x, y with a fraction of a cell, and height; highest first.

    Args:
        heatmap: Probabilities.
        threshold: What a peak must reach.
        radius: Cells; only the highest value within this distance is a peak.
    """
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    highest = cv2.dilate(heatmap, window, borderType=cv2.BORDER_CONSTANT, borderValue=0.0)
    rows, columns = np.nonzero((heatmap >= threshold) & (heatmap == highest))
    heights = heatmap[rows, columns]
    padded = np.pad(heatmap, 1, mode="reflect")  # a peak at the border stays in its cell
    x = columns + _vertex(padded[rows + 1, columns], heights, padded[rows + 1, columns + 2])
    y = rows + _vertex(padded[rows, columns + 1], heights, padded[rows + 2, columns + 1])
    order = np.argsort(-heights, kind="stable")
    peaks = np.stack([x, y, heights], axis=1).astype(np.float32)[order]
    return _without_plateaus(peaks, radius)


def _vertex(before: Floats, middle: Floats, after: Floats) -> Floats:
    """Returns where the parabola through three neighbouring values peaks, -0.5 .. 0.5 cells from the middle."""
    curvature = before - 2 * middle + after
    flat = np.abs(curvature) < np.finfo(np.float32).eps
    shift = 0.5 * (before - after) / np.where(flat, 1, curvature)
    clipped: Floats = np.where(flat, 0, np.clip(shift, -0.5, 0.5)).astype(np.float32)
    return clipped


def _without_plateaus(peaks: Floats, radius: int) -> Floats:
    """Returns `peaks` without those within `radius` of an earlier one: equal neighbours are one peak."""
    kept: list[Floats] = []
    for peak in peaks:
        if all(np.abs(peak[:2] - other[:2]).max() > radius for other in kept):
            kept.append(peak)
    return np.array(kept, np.float32).reshape(-1, 3)


def _assign(people: Floats, joint: int, peaks: Floats, votes: Floats, grouping: Grouping) -> None:
    """Gives each person in `people` at most one of the `peaks` of a joint, the best-matching pairs first."""
    cells = np.rint(peaks[:, :2]).astype(int)
    vote = votes[:, cells[:, 1], cells[:, 0]].T
    necks = people[:, NECK, :2]
    miss = np.linalg.norm((peaks[:, :2] + vote)[:, None] - necks[None], axis=2)
    allowed = grouping.slack * np.linalg.norm(peaks[:, None, :2] - necks[None], axis=2) + grouping.slack_cells
    cost = miss / allowed
    pairs = zip(*np.unravel_index(np.argsort(cost, axis=None, kind="stable"), cost.shape), strict=True)
    taken: set[int] = set()
    for peak, person in pairs:
        if cost[peak, person] > 1:
            break
        if peak not in taken and people[person, joint, 2] == 0:
            people[person, joint] = peaks[peak]
            taken.add(peak)


CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RGB_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class MapNetConfig:
    """The shape of a `MapNet`, as stored in its `config.json`."""

    channels: int  # maps that are predicted
    widths: tuple[int, ...] = (24, 40, 64, 80, 112)  # channels at 1/2, 1/4, 1/8, ... of the input's side
    full_resolution: int = 0  # channels of the last stage at the input's own size; 0: maps at half size
    height: int = 256  # pixels; the picture height that the network was trained at


class MapNet(nn.Module):
    """Predicts maps from a picture: fully convolutional, so any width works.

    Beside the colours it sees every pixel's row (-1 at the top, 1 at the bottom), because where a thing stands
    in a picture says how far it is; it never sees the column, so that moving a picture sideways moves the maps.
    """

    def __init__(self, config: MapNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        inputs = (RGB_CHANNELS + 1, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(before, after, stride=2), ResidualBlock(after))
            for before, after in zip(inputs, widths, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for shallow, deep in pairwise(widths))
        self.up = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        full = config.full_resolution
        self.sharpen = FullResolution(widths[0], full) if full else nn.Identity()
        self.head = nn.Conv2d(full or widths[0], config.channels, 3, padding=1)

    @property
    def multiple(self) -> int:
        """The number of pixels that both sides of the input must be a multiple of."""
        return int(2 ** len(self.config.widths))

    def forward(self, picture: Tensor) -> Tensor:
        """Returns maps (n, channels, H, W), or (n, channels, H/2, W/2) without a full-resolution stage: raw values.

        Args:
            picture: (n, 3, H, W) in [0, 1], sides multiples of `multiple`.
        """
        n, _, height, width = picture.shape
        rows = torch.linspace(-1, 1, height, dtype=picture.dtype, device=picture.device)
        seen = torch.cat([2 * picture - 1, rows.view(1, 1, height, 1).expand(n, 1, height, width)], dim=1)
        features, skips = seen, []
        for stage in self.down:
            features = stage(features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            deeper = F.interpolate(self.lateral[level](features), scale_factor=2, mode="bilinear")
            features = self.up[level](deeper + skips[level])
        if self.config.full_resolution:
            features = self.sharpen(features, seen)
        maps: Tensor = self.head(features)
        return maps

    def save(self, folder: Path) -> None:
        """Writes `config.json` and fp16 `model.safetensors` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        state = {
            name: value.half().contiguous() for name, value in self.state_dict().items() if value.is_floating_point()
        }
        save_file(state, folder / WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> MapNet:
        """Returns the network that `save` wrote into `folder`, in float32 and evaluation mode."""
        config = json.loads((folder / CONFIG_FILE).read_text())
        network = cls(MapNetConfig(**{**config, "widths": tuple(config["widths"])}))
        state = {name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()}
        counters = {name: value for name, value in network.state_dict().items() if not value.is_floating_point()}
        network.load_state_dict({**counters, **state})
        return network.eval()


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.second(self.first(features)))


class FullResolution(nn.Module):
    """Carries features at half size to the input's own size, with the input beside them for sharp silhouettes."""

    def __init__(self, width: int, full: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(nn.Conv2d(width, 4 * full, 1), nn.PixelShuffle(2))
        self.look = _convolution(RGB_CHANNELS + 1, full)
        self.join = _convolution(2 * full, full)

    def forward(self, features: Tensor, seen: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([self.enlarge(features), self.look(seen)], dim=1))
        return joined


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


Bytes = npt.NDArray[np.uint8]

MODELS = Path(__file__).parents[1] / "models"
CELL = 2  # pixels of the network's picture to a cell of the pose maps
VOTE_UNIT = 32.0  # cells that a predicted vote of 1 stands for

_NETWORKS: WeakValueDictionary[tuple[Path, torch.device], MapNet] = WeakValueDictionary()
_LOADING = Lock()


class BundledDepth:
    """Estimates how near everything in a picture is, with the bundled network."""

    def __init__(self, device: str, folder: Path = MODELS / "depth") -> None:
        self.device = torch_device(device)
        self.network = _network(folder, self.device)

    def __call__(self, picture: Bytes) -> Floats:
        """Returns nearness (h, w) in 0..1, sky 0, for an RGB picture (H, W, 3), at the height the network works at."""
        seen, height, width = _fit(picture, self.network)
        maps = _predict(self.network, seen, self.device)
        nearness: Floats = maps[0, :height, :width].sigmoid().numpy()
        return nearness


class BundledPose:
    """Finds people in a picture, with the bundled network."""

    def __init__(self, device: str, folder: Path = MODELS / "pose") -> None:
        self.device = torch_device(device)
        self.network = _network(folder, self.device)

    def __call__(self, picture: Bytes) -> Floats:
        """Returns the people (n, 18, 3) in an RGB picture (H, W, 3): x px, y px, confidence."""
        seen, height, width = _fit(picture, self.network)
        maps = _predict(self.network, seen, self.device)[:, : -(-height // CELL), : -(-width // CELL)]
        joints = len(JOINTS)
        votes = maps[joints:].reshape(joints, 2, *maps.shape[1:]) * VOTE_UNIT
        people = people_from_maps(maps[:joints].sigmoid().numpy(), votes.numpy())
        scale = (picture.shape[1] / width, picture.shape[0] / height)
        people[..., :2] = (people[..., :2] + 0.5) * CELL * scale - 0.5
        return people


def _network(folder: Path, device: torch.device) -> MapNet:
    """Returns a network, which all that use it at the same time share."""
    with _LOADING:
        network = _NETWORKS.get((folder, device)) or MapNet.load(folder).to(device)
        _NETWORKS[folder, device] = network
    return network


def _fit(picture: Bytes, network: MapNet) -> tuple[Bytes, int, int]:
    """Returns the picture, its shorter side at the network's height, padded to its steps; height and width unpadded."""
    scale = network.config.height / min(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    bottom, right = (-height % network.multiple), (-width % network.multiple)
    padded = cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return padded.astype(np.uint8), height, width


@torch.inference_mode()
def _predict(network: MapNet, picture: Bytes, device: torch.device) -> torch.Tensor:
    """Returns the raw maps (channels, h, w) of an RGB picture, on the CPU."""
    batch = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None] / 255
    maps: torch.Tensor = network(batch)[0].float().cpu()
    return maps
