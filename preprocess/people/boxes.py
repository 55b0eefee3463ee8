"""Boxes around people in wide pictures: looked for in every view of the picture, and each person boxed once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from preprocess.wide.views import Sight, views

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Finder = Callable[[Bytes], Floats]  # picture (H, W, 3) to boxes (n, 4): left, top, right, bottom, px

SAME = 0.45  # intersection over union from which two boxes hold one person; YOLOX's own
INSIDE = 0.7  # share of a cut person's box that lies in the box of the whole person


def in_views(find: Finder, sight: Sight) -> Finder:
    """Returns the finder that looks at every view of a picture with `find`, of the given sight."""

    def find_all(picture: Bytes) -> Floats:
        height, width = picture.shape[:2]
        boxes: list[Floats] = []
        cut: list[bool] = []
        for view in reversed(views(height, width, sight)):  # the smallest first: they place a box best
            found = np.asarray(find(view.crop(picture)), np.float32).reshape(-1, 4)
            boxes += list(found + np.array([view.left, view.top] * 2, np.float32))
            cut += [view.cuts(box, height, width) for box in boxes[len(cut) :]]
        return merge(np.array(boxes, np.float32).reshape(-1, 4), np.array(cut, bool))

    return find_all


def merge(boxes: Floats, cut: npt.NDArray[np.bool_]) -> Floats:
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
        if (over_union < SAME).all() and (inside < INSIDE).all():
            kept.append(int(index))
    return boxes[kept]


def _shared(box: Floats, others: Floats) -> Floats:
    """Returns the area (n,) that a box (4,) shares with each of the others (n, 4), px²."""
    near, far = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    area: Floats = np.prod(np.clip(far - near, 0, None), axis=1)
    return area
