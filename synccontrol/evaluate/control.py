"""Control: whether a montage shows what its guide asked for. The map is read off the montage again, and compared."""

import dataclasses
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt
import torch

from synccontrol.errors import ModelError
from synccontrol.evaluate.bootstrap import summary
from synccontrol.evaluate.guides import guide_files, wanted_controls
from synccontrol.evaluate.keypoints import PCK_SHARE, oks, pck
from synccontrol.evaluate.measurement import Measurement, Progress, Settings
from synccontrol.evaluate.pictures import Gallery
from synccontrol.evaluate.reading import Array, Pair, read_pairs

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
