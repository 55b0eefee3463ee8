"""From planted heatmaps and votes back to people."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.estimators.bundled import find_peaks, people_from_maps
from preprocess.people.skeleton import JOINTS, NECK

SPREAD = 1.5  # cells


def person(x: float, y: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """Returns joints (18, 3) scattered around a neck at (x, y)."""
    joints = np.ones((18, 3), np.float32)
    joints[:, 0] = x + size * rng.uniform(-0.4, 0.4, 18)
    joints[:, 1] = y + size * rng.uniform(-0.2, 0.8, 18)
    joints[NECK, :2] = x, y
    return joints


def maps(people: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns heatmaps (18, h, w) with a bump at every joint, and the votes (18, 2, h, w) of the nearest person."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    heatmaps = np.zeros((18, height, width), np.float32)
    votes = np.zeros((18, 2, height, width), np.float32)
    for joints in people:
        for joint, (x, y, seen) in enumerate(joints):
            bump = seen * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * SPREAD**2))
            nearest = bump > heatmaps[joint]
            votes[joint, 0][nearest] = (joints[NECK, 0] - columns)[nearest]
            votes[joint, 1][nearest] = (joints[NECK, 1] - rows)[nearest]
            heatmaps[joint] = np.maximum(heatmaps[joint], bump)
    return heatmaps.astype(np.float32), votes


@pytest.mark.parametrize("seed", range(5))
def test_planted_people_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.stack([person(30 + 45 * index, 40 + rng.uniform(-8, 8), 50, rng) for index in range(4)])
    found = people_from_maps(*maps(truth, 100, 200))
    found = found[np.argsort(found[:, NECK, 0])]
    assert found.shape == truth.shape
    assert np.abs(found[..., :2] - truth[..., :2]).max() < 0.3
    assert found[..., 2].min() > 0.5


def test_absent_joints_stay_absent() -> None:
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    hidden = [JOINTS.index("left wrist"), JOINTS.index("right ankle")]
    truth[0, hidden, 2] = 0
    found = people_from_maps(*maps(truth, 100, 100))
    assert np.flatnonzero(found[0, :, 2] == 0).tolist() == sorted(hidden)


def test_joints_without_a_person_near_are_dropped() -> None:
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    heatmaps, votes = maps(truth, 100, 160)
    wrist = JOINTS.index("left wrist")
    stray = maps(truth + np.float32([90, 0, 0]), 100, 160)
    heatmaps[wrist] = stray[0][wrist]
    votes[wrist] = stray[1][wrist]
    found = people_from_maps(heatmaps, votes)
    assert len(found) == 1 and found[0, wrist, 2] == 0


def test_fewer_joints_than_a_person_has_are_nobody() -> None:
    truth = person(50, 40, 40, np.random.default_rng(0))[None]
    truth[0, 4:, 2] = 0
    assert len(people_from_maps(*maps(truth, 100, 100))) == 0


def test_nothing_gives_nobody() -> None:
    found = people_from_maps(np.zeros((18, 20, 30), np.float32), np.zeros((18, 2, 20, 30), np.float32))
    assert found.shape == (0, 18, 3)


def test_peaks_are_found_between_cells_and_once_on_plateaus() -> None:
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
    found = people_from_maps(*maps(truth, 100, 100))
    assert found[0, 4, :2] == pytest.approx([99, 60], abs=0.3)
