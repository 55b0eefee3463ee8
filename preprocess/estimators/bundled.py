"""The bundled detectors of depth and people: small networks trained on rendered landscapes."""

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
    """Thresholds that group peaks into people."""

    peak: float = 0.3  # smallest probability of a joint
    neck: float = 0.3  # smallest probability of a neck
    radius: int = 2  # cells; smallest distance of two peaks of a joint
    slack: float = 0.3  # largest error of a vote, as a share of the distance from joint to neck ...
    slack_cells: float = 3.0  # ... plus this many cells
    joints: int = 5  # smallest number of joints of a person


def people_from_maps(heatmaps: Floats, votes: Floats, grouping: Grouping = Grouping()) -> Floats:
    """Group peaks into people (n, 18, 3): x and y in cells of the maps, and confidence, 0 for absent joints.

    Every neck peak is a person. Every other peak votes for the position of its neck, and joins the person whose neck
    is nearest to the vote. The nearest pairs come first, and a person has one joint of each type.

    Args:
        heatmaps: (18, h, w) probabilities of a joint in a cell.
        votes: (18, 2, h, w) vector from a joint in a cell to the neck of its person, x and y in cells.
        grouping: the thresholds.
    """
    necks = find_peaks(heatmaps[NECK], grouping.neck, grouping.radius)
    people = np.zeros((len(necks), len(JOINTS), 3), np.float32)
    people[:, NECK] = necks
    for joint in range(len(JOINTS)):
        if joint != NECK and len(necks):
            peaks = find_peaks(heatmaps[joint], grouping.peak, grouping.radius)
            _assign(people, joint, peaks, votes[joint], grouping)
    visible = (people[:, :, 2] > 0).sum(axis=1)
    complete: Floats = people[visible >= grouping.joints]
    return complete


