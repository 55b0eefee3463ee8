"""What the bundled detectors are asked for: sharp depth, and joints with votes for their neck."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from synccontrol.preprocess.estimators.bundled import CELL, VOTE_UNIT
from synccontrol.preprocess.people.skeleton import JOINTS, NECK

Floats = npt.NDArray[np.float32]

GRADIENT_SCALES = 3  # the picture, a half, a quarter
GRADIENT_WEIGHT = 1.0
SQUARE_WEIGHT = 20.0  # makes squares weigh about as much as the mean error: few cells that are far off count
SPREAD = 1.3  # cells; standard deviation of a joint's bump in its heatmap
NEAR = 0.3  # height of the bump above which a cell must vote
VOTE_WEIGHT = 1.0
FOCUS = 2  # the focal loss of CenterNet (Zhou et al., 2019), eq. 1: alpha ...
MERCY = 4  # ... and beta


def depth_loss(nearness: Tensor, truth: Tensor) -> Tensor:
    """Returns the mean error of (n, H, W) nearness in 0..1 and of its square, and that of its slopes at some scales."""
    loss = F.l1_loss(nearness, truth) + SQUARE_WEIGHT * F.mse_loss(nearness, truth)
    error = (nearness - truth)[:, None]
    for _ in range(GRADIENT_SCALES):
        loss = loss + GRADIENT_WEIGHT * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())
        error = F.avg_pool2d(error, 2)
    return loss


def pose_targets(people: list[Floats], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns heatmaps (n, 18, h, w), votes (n, 18, 2, h, w) in `VOTE_UNIT` cells, and where they count (n, 18, h, w).

    Args:
        people: For each picture (k, 18, 3) in its pixels; all their necks are present.
        height: Cells.
        width: Cells.
    """
    shape = (len(people), len(JOINTS), height, width)
    heatmaps, votes = np.zeros(shape, np.float32), np.zeros((*shape[:2], 2, *shape[2:]), np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    reach = int(np.ceil(3 * SPREAD))
    for index, group in enumerate(people):
        for person in group:
            cells = (person[:, :2] + 0.5) / CELL - 0.5
            for joint in np.flatnonzero(person[:, 2] > 0):
                x, y = np.rint(cells[joint]).astype(int).clip(0, (width - 1, height - 1))
                part = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                squared = (rows[part] - y) ** 2 + (columns[part] - x) ** 2
                bump = np.exp(-squared / (2 * SPREAD**2))
                higher = bump > heatmaps[index, joint][part]
                heatmaps[index, joint][part][higher] = bump[higher]
                votes[index, joint, 0][part][higher] = ((cells[NECK, 0] - columns[part]) / VOTE_UNIT)[higher]
                votes[index, joint, 1][part][higher] = ((cells[NECK, 1] - rows[part]) / VOTE_UNIT)[higher]
    near = (heatmaps > NEAR).astype(np.float32)
    return torch.from_numpy(heatmaps), torch.from_numpy(votes), torch.from_numpy(near)


def pose_loss(maps: Tensor, heatmaps: Tensor, votes: Tensor, near: Tensor) -> Tensor:
    """Returns the focal loss of the heatmaps, per joint present, plus the mean error of the votes near the joints."""
    joints = len(JOINTS)
    logits, voted = maps[:, :joints], maps[:, joints:].reshape(-1, joints, 2, *maps.shape[2:])
    probability = logits.sigmoid()
    present = heatmaps == 1
    found = (1 - probability) ** FOCUS * F.logsigmoid(logits)
    empty = (1 - heatmaps) ** MERCY * probability**FOCUS * F.logsigmoid(-logits)
    focal = -torch.where(present, found, empty).sum() / present.sum().clamp(min=1)
    missed = ((voted - votes).abs() * near[:, :, None]).sum() / near.sum().clamp(min=1)
    total: Tensor = focal + VOTE_WEIGHT * missed
    return total
