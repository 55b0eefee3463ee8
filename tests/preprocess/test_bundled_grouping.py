"""Grouping heatmaps and votes of known people."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.estimators.bundled import find_peaks, people_from_maps
from preprocess.people.skeleton import JOINTS, NECK

SPREAD = 1.5  # cells


def person(x: float, y: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """Return joints (18, 3) around a neck at (x, y)."""
    joints = np.ones((18, 3), np.float32)
    joints[:, 0] = x + size * rng.uniform(-0.4, 0.4, 18)
    joints[:, 1] = y + size * rng.uniform(-0.2, 0.8, 18)
    joints[NECK, :2] = x, y
    return joints


def maps(people: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return heatmaps (18, h, w) with a bump at every joint, and the votes (18, 2, h, w) of the nearest person."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    heatmaps = np.zeros((18, height, width), np.float32)
    votes = np.zeros((18, 2, height, width), np.float32)
    for joints in people:
        for joint, (x, y, confidence) in enumerate(joints):
            bump = confidence * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * SPREAD**2))
            nearest = bump > heatmaps[joint]
            votes[joint, 0][nearest] = (joints[NECK, 0] - columns)[nearest]
            votes[joint, 1][nearest] = (joints[NECK, 1] - rows)[nearest]
            heatmaps[joint] = np.maximum(heatmaps[joint], bump)
    return heatmaps.astype(np.float32), votes


@pytest.mark.parametrize("seed", range(5))
def test_known_people_are_restored(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.stack([person(30 + 45 * index, 40 + rng.uniform(-8, 8), 50, rng) for index in range(4)])
    people = people_from_maps(*maps(truth, 100, 200))
    people = people[np.argsort(people[:, NECK, 0])]
    assert people.shape == truth.shape
    assert np.abs(people[..., :2] - truth[..., :2]).max() < 0.3
    assert people[..., 2].min() > 0.5


def test_absent_joints_stay_absent() -> None:
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    hidden = [JOINTS.index("left wrist"), JOINTS.index("right ankle")]
    truth[0, hidden, 2] = 0
    people = people_from_maps(*maps(truth, 100, 100))
    assert np.flatnonzero(people[0, :, 2] == 0).tolist() == sorted(hidden)


def test_joints_far_from_every_person_are_dropped() -> None:
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    heatmaps, votes = maps(truth, 100, 160)
    wrist = JOINTS.index("left wrist")
    stray = maps(truth + np.float32([90, 0, 0]), 100, 160)
    heatmaps[wrist] = stray[0][wrist]
    votes[wrist] = stray[1][wrist]
    people = people_from_maps(heatmaps, votes)
    assert len(people) == 1 and people[0, wrist, 2] == 0


def test_too_few_joints_are_no_person() -> None:
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    truth[0, 4:, 2] = 0
    assert len(people_from_maps(*maps(truth, 100, 100))) == 0


def test_empty_maps_give_no_people() -> None:
    people = people_from_maps(np.zeros((18, 20, 30), np.float32), np.zeros((18, 2, 20, 30), np.float32))
    assert people.shape == (0, 18, 3)


def test_peaks_have_subcell_positions_and_plateaus_are_one_peak() -> None:
    rows, columns = np.mgrid[:40, :60].astype(np.float32)
    heatmap = np.exp(-((rows - 17.4) ** 2 + (columns - 30.7) ** 2) / (2 * SPREAD**2)).astype(np.float32)
    (peak,) = find_peaks(heatmap, 0.3, 2)
    assert peak[:2] == pytest.approx([30.7, 17.4], abs=0.1)
    flat = np.zeros((20, 20), np.float32)
    flat[5:7, 5:7] = 0.9
    assert len(find_peaks(flat, 0.3, 2)) == 1
    flat[0, 0] = flat[19, 19] = 0.8
    assert find_peaks(flat, 0.3, 2)[:, 2] == pytest.approx([0.9, 0.8, 0.8])


def test_peaks_at_the_border_stay_inside() -> None:
    rows, columns = np.mgrid[:20, :30].astype(np.float32)
    for x, y in ((29, 19), (0, 0), (29, 7), (12, 19)):
        heatmap = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * SPREAD**2)).astype(np.float32)
        (peak,) = find_peaks(heatmap, 0.3, 2)
        assert peak[:2] == pytest.approx([x, y], abs=0.1)
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    truth[0, 4, :2] = 99, 60  # a wrist in the last column
    people = people_from_maps(*maps(truth, 100, 100))
    assert people[0, 4, :2] == pytest.approx([99, 60], abs=0.3)