def find_peaks(heatmap: Floats, threshold: float, radius: int) -> Floats:
    """Return the local maxima (n, 3) of an (h, w) map, the highest first: subcell x and y, and height.

    Args:
        heatmap: the probabilities.
        threshold: the smallest height of a peak.
        radius: cells; only the highest value within this distance is a peak.
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
    """Return the vertex of the parabola through three neighbouring values, -0.5 .. 0.5 cells from the middle."""
    curvature = before - 2 * middle + after
    flat = np.abs(curvature) < np.finfo(np.float32).eps
    shift = 0.5 * (before - after) / np.where(flat, 1, curvature)
    clipped: Floats = np.where(flat, 0, np.clip(shift, -0.5, 0.5)).astype(np.float32)
    return clipped


def _without_plateaus(peaks: Floats, radius: int) -> Floats:
    """Remove peaks within `radius` of an earlier one, because equal neighbours are one peak."""
    unique: list[Floats] = []
    for peak in peaks:
        if all(np.abs(peak[:2] - other[:2]).max() > radius for other in unique):
            unique.append(peak)
    return np.array(unique, np.float32).reshape(-1, 3)


def _assign(people: Floats, joint: int, peaks: Floats, votes: Floats, grouping: Grouping) -> None:
    """Assign at most one of the `peaks` of a joint to each person, the best matches first."""
    cells = np.rint(peaks[:, :2]).astype(int)
    vote = votes[:, cells[:, 1], cells[:, 0]].T
    necks = people[:, NECK, :2]
    error = np.linalg.norm((peaks[:, :2] + vote)[:, None] - necks[None], axis=2)
    allowed = grouping.slack * np.linalg.norm(peaks[:, None, :2] - necks[None], axis=2) + grouping.slack_cells
    cost = error / allowed
    pairs = zip(*np.unravel_index(np.argsort(cost, axis=None, kind="stable"), cost.shape), strict=True)
    assigned: set[int] = set()
    for peak, person in pairs:
        if cost[peak, person] > 1:
            break
        if peak not in assigned and people[person, joint, 2] == 0:
            people[person, joint] = peaks[peak]
            assigned.add(peak)


CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RGB_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class MapNetConfig:
    """The shape of a `MapNet`, as stored in its `config.json`."""

    channels: int  # number of predicted maps
    widths: tuple[int, ...] = (24, 40, 64, 80, 112)  # channels at 1/2, 1/4, 1/8, ... of the input's side
    full_resolution: int = 0  # channels of the last stage at the input's own size; 0: maps at half size
    height: int = 256  # px; the image height that the network was trained at


class MapNet(nn.Module):
    """Predict maps from an image of any width: a fully convolutional network.

    Its input has a fourth channel with the row of each pixel, -1 at the top and 1 at the bottom. The row of an object
    indicates its distance. There is no such channel for the column, so shifting an image sideways
    shifts the maps.
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
        """Return the number of pixels that both sides of the input must be a multiple of."""
        return int(2 ** len(self.config.widths))

    def forward(self, image: Tensor) -> Tensor:
        """Return raw maps (n, channels, H, W), or (n, channels, H/2, W/2) without a full-resolution stage.

        Args:
            image: (n, 3, H, W) in [0, 1]; both sides are multiples of `multiple`.
        """
        n, _, height, width = image.shape
        rows = torch.linspace(-1, 1, height, dtype=image.dtype, device=image.device)
        inputs = torch.cat([2 * image - 1, rows.view(1, 1, height, 1).expand(n, 1, height, width)], dim=1)
        features, skips = inputs, []
        for stage in self.down:
            features = stage(features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            deeper = F.interpolate(self.lateral[level](features), scale_factor=2, mode="bilinear")
            features = self.up[level](deeper + skips[level])
        if self.config.full_resolution:
            features = self.sharpen(features, inputs)
        maps: Tensor = self.head(features)
        return maps

    def save(self, folder: Path) -> None:
        """Write `config.json` and fp16 `model.safetensors` to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        state = {
            name: value.half().contiguous() for name, value in self.state_dict().items() if value.is_floating_point()
        }
        save_file(state, folder / WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> MapNet:
        """Load the network that `save` wrote to `folder`, in float32 and evaluation mode."""
        config = json.loads((folder / CONFIG_FILE).read_text())
        network = cls(MapNetConfig(**{**config, "widths": tuple(config["widths"])}))
        state = {name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()}
        counters = {name: value for name, value in network.state_dict().items() if not value.is_floating_point()}
        network.load_state_dict({**counters, **state})
        return network.eval()


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.second(self.first(features)))


class FullResolution(nn.Module):
    """Upsample features to the size of the input, and combine them with the input for sharp silhouettes."""

    def __init__(self, width: int, full: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(nn.Conv2d(width, 4 * full, 1), nn.PixelShuffle(2))
        self.look = _convolution(RGB_CHANNELS + 1, full)
        self.join = _convolution(2 * full, full)

    def forward(self, features: Tensor, inputs: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([self.enlarge(features), self.look(inputs)], dim=1))
        return joined


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


Bytes = npt.NDArray[np.uint8]

MODELS = Path(__file__).parents[1] / "models"
CELL = 2  # px of the network's input per cell of the pose maps
VOTE_UNIT = 32.0  # cells that a predicted vote of 1 stands for

_NETWORKS: WeakValueDictionary[tuple[Path, torch.device], MapNet] = WeakValueDictionary()
_LOADING = Lock()


class BundledDepth:
    """Estimate the nearness of every pixel with the bundled network."""

    def __init__(self, device: str, folder: Path = MODELS / "depth") -> None:
        self.device = torch_device(device)
        self.network = _network(folder, self.device)

    def __call__(self, image: Bytes) -> Floats:
        """Return nearness (h, w) in 0..1, sky 0, of an RGB image (H, W, 3), in the size of the network's input."""
        inputs, height, width = _fit(image, self.network)
        maps = _predict(self.network, inputs, self.device)
        nearness: Floats = maps[0, :height, :width].sigmoid().numpy()
        return nearness


class BundledPose:
    """Detect people in an image with the bundled network."""

    def __init__(self, device: str, folder: Path = MODELS / "pose") -> None:
        self.device = torch_device(device)
        self.network = _network(folder, self.device)

    def __call__(self, image: Bytes) -> Floats:
        """Return the people (n, 18, 3) in an RGB image (H, W, 3): x px, y px, confidence."""
        inputs, height, width = _fit(image, self.network)
        maps = _predict(self.network, inputs, self.device)[:, : -(-height // CELL), : -(-width // CELL)]
        joints = len(JOINTS)
        votes = maps[joints:].reshape(joints, 2, *maps.shape[1:]) * VOTE_UNIT
        people = people_from_maps(maps[:joints].sigmoid().numpy(), votes.numpy())
        scale = (image.shape[1] / width, image.shape[0] / height)
        people[..., :2] = (people[..., :2] + 0.5) * CELL * scale - 0.5
        return people


def _network(folder: Path, device: torch.device) -> MapNet:
    """Load a network, or return the instance that is already in use."""
    with _LOADING:
        network = _NETWORKS.get((folder, device)) or MapNet.load(folder).to(device)
        _NETWORKS[folder, device] = network
    return network


def _fit(image: Bytes, network: MapNet) -> tuple[Bytes, int, int]:
    """Resize an image to the network's height and pad it; return it with its unpadded height and width."""
    scale = network.config.height / min(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    bottom, right = (-height % network.multiple), (-width % network.multiple)
    padded = cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return padded.astype(np.uint8), height, width


@torch.inference_mode()
def _predict(network: MapNet, image: Bytes, device: torch.device) -> torch.Tensor:
    """Return the raw maps (channels, h, w) of an RGB image, on the CPU."""
    batch = torch.from_numpy(image).to(device).permute(2, 0, 1)[None] / 255
    maps: torch.Tensor = network(batch)[0].float().cpu()
    return maps
