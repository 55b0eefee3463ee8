"""Keypoints: how near people are to wanted ones. They are (n, 18, 3): x px, y px, confidence, in OpenPose's order."""

import numpy as np
import numpy.typing as npt

from preprocess.people.detection import FALLOFF, FILLED

Floats = npt.NDArray[np.float32]

PCK_SHARE = 0.1  # of a person's height: how far off a joint may be found


def similarities(found: Floats, wanted: Floats) -> Floats:
    """Returns the object keypoint similarity 0..1 of every wanted person to every found one, (wanted, found).

    COCO's OKS (cocodataset.org/#keypoints-eval) over the joints that are wanted; a joint that was not found counts 0.
    The area is 0.53 of the box of the wanted joints, the neck falls off as a shoulder.
    """
    table = np.zeros((len(wanted), len(found)), np.float32)
    for i, person in enumerate(wanted):
        visible = person[:, 2] > 0
        area = FILLED * float(np.prod(np.ptp(person[visible, :2], axis=0))) + np.finfo(np.float32).eps
        for j, other in enumerate(found):
            apart = ((person[visible, :2] - other[visible, :2]) ** 2).sum(axis=1)
            near = np.exp(-apart / (2 * area * FALLOFF[visible] ** 2))
            table[i, j] = (near * (other[visible, 2] > 0)).mean()
    return table


def matches(table: Floats) -> dict[int, int]:
    """Returns which column each row of a table (m, n) of similarities is matched with, the most similar pairs first."""
    matched: dict[int, int] = {}
    for flat in np.argsort(-table, axis=None, kind="stable"):
        row, column = (int(index) for index in np.unravel_index(flat, table.shape))
        if row not in matched and column not in matched.values():
            matched[row] = column
    return matched


def oks(found: Floats, wanted: Floats) -> float:
    """Returns the mean OKS 0..1 of wanted people (m, 18, 3) to the found ones they match; nan where none is wanted."""
    table = similarities(found, wanted)
    return float(sum(table[pair] for pair in matches(table).items()) / len(wanted)) if len(wanted) else np.nan


def pck(found: Floats, wanted: Floats, share: float = PCK_SHARE) -> float:
    """Returns the share of wanted joints that the matching found person has within `share` of the person's height; nan
    where none is wanted. A person's height is that of their visible joints (PCK, Yang and Ramanan, 2013)."""
    matched = matches(similarities(found, wanted))
    hits: list[bool] = []
    for i, person in enumerate(wanted):
        visible = person[:, 2] > 0
        reach = share * float(np.ptp(person[visible, 1]))
        other = found[matched[i]] if i in matched else np.full_like(person, np.nan)
        away = np.linalg.norm(other[visible, :2] - person[visible, :2], axis=1)
        hits += list((away <= reach) & (other[visible, 2] > 0))
    return float(np.mean(hits)) if hits else np.nan
