"""The networks of controlnet_aux that find edges and lines, run at the picture's own size.

Only the networks are taken from the package: its detectors round both sides to multiples of 64, and its detector of
straight lines turns every error into a black picture. A ControlNet sees one window of the map, of about the 512 px at
which the package looks at a whole picture; so a wide picture is not to be shrunk for the network.
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

LINES = 200  # straight lines looked for ...
LINES_AREA = 512 * 512  # ... in so many pixels
LINE_SCORE = 0.1  # probability from which a straight line counts
PEAK = 3  # cells: a straight line's middle is the most probable of so many by so many
MLSD_STEP = 64  # px: the picture's sides must be multiples of it
MLSD_CELL = 2  # pixels of the picture to a cell of its maps


def edges(name: str, source: Source) -> Callable[[Bytes], Floats]:
    """Returns a network that finds edges or draws lines, as a function from an RGB picture to line strength 0..1.

    Args:
        name: `hed` (ControlNet's own HED), `pidi` (PiDiNet, arXiv 2108.07009), `teed` (TEED, arXiv 2308.06468),
            `realistic`, `coarse` (the drawings of arXiv 2203.12691) or `anime` (those of ControlNet's anime lines).
        source: Where its weights are.

    Raises:
        DetectorError: The weights, the package or the device cannot be had.
    """
    build, step = EDGES[name]
    forward, device = build(source, name), torch_device(source.runtime.device)

    @torch.inference_mode()
    def estimate(picture: Bytes) -> Floats:
        height, width = picture.shape[:2]
        found: Floats = forward(batch(picture, step, device))[0, 0, :height, :width].cpu().numpy()
        return found

    return estimate


def straight_lines(source: Source) -> Callable[[Bytes], Floats]:
    """Returns M-LSD (arXiv 2106.00186) as a function from an RGB picture to lines (n, 4): x0, y0, x1, y1 px.

    Raises:
        DetectorError: The weights, the package or the device cannot be had.
    """

    def build() -> Any:
        from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large

        return MobileV2_MLSD_Large()

    network, device = source.network("mlsd", build), torch_device(source.runtime.device)

    @torch.inference_mode()
    def estimate(picture: Bytes) -> Floats:
        colours = batch(picture, MLSD_STEP, device)
        maps = network(torch.cat([colours, torch.ones_like(colours[:, :1])], dim=1) / 127.5 - 1)[0]
        count = round(LINES * picture.shape[0] * picture.shape[1] / LINES_AREA)
        return decoded(maps[0].sigmoid(), maps[1:5], max(count, 1)) * MLSD_CELL

    return estimate


def decoded(middles: torch.Tensor, ends: torch.Tensor, count: int) -> Floats:
    """Returns the lines (n, 4) that M-LSD's maps mean: x0, y0, x1, y1 in cells.

    Args:
        middles: (h, w), the probability that a line has its middle there.
        ends: (4, h, w), from a line's middle to its ends: x, y, x, y in cells.
        count: How many lines at most, the most probable first.
    """
    peaks = functional.max_pool2d(middles[None], PEAK, stride=1, padding=PEAK // 2)[0] == middles
    scores, cells = (middles * peaks).flatten().topk(min(count, middles.numel()))
    cells = cells[scores > LINE_SCORE]
    x, y = cells % middles.shape[1], cells // middles.shape[1]
    lines: Floats = (ends[:, y, x] + torch.stack([x, y, x, y])).T.cpu().numpy()
    return lines


def batch(picture: Bytes, step: int, device: torch.device) -> torch.Tensor:
    """Returns an RGB picture as (1, 3, h, w) in 0..255, mirrored at the right and below up to multiples of `step`."""
    bottom, right = (-side % step for side in picture.shape[:2])
    padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    return torch.from_numpy(padded).to(device).float().permute(2, 0, 1)[None]


def _hed(source: Source, name: str) -> Forward:
    def build() -> Any:
        from controlnet_aux.hed import ControlNetHED_Apache2

        return ControlNetHED_Apache2()

    return _averaged(source.network(name, build))


def _teed(source: Source, name: str) -> Forward:
    def build() -> Any:
        from controlnet_aux.teed.ted import TED

        return TED()

    return _averaged(source.network(name, build))


def _averaged(network: torch.nn.Module) -> Forward:
    """Returns the sigmoid of the mean of a network's side outputs, each enlarged to the picture's size."""

    def forward(colours: torch.Tensor) -> torch.Tensor:
        sides = [functional.interpolate(side, colours.shape[2:], mode="bilinear") for side in network(colours)]
        return torch.cat(sides, dim=1).mean(dim=1, keepdim=True).sigmoid()

    return forward


def _pidi(source: Source, name: str) -> Forward:
    def build() -> Any:
        from controlnet_aux.pidi.model import pidinet

        return pidinet()

    network = source.network(name, build, key="state_dict")
    return lambda colours: network(colours.flip(1) / 255)[-1]  # it was trained on BGR


def _drawing(source: Source, name: str) -> Forward:
    """Returns a network of realistic drawings, turned round: it draws dark (0) on white (1)."""

    def build() -> Any:
        from controlnet_aux.lineart import Generator

        return Generator(3, 1, 3)

    network = source.network(name, build)
    return lambda colours: 1 - network(colours / 255)


def _anime(source: Source, name: str) -> Forward:
    """Returns the network of anime drawings, turned round: it draws dark (-1) on white (1)."""

    def build() -> Any:
        from controlnet_aux.lineart_anime import UnetGenerator

        norm = partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
        return UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)

    network = source.network(name, build)
    return lambda colours: (1 - network(colours / 127.5 - 1)) / 2


EDGES: dict[str, tuple[Callable[[Source, str], Forward], int]] = {  # and the multiple that both sides must be, px
    "hed": (_hed, 16),
    "pidi": (_pidi, 8),
    "teed": (_teed, 8),
    "realistic": (_drawing, 4),
    "coarse": (_drawing, 4),
    "anime": (_anime, 256),
}
