"""Keypoints: how near people are to wanted ones. They are (n, 18, 3): x px, y px, confidence, in OpenPose's order."""

import dataclasses
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt
import torch

from synccontrol.errors import ModelError
from synccontrol.evaluate.dataset import Array, Gallery, Pair, guide_files, read_pairs, wanted_controls
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, summary
from synccontrol.preprocess.people.detection import FALLOFF, FILLED

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


Mask = npt.NDArray[np.bool_]

GREY = 128  # from which a pixel of an edge map is an edge
SOFT_EDGES = ("softedge", "hed", "lineart")  # control types whose maps are compared by SSIM, as ControlNet++ does
REREAD = "arXiv 2404.07987 (ControlNet++), section 4.1, the map read off the output again; "


def edge_f1(found: Mask, wanted: Mask, tolerance: int) -> float:
    """Returns the F1 0..1 of found edges (H, W) against wanted ones; 1 where both have none.

    An edge pixel is right when the other map has one at most `tolerance` px away, across and along.
    """
    if not found.any() and not wanted.any():
        return 1.0
    kernel = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8)

    def near(mask: Mask) -> Mask:
        return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)

    precision = (found & near(wanted)).sum() / max(1, found.sum())
    recall = (wanted & near(found)).sum() / max(1, wanted.sum())
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def depth_rmse(found: Array, wanted: Array) -> float:
    """Returns the root mean square difference of two maps (H, W), in their unit."""
    return float(np.sqrt(np.mean((found.astype(np.float64) - wanted) ** 2)))


def fitted(found: Array, wanted: Array) -> Array:
    """Returns a * found + b with the a and b that bring it nearest to `wanted`, least squares; flat maps get a = 0."""
    x, y = found.astype(np.float64), wanted.astype(np.float64)
    spread = x.var()
    a = ((x - x.mean()) * (y - y.mean())).mean() / spread if spread > 0 else 0.0
    return np.asarray(a * (x - x.mean()) + y.mean(), np.float32)


def ssim(found: Array, wanted: Array) -> float:
    """Returns the structural similarity -1..1 of two maps (H, W) in 0..255 (Wang et al., 2004), by torchmetrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = (torch.from_numpy(map_)[None, None] for map_ in (found, wanted))
    return float(torch.as_tensor(structural_similarity_index_measure(one, other, data_range=255.0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """One figure of control."""

    metric: str
    compare: Callable[[Array, Array], float]  # found, wanted
    better: str
    what: str
    source: str


def judges(control: str, settings: Settings) -> list[Judge]:
    """Returns the figures of a control type; none for a type that there is no measure for."""
    px = settings.tolerance

    def edges(found: Array, wanted: Array) -> float:
        return edge_f1(found >= GREY, wanted >= GREY, px)

    table: dict[str, list[tuple[str, Callable[[Array, Array], float], str, str, str]]] = {
        "canny": [
            (f"canny F1 ({px} px)", edges, "higher", "How many edges of the guide are there, and no others", "F1")
        ],
        "depth": [
            ("depth RMSE", depth_rmse, "lower", "How far the depth is from the guide's, 0..255", "RMSE"),
            (
                "depth RMSE, fitted",
                lambda found, wanted: depth_rmse(fitted(found, wanted), wanted),
                "lower",
                "How far the depth is from the guide's, 0..255, after the best scale and shift",
                "RMSE after a least-squares scale and shift",
            ),
        ],
        "pose": [
            (f"pose PCK@{PCK_SHARE:g}", pck, "higher", "How many joints are where the guide's people have them", "PCK"),
            ("pose OKS", oks, "higher", "How well the people fit those of the guide", "COCO's keypoint similarity"),
        ],
    }
    soft = [(f"{control} SSIM", ssim, "higher", "How alike the soft edges are to the guide's", "SSIM")]
    rows = table.get(control, soft if control in SOFT_EDGES else [])
    return [
        Judge(metric=metric, compare=compare, better=better, what=f"{what}.", source=REREAD + source)
        for metric, compare, better, what, source in rows
    ]


def check(gallery: Gallery, settings: Settings) -> None:
    """Raises `InputError` or `ConfigError` as `guide_files`, before anything is measured."""
    if settings.guides is not None:
        guide_files(gallery, settings)


def measure(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Returns the figures of control, and those that cannot be had, with why.

    `bounds` holds each against the guide of another montage: what a montage scores that follows nothing.

    Montages without a guide, or with one of another aspect, are left out with the reason.

    Raises:
        InputError: no montage has a guide.
        ConfigError: as `wanted_controls` and `reader`.
    """
    if settings.guides is None:
        return [], [("control", "needs the guides: name their folder with --guides")]
    files, missing = guide_files(gallery, settings)
    measured: list[Measurement] = []
    skipped = [(f"control of {name}", f"there is no guide for it in {settings.guides}") for name in missing]
    for control, montages in wanted_controls(gallery, settings).items():
        chosen = judges(control, settings)
        if not chosen:
            skipped.append((control, "there is no measure for this control type"))
        elif control == "pose" and settings.ready_maps:
            skipped.append((control, "people cannot be read off a drawn map; give the guides themselves"))
        else:
            guided = [montage for montage in montages if (control, montage.name) in files]
            try:
                guides = {montage.name: files[control, montage.name] for montage in guided}
                pairs, broken = read_pairs(control, guided, guides, gallery, settings, progress)
            except ModelError as error:
                skipped.append((control, str(error)))
                continue
            skipped += broken
            if not pairs:
                continue
            for judge in chosen:
                figure = _figure(judge, pairs, settings)
                if figure:
                    measured.append(figure)
                else:
                    skipped.append((judge.metric, "no guide shows a person"))
    return measured, skipped


def _figure(judge: Judge, pairs: Mapping[str, Pair], settings: Settings) -> Measurement | None:
    """Returns a figure over montages; none where it is not defined for any of them."""
    values = {name: judge.compare(pair.found, pair.wanted) for name, pair in pairs.items()}
    values = {name: value for name, value in values.items() if not np.isnan(value)}
    chance = [judge.compare(pair.found, pair.other) for pair in pairs.values() if pair.other is not None]
    chance = [value for value in chance if not np.isnan(value)]
    if not values:
        return None
    return summary(
        judge.metric,
        "control",
        values,
        settings,
        better=judge.better,
        what=judge.what,
        source=judge.source,
        bounds={"the guide of another montage": float(np.mean(chance))} if chance else {},
    )
