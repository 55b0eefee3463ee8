"""Control: how well montages follow their guides.

People are arrays (n, 18, 3): x px, y px, confidence, in OpenPose's order.
"""

import dataclasses
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt
import torch

from synccontrol.errors import ModelError
from synccontrol.evaluate.dataset import Array, Gallery, Pair, control_montages, guide_files, read_pairs
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, summary
from synccontrol.preprocess.people.detection import FALLOFF, FILLED

Floats = npt.NDArray[np.float32]

PCK_SHARE = 0.1  # tolerance of a joint's position, relative to the person's height


def similarities(detected: Floats, targets: Floats) -> Floats:
    """Return the object keypoint similarity 0..1 of every target person to every detected one, (targets, detected).

    COCO's OKS (cocodataset.org/#keypoints-eval) over the target's visible joints; an undetected joint counts 0. The
    area is 0.53 of the box of the target's joints, and the neck has the falloff of a shoulder.
    """
    table = np.zeros((len(targets), len(detected)), np.float32)
    for i, person in enumerate(targets):
        visible = person[:, 2] > 0
        area = FILLED * float(np.prod(np.ptp(person[visible, :2], axis=0))) + np.finfo(np.float32).eps
        for j, candidate in enumerate(detected):
            distances = ((person[visible, :2] - candidate[visible, :2]) ** 2).sum(axis=1)
            closeness = np.exp(-distances / (2 * area * FALLOFF[visible] ** 2))
            table[i, j] = (closeness * (candidate[visible, 2] > 0)).mean()
    return table


def matches(table: Floats) -> dict[int, int]:
    """Return the column matched with each row of a table (m, n) of similarities, greedily, best pair first."""
    matched: dict[int, int] = {}
    for flat in np.argsort(-table, axis=None, kind="stable"):
        row, column = (int(index) for index in np.unravel_index(flat, table.shape))
        if row not in matched and column not in matched.values():
            matched[row] = column
    return matched


def oks(detected: Floats, targets: Floats) -> float:
    """Return the mean OKS 0..1 of target people (m, 18, 3) to their detected matches; nan without targets."""
    table = similarities(detected, targets)
    return float(sum(table[pair] for pair in matches(table).items()) / len(targets)) if len(targets) else np.nan


def pck(detected: Floats, targets: Floats, share: float = PCK_SHARE) -> float:
    """Return the share of target joints that the matched person has within `share` of the person's height.

    A person's height is that of their visible joints (PCK, Yang and Ramanan, 2013). The result is nan without targets.
    """
    matched = matches(similarities(detected, targets))
    hits: list[bool] = []
    for i, person in enumerate(targets):
        visible = person[:, 2] > 0
        tolerance = share * float(np.ptp(person[visible, 1]))
        candidate = detected[matched[i]] if i in matched else np.full_like(person, np.nan)
        distances = np.linalg.norm(candidate[visible, :2] - person[visible, :2], axis=1)
        hits += list((distances <= tolerance) & (candidate[visible, 2] > 0))
    return float(np.mean(hits)) if hits else np.nan


Mask = npt.NDArray[np.bool_]

GREY = 128  # threshold of an edge map
SOFT_EDGES = ("softedge", "hed", "lineart")  # control types whose maps are compared by SSIM, as ControlNet++ does
REREAD = "arXiv 2404.07987 (ControlNet++), section 4.1, the map read off the output again; "


def edge_f1(measured: Mask, target: Mask, tolerance: int) -> float:
    """Return the F1 0..1 of measured edges (H, W) against target edges; 1 if both are empty.

    An edge pixel is correct if the other map has one at most `tolerance` px away, horizontally and vertically.
    """
    if not measured.any() and not target.any():
        return 1.0
    kernel = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8)

    def near(mask: Mask) -> Mask:
        return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)

    precision = (measured & near(target)).sum() / max(1, measured.sum())
    recall = (target & near(measured)).sum() / max(1, target.sum())
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def depth_rmse(measured: Array, target: Array) -> float:
    """Return the root mean square difference of two maps (H, W), in their unit."""
    return float(np.sqrt(np.mean((measured.astype(np.float64) - target) ** 2)))


