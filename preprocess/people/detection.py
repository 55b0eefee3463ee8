"""Detect people in wide images: search every view of the image, and merge duplicates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.people.skeleton import JOINTS
from synccontrol.preprocess.wide.views import Sight, View, views, wrap_ring

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Finder = Callable[[Bytes], Floats]  # image (H, W, 3) to boxes (n, 4): left, top, right, bottom, px

SAME_BOX = 0.45  # intersection over union from which two boxes are one person; the value of YOLOX
INSIDE = 0.7  # share of a cropped box inside another box, from which it is the same person


def boxes_in_views(find: Finder, sight: Sight) -> Finder:
    """Return a finder that applies `find` to every view of an image and merges the boxes."""

    def find_all(image: Bytes) -> Floats:
        height, width = image.shape[:2]
        boxes: list[Floats] = []
        cut: list[bool] = []
        for view in reversed(
            views(height, width, sight)
        ):  # the smallest first, because their boxes are the most precise
            view_boxes = np.asarray(find(view.crop(image)), np.float32).reshape(-1, 4)
            boxes += list(view_boxes + np.array([view.left, view.top] * 2, np.float32))
            cut += [view.cuts(box, height, width) for box in boxes[len(cut) :]]
        return merge_boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(cut, bool))

    return find_all


def merge_boxes(boxes: Floats, cut: npt.NDArray[np.bool_]) -> Floats:
    """Return the boxes (n, 4) with one box per person.

    Uncut boxes come first, in their order; a box is dropped if it nearly equals an accepted one. Boxes that the border
    of a view may cut follow, the largest first; a box is dropped if most of it lies inside an accepted one. A child in
    front of its parent is uncut in some view, and stays. Boxes narrower than a pixel are dropped: they come from a
    single joint at a border.

    Args:
        boxes: left, top, right, bottom, px.
        cut: (n,) whether a box touches a border of its view.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    area, is_valid = np.prod(sides, axis=1), (sides >= 1).all(axis=1)
    uncut, cropped = np.flatnonzero(is_valid & ~cut), np.flatnonzero(is_valid & cut)
    accepted: list[int] = []
    for index in [*uncut, *cropped[np.argsort(-area[cropped], kind="stable")]]:
        shared = _intersection(boxes[index], boxes[accepted])
        over_union = shared / (area[accepted] + area[index] - shared)
        covered = shared / area[index] if cut[index] else np.zeros_like(shared)
        if (over_union < SAME_BOX).all() and (covered < INSIDE).all():
            accepted.append(int(index))
    return boxes[accepted]


def _intersection(box: Floats, others: Floats) -> Floats:
    """Return the area (n,) of the intersection of a box (4,) with each of the others (n, 4), px²."""
    near, far = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    area: Floats = np.prod(np.clip(far - near, 0, None), axis=1)
    return area


Estimator = Callable[[Bytes], Floats]  # RGB image (H, W, 3) to people (n, 18, 3): x px, y px, confidence

SAME = 0.3  # similarity from which two skeletons are one person; it is nearly 0 for people side by side
SIGMAS = {
    "nose": 0.026, "neck": 0.079, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072,
    "wrist": 0.062, "hip": 0.107, "knee": 0.087, "ankle": 0.089,
}  # of COCO; the neck has the value of a shoulder  # fmt: skip
FALLOFF = np.array([2 * SIGMAS[name.split()[-1]] for name in JOINTS], np.float32)
FILLED = 0.53  # area of a person, as a share of the box around the joints


def similarity(person: Floats, others: Floats) -> Floats:
    """Return the similarity (n,) of a skeleton (18, 3) to each of the others (n, 18, 3), in 0..1.

    This is COCO's object keypoint similarity (cocodataset.org/#keypoints-eval) over the common joints, with the area of
    the larger person; it is 0 without common joints.
    """
    common = (person[:, 2] > 0) & (others[..., 2] > 0)
    area = np.maximum(np.maximum(_area(person[None]), _area(others)), 1.0)
    distance = ((person[:, :2] - others[..., :2]) ** 2).sum(axis=2)
    similarities = np.exp(-distance / (2 * area[:, None] * FALLOFF**2)) * common
    means: Floats = similarities.sum(axis=1) / np.maximum(common.sum(axis=1), 1)
    return means


def _area(people: Floats) -> Floats:
    """Return the area (n,) of people (n, 18, 3), px²; 0 for people without joints."""
    present = people[..., 2:] > 0
    low = np.where(present, people[..., :2], np.inf).min(axis=1)
    high = np.where(present, people[..., :2], -np.inf).max(axis=1)
    area: Floats = FILLED * np.clip(high - low, 0, None).prod(axis=1)
    return area


def merge(people: Floats, period: int | None = None) -> Floats:
    """Merge similar skeletons in `people` (n, 18, 3): the one with the highest sum of confidences stays.

    Two people who stand close together, or one in front of the other, stay two.

    Args:
        people: x px, y px and confidence, 0 for absent joints.
        period: width of a 360-degree ring, px; x and x + period are the same position.
    """
    offsets = [np.array([offset, 0, 0], np.float32) for offset in ((-period, 0, period) if period else (0,))]
    accepted: list[int] = []
    for index in np.argsort(-people[..., 2].sum(axis=1), kind="stable"):
        if all((similarity(people[index] + offset, people[accepted]) < SAME).all() for offset in offsets):
            accepted.append(int(index))
    return people[accepted]


def in_views(estimate: Estimator, sight: Sight) -> Estimator:
    """Return an estimator that applies `estimate` to every view of an image and merges the people."""

    def estimate_all(image: Bytes) -> Floats:
        all_views = views(image.shape[0], image.shape[1], sight)
        return merge(np.concatenate([_estimate_view(estimate, image, view) for view in all_views]))

    return estimate_all


def on_ring(estimate: Estimator) -> Estimator:
    """Return an estimator for 360-degree rings, images whose left and right edges continue each other.

    A person across the seam is one person, whose centre lies inside the image; x may exceed the edges.
    """

    def estimate_ring(image: Bytes) -> Floats:
        margin, width = min(image.shape[:2]), image.shape[1]
        people = estimate(wrap_ring(image, margin)).copy()
        people[..., 0] -= margin
        for person in people:
            present = person[:, 2] > 0
            center = person[present, 0].mean() if present.any() else 0
            person[:, 0] -= width * np.floor(center / width)
        return merge(people, period=width)

    return estimate_ring


def _estimate_view(estimate: Estimator, image: Bytes, view: View) -> Floats:
    """Return the people (n, 18, 3) in a view, in px of the image."""
    people = estimate(view.crop(image)).copy()
    people[..., :2] += (view.left, view.top)
    return people
