"""The detectors that come with the package: small networks trained on rendered landscapes, for use without network."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import cv2
import numpy as np
import numpy.typing as npt
import torch

from preprocess.estimators.device import torch_device
from preprocess.estimators.grouping import people_from_maps
from preprocess.estimators.network import MapNet
from preprocess.people.skeleton import JOINTS

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

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
