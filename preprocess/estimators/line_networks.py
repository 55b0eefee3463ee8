"""Edge and line networks of controlnet_aux, applied at the full size of the image.

Only the networks come from the package. Its detectors round both sides to multiples of 64, and its detector of
straight lines returns a black image for every error. The package scales a whole image to 512 px, about the size of one
window of a ControlNet. So a wide image must not be scaled down for the network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from synccontrol.preprocess.estimators.checkpoints import Source, torch_device

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Forward = Callable[[torch.Tensor], torch.Tensor]  # RGB (1, 3, h, w) in 0..255 -> line strength (1, 1, h, w) in 0..1

LINES = 200  # largest number of straight lines ...
LINES_AREA = 512 * 512  # ... per this number of pixels
LINE_SCORE = 0.1  # smallest probability of a straight line
PEAK = 3  # cells; side of the square in which the midpoint of a straight line is the maximum
MLSD_STEP = 64  # px; both sides must be multiples
MLSD_CELL = 2  # px of the image per cell of the maps


def edges(name: str, source: Source) -> Callable[[Bytes], Floats]:
    """Return an edge or line network as a function from an RGB image to line strength 0..1.

    Args:
        name: `hed` (ControlNet's own HED), `pidi` (PiDiNet, arXiv 2108.07009), `teed` (TEED, arXiv 2308.06468),
            `realistic`, `coarse` (line drawings, arXiv 2203.12691) or `anime` (the anime lines of ControlNet).
        source: the source of its weights.

    Raises:
        DetectorError: the weights, the package or the device are not available.
    """
    build, step = EDGES[name]
    forward, device = build(source, name), torch_device(source.runtime.device)

    @torch.inference_mode()
    def estimate(image: Bytes) -> Floats:
        height, width = image.shape[:2]
        strength: Floats = forward(batch(image, step, device))[0, 0, :height, :width].cpu().numpy()
        return strength

    return estimate


def straight_lines(source: Source) -> Callable[[Bytes], Floats]:
    """Return M-LSD (arXiv 2106.00186) as a function from an RGB image to lines (n, 4): x0, y0, x1, y1 px.

    Raises:
        DetectorError: the weights, the package or the device are not available.
    """

    def build() -> Any:
        from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large

        return MobileV2_MLSD_Large()

    network, device = source.network("mlsd", build), torch_device(source.runtime.device)

    @torch.inference_mode()
    def estimate(image: Bytes) -> Floats:
        colours = batch(image, MLSD_STEP, device)
        maps = network(torch.cat([colours, torch.ones_like(colours[:, :1])], dim=1) / 127.5 - 1)[0]
        count = round(LINES * image.shape[0] * image.shape[1] / LINES_AREA)
        return decode_lines(maps[0].sigmoid(), maps[1:5], max(count, 1)) * MLSD_CELL

    return estimate


def decode_lines(midpoints: torch.Tensor, ends: torch.Tensor, count: int) -> Floats:
    """Decode the maps of M-LSD to lines (n, 4): x0, y0, x1, y1 in cells.

    Args:
        midpoints: (h, w), the probability of the midpoint of a line.
        ends: (4, h, w), from the midpoint of a line to its ends: x, y, x, y in cells.
        count: the largest number of lines, the most probable first.
    """
    peaks = functional.max_pool2d(midpoints[None], PEAK, stride=1, padding=PEAK // 2)[0] == midpoints
    scores, cells = (midpoints * peaks).flatten().topk(min(count, midpoints.numel()))
    cells = cells[scores > LINE_SCORE]
    x, y = cells % midpoints.shape[1], cells // midpoints.shape[1]
    lines: Floats = (ends[:, y, x] + torch.stack([x, y, x, y])).T.cpu().numpy()
    return lines


def batch(image: Bytes, step: int, device: torch.device) -> torch.Tensor:
    """Return an RGB image as (1, 3, h, w) in 0..255, padded by reflection to multiples of `step`."""
    bottom, right = (-side % step for side in image.shape[:2])
    padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return torch.from_numpy(padded).to(device).float().permute(2, 0, 1)[None]


def _hed(source: Source, name: str) -> Forward:
    def build() -> Any:
        from controlnet_aux.hed import ControlNetHED_Apache2

        return ControlNetHED_Apache2()

    return _average_sides(source.network(name, build))


def _teed(source: Source, name: str) -> Forward:
    def build() -> Any:
        from controlnet_aux.teed.ted import TED

        return TED()

    return _average_sides(source.network(name, build))


def _average_sides(network: torch.nn.Module) -> Forward:
    """Return a function for the sigmoid of the mean of a network's side outputs, each resized to the image."""

    def forward(colours: torch.Tensor) -> torch.Tensor:
        sides = [functional.interpolate(side, colours.shape[2:], mode="bilinear") for side in network(colours)]
        return torch.cat(sides, dim=1).mean(dim=1, keepdim=True).sigmoid()

    return forward


def _pidi(source: Source, name: str) -> Forward:
    def build() -> Any:
        from controlnet_aux.pidi.model import pidinet

        return pidinet()

    network = source.network(name, build, key="state_dict")
    return lambda colours: network(colours.flip(1) / 255)[-1]  # the network was trained on BGR


def _drawing(source: Source, name: str) -> Forward:
    """Return a network for realistic drawings with its output inverted, because it draws dark (0) on white (1)."""

    def build() -> Any:
        from controlnet_aux.lineart import Generator

        return Generator(3, 1, 3)

    network = source.network(name, build)
    return lambda colours: 1 - network(colours / 255)


def _anime(source: Source, name: str) -> Forward:
    """Return the network for anime drawings with its output inverted, because it draws dark (-1) on white (1)."""

    def build() -> Any:
        from controlnet_aux.lineart_anime import UnetGenerator

        norm = partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
        return UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)

    network = source.network(name, build)
    return lambda colours: (1 - network(colours / 127.5 - 1)) / 2


EDGES: dict[
    str, tuple[Callable[[Source, str], Forward], int]
] = {  # with the number of px that both sides must be a multiple of
    "hed": (_hed, 16),
    "pidi": (_pidi, 8),
    "teed": (_teed, 8),
    "realistic": (_drawing, 4),
    "coarse": (_drawing, 4),
    "anime": (_anime, 256),
}
