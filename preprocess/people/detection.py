"""People in wide pictures: looked for in every view of the picture, and each counted once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from preprocess.people.skeleton import JOINTS
from preprocess.wide.views import Sight, View, views, wrapped

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Estimator = Callable[[Bytes], Floats]  # RGB picture (H, W, 3) to people (n, 18, 3): x px, y px, confidence

SAME = 0.3  # similarity from which two skeletons are one person; of people side by side it is nearly 0
SIGMAS = {
    "nose": 0.026, "neck": 0.079, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072,
    "wrist": 0.062, "hip": 0.107, "knee": 0.087, "ankle": 0.089,
}  # COCO's, the neck as a shoulder  # fmt: skip
FALLOFF = np.array([2 * SIGMAS[name.split()[-1]] for name in JOINTS], np.float32)
FILLED = 0.53  # of the box around a person's joints: what stands for the area that the person covers


def similarity(person: Floats, others: Floats) -> Floats:
    """Returns how alike a skeleton (18, 3) lies to each of others (n, 18, 3): (n,) in 0..1, over the joints both have.

    COCO's object keypoint similarity (cocodataset.org/#keypoints-eval), with the area of the larger of the two; 0
    where no joint is shared.
    """
    both = (person[:, 2] > 0) & (others[..., 2] > 0)
    area = np.maximum(np.maximum(_area(person[None]), _area(others)), 1.0)
    apart = ((person[:, :2] - others[..., :2]) ** 2).sum(axis=2)
    alike = np.exp(-apart / (2 * area[:, None] * FALLOFF**2)) * both
    means: Floats = alike.sum(axis=1) / np.maximum(both.sum(axis=1), 1)
    return means


def _area(people: Floats) -> Floats:
    """Returns the area (n,) that people (n, 18, 3) cover, px²; 0 for those without a joint."""
    present = people[..., 2:] > 0
    low = np.where(present, people[..., :2], np.inf).min(axis=1)
    high = np.where(present, people[..., :2], -np.inf).max(axis=1)
    area: Floats = FILLED * np.clip(high - low, 0, None).prod(axis=1)
    return area


def merge(people: Floats, period: int | None = None) -> Floats:
    """Returns each of `people` (n, 18, 3) once: of skeletons that lie alike, the one with most joints.

    Joints count by their confidence. Two people who stand close, or one before the other, are two.

    Args:
        people: x px, y px and confidence, 0 for joints that were not found.
        period: Width of a ring, px: there, x and x + period are one place.
    """
    turns = [np.array([turn, 0, 0], np.float32) for turn in ((-period, 0, period) if period else (0,))]
    kept: list[int] = []
    for index in np.argsort(-people[..., 2].sum(axis=1), kind="stable"):
        if all((similarity(people[index] + turn, people[kept]) < SAME).all() for turn in turns):
            kept.append(int(index))
    return people[kept]


def in_views(estimate: Estimator, sight: Sight) -> Estimator:
    """Returns the estimator that looks at every view of a picture with `estimate`, of the given sight."""

    def estimate_all(picture: Bytes) -> Floats:
        looks = views(picture.shape[0], picture.shape[1], sight)
        return merge(np.concatenate([_seen(estimate, picture, view) for view in looks]))

    return estimate_all


def on_ring(estimate: Estimator) -> Estimator:
    """Returns the estimator of people on rings, pictures whose left and right edges continue each other.

    Who stands across the join is one person: x may go on beyond either edge, the middle lies within the picture.
    """

    def estimate_ring(picture: Bytes) -> Floats:
        margin, width = min(picture.shape[:2]), picture.shape[1]
        people = estimate(wrapped(picture, margin)).copy()
        people[..., 0] -= margin
        for person in people:
            present = person[:, 2] > 0
            middle = person[present, 0].mean() if present.any() else 0
            person[:, 0] -= width * np.floor(middle / width)
        return merge(people, period=width)

    return estimate_ring


def _seen(estimate: Estimator, picture: Bytes, view: View) -> Floats:
    """Returns the people (n, 18, 3) that `estimate` sees in a view, px of the picture."""
    people = estimate(view.crop(picture)).copy()
    people[..., :2] += (view.left, view.top)
    return people