def fit_scale_and_shift(measured: Array, target: Array) -> Array:
    """Return a * measured + b with the least-squares a and b to `target`; flat maps get a = 0."""
    x, y = measured.astype(np.float64), target.astype(np.float64)
    spread = x.var()
    a = ((x - x.mean()) * (y - y.mean())).mean() / spread if spread > 0 else 0.0
    return np.asarray(a * (x - x.mean()) + y.mean(), np.float32)


def ssim(measured: Array, target: Array) -> float:
    """Return the structural similarity -1..1 of two maps (H, W) in 0..255 (Wang et al., 2004), by torchmetrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = (torch.from_numpy(map_)[None, None] for map_ in (measured, target))
    return float(torch.as_tensor(structural_similarity_index_measure(first, second, data_range=255.0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlMetric:
    """One metric of control."""

    metric: str
    compare: Callable[[Array, Array], float]  # (measured, target)
    better: str
    what: str
    source: str


def control_metrics(control: str, settings: Settings) -> list[ControlMetric]:
    """Return the metrics of a control type; empty if there are none for it."""
    px = settings.tolerance

    def edges(measured: Array, target: Array) -> float:
        return edge_f1(measured >= GREY, target >= GREY, px)

    table: dict[str, list[tuple[str, Callable[[Array, Array], float], str, str, str]]] = {
        "canny": [
            (f"canny F1 ({px} px)", edges, "higher", "How many edges of the guide are there, and no others", "F1")
        ],
        "depth": [
            ("depth RMSE", depth_rmse, "lower", "How far the depth is from the guide's, 0..255", "RMSE"),
            (
                "depth RMSE, fitted",
                lambda depth, guide: depth_rmse(fit_scale_and_shift(depth, guide), guide),
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
        ControlMetric(metric=metric, compare=compare, better=better, what=f"{what}.", source=REREAD + source)
        for metric, compare, better, what, source in rows
    ]


def check(gallery: Gallery, settings: Settings) -> None:
    """Raise the errors of `guide_files` before anything is measured."""
    if settings.guides is not None:
        guide_files(gallery, settings)


def measure(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Return the measurements of control, and what is skipped, with the reason.

    `bounds` compares each with the guide of another montage: the score of a montage that follows nothing. Montages
    without a guide, or with one of another aspect, are skipped.

    Raises:
        InputError: no montage has a guide.
        ConfigError: as `control_montages` and `load_map_reader`.
    """
    if settings.guides is None:
        return [], [("control", "needs the guides: name their folder with --guides")]
    files, missing = guide_files(gallery, settings)
    measured: list[Measurement] = []
    skipped = [(f"control of {name}", f"there is no guide for it in {settings.guides}") for name in missing]
    for control, montages in control_montages(gallery, settings).items():
        control_figures = control_metrics(control, settings)
        if not control_figures:
            skipped.append((control, "there is no measure for this control type"))
        elif control == "pose" and settings.ready_maps:
            skipped.append((control, "people cannot be detected in a control map; give the guides themselves"))
        else:
            with_guide = [montage for montage in montages if (control, montage.name) in files]
            try:
                guides = {montage.name: files[control, montage.name] for montage in with_guide}
                pairs, unreadable = read_pairs(control, with_guide, guides, gallery, settings, progress)
            except ModelError as error:
                skipped.append((control, str(error)))
                continue
            skipped += unreadable
            if not pairs:
                continue
            for judge in control_figures:
                figure = _figure(judge, pairs, settings)
                if figure:
                    measured.append(figure)
                else:
                    skipped.append((judge.metric, "no guide shows a person"))
    return measured, skipped


def _figure(judge: ControlMetric, pairs: Mapping[str, Pair], settings: Settings) -> Measurement | None:
    """Return a measurement over montages; None if it is not defined for any of them."""
    values = {name: judge.compare(pair.measured, pair.target) for name, pair in pairs.items()}
    values = {name: value for name, value in values.items() if not np.isnan(value)}
    chance = [judge.compare(pair.measured, pair.unrelated) for pair in pairs.values() if pair.unrelated is not None]
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
