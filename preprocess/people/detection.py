"""People in wide images: looked for in every view of the image, and each counted once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.people.skeleton import JOINTS
from synccontrol.preprocess.wide.views import Sight, View, views, wrapped

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Finder = Callable[[Bytes], Floats]  # picture (H, W, 3) to boxes (n, 4): left, top, right, bottom, px

SAME_BOX = 0.45  # intersection over union from which two boxes hold one person; YOLOX's own
INSIDE = 0.7  # share of a cut person's box that lies in the box of the whole person


def boxes_in_views(find: Finder, sight: Sight) -> Finder:
    """Returns the finder that looks at every view of a picture with `find`, of the given sight."""

    def find_all(picture: Bytes) -> Floats:
        height, width = picture.shape[:2]
        boxes: list[Floats] = []
        cut: list[bool] = []
        for view in reversed(views(height, width, sight)):  # the smallest first: they place a box best
            found = np.asarray(find(view.crop(picture)), np.float32).reshape(-1, 4)
            boxes += list(found + np.array([view.left, view.top] * 2, np.float32))
            cut += [view.cuts(box, height, width) for box in boxes[len(cut) :]]
        return merge_boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(cut, bool))

    return find_all


def merge_boxes(boxes: Floats, cut: npt.NDArray[np.bool_]) -> Floats:
    """Returns the boxes (n, 4) without those of a person who has a better one.

    Boxes of whole people come first, in the order given; one is dropped where another, kept before, covers nearly the
    same. Of people whom the border of their view may have cut the larger come first; one is dropped where it lies
    mostly inside another that was kept: a child in front of its parent is whole in some view, and stays. A box narrower
    than a pixel, as the last joint at a border leaves it, holds nobody.

    Args:
        boxes: Left, top, right, bottom, px.
        cut: (n,) which of them touch a border of the view they were found in.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    area, seen = np.prod(sides, axis=1), (sides >= 1).all(axis=1)
    whole, parts = np.flatnonzero(seen & ~cut), np.flatnonzero(seen & cut)
    kept: list[int] = []
    for index in [*whole, *parts[np.argsort(-area[parts], kind="stable")]]:
        shared = _shared(boxes[index], boxes[kept])
        over_union = shared / (area[kept] + area[index] - shared)
        inside = shared / area[index] if cut[index] else np.zeros_like(shared)
        if (over_union < SAME_BOX).all() and (inside < INSIDE).all():
            kept.append(int(index))
    return boxes[kept]


def _shared(box: Floats, others: Floats) -> Floats:
    """Returns the area (n,) that a box (4,) shares with each of the others (n, 4), px²."""
    near, far = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    area: Floats = np.prod(np.clip(far - near, 0, None), axis=1)
    return area


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
