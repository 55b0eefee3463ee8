"""From joint heatmaps to people: peaks, and votes of every joint for its person's neck (after PersonLab, 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from preprocess.people.skeleton import JOINTS, NECK

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
