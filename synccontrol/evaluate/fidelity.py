"""Fidelity: whether windows of the montages look like pictures of the reference, and like their prompt.

The published evaluation takes one random crop of each montage; here every non-overlapping native-size crop counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synccontrol.errors import InputError, ModelError
from synccontrol.evaluate import clip
from synccontrol.evaluate.bootstrap import summary
from synccontrol.evaluate.kernel import Features, kernel_distance, kernel_interval
from synccontrol.evaluate.measurement import Measurement, Progress, Settings
from synccontrol.evaluate.networks import Eyes
from synccontrol.evaluate.pictures import Crops, Gallery, grid, picture_files
from synccontrol.files import images

LEAST = 50  # windows of the montages, and of the reference, that KID needs
NEIGHBOURS = 8  # K of KNN-GIQA (arXiv 2306.05178, section 5)
GIQA_EPSILON = 1e-6  # per feature, so that a picture of the reference itself has a finite score
HALVES = "reference against itself, in halves"

Skipped = list[tuple[str, str]]

_last_reference: dict[tuple[Any, ...], tuple[tuple[Tensor, ...], Skipped]] = {}  # folders that are compared share it


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Returns the Frechet distance of features (n, d) to reference features (m, d), by torchmetrics (FID)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Features(features.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    return float(metric.compute())


def giqa(features: Tensor, reference: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Returns the KNN-GIQA score (n,) of features (n, d): the sum of 1 / distance to the K nearest of the reference.

    Gu et al., arXiv 2003.08932, section 3.2, with the L1 distance and the sum of their program (knn_score.py).
    """
    apart = torch.cdist(features.double(), reference.double(), p=1) + GIQA_EPSILON * features.shape[1]
    return (1 / apart.topk(neighbours, largest=False).values).sum(dim=1)


def check(gallery: Gallery, settings: Settings) -> None:
    """Raises `InputError` when there is a reference, and it or the montages have too few windows."""
    if settings.reference is None:
        return
    windows = len(gallery.boxes) * len(gallery.montages)
    if windows < LEAST:
        raise InputError(
            f"{gallery.folder} has {windows} windows of {gallery.window} px, and FID and KID need {LEAST}: give "
            f"{-(-LEAST // len(gallery.boxes))} montages of this size, or leave the reference out"
        )
    files, left_out = _usable(settings.reference, gallery.window)
    found = sum(files.values())
    if found < 2 * LEAST or len(files) < 2:
        raise InputError(
            f"{settings.reference} has {found} windows of {gallery.window} px in {len(files)} pictures; FID and KID "
            f"need {2 * LEAST} in two at least, to hold its halves against each other; give more pictures"
            + (f" ({len(left_out)} cannot be used: {left_out[0][1]})" if left_out else "")
        )


def _usable(folder: Path, window: int) -> tuple[dict[Path, int], Skipped]:
    """Returns how many windows each picture of a reference holds, and which hold none or cannot be read, with why."""
    usable: dict[Path, int] = {}
    left_out = []
    for path in picture_files(folder):
        try:
            width, height = images.open_image(path, kept=images.LARGEST).size
            usable[path] = len(grid(height, width, window))
            if not usable[path]:
                left_out.append((f"reference {path.name}", f"{width}x{height}, below a window of {window} px"))
        except InputError as error:
            left_out.append((f"reference {path.name}", str(error)))
    return {path: windows for path, windows in usable.items() if windows}, left_out


def measure(gallery: Gallery, eyes: Eyes, settings: Settings, progress: Progress) -> tuple[list[Measurement], Skipped]:
    """Returns the figures of fidelity, and those that cannot be had, with why.

    `bounds` holds each against the reference's own halves: what pictures just like the reference would give.
    """
    measured, skipped = clip.measure(gallery, settings, progress)
    metrics = [f"{metric} ({settings.features})" for metric in ("FID", "KID", "Mean-GIQA")]
    if settings.reference is None:
        why = "needs pictures to compare with: name their folder with --reference"
        return measured, [*((metric, why) for metric in metrics), *skipped]
    try:
        eyes.load(settings.features)
    except ModelError as error:
        return measured, [*((metric, str(error)) for metric in metrics), *skipped]
    progress("fidelity: the montages")
    found = {montage.name: eyes.pooled(settings.features, montage) for montage in gallery.montages}
    files, left_out = _usable(settings.reference, gallery.window)
    reference, broken = _reference(list(files), gallery.window, eyes, settings, progress)
    skipped = [*left_out, *broken, *skipped]
    windows = sum(map(len, reference))
    if windows < 2 * LEAST or len(reference) < 2:
        why = f"the reference has {windows} windows in {len(reference)} pictures that can be read; it needs {2 * LEAST}"
        return measured, [*((metric, why) for metric in metrics), *skipped]
    progress("fidelity: FID, KID, GIQA")
    return [*distances(metrics, found, reference, settings), *measured], skipped


def _reference(
    files: Sequence[Path], window: int, eyes: Eyes, settings: Settings, progress: Progress
) -> tuple[tuple[Tensor, ...], Skipped]:
    """Returns the features (n, d) of the windows of each picture of the reference, from last time if it is the same,
    and which pictures cannot be read."""
    key = (settings.features, window, *((path, path.stat().st_mtime_ns) for path in files))
    if key not in _last_reference:
        found, broken = [], []
        for path in files:
            progress(f"fidelity: reference {path.name}")
            try:
                picture = images.open_image(path, kept=images.LARGEST)
            except InputError as error:
                broken.append((f"reference {path.name}", str(error)))
                continue
            found.append(eyes.pool(settings.features, Crops(picture=picture, window=window)))
        _last_reference.clear()
        _last_reference[key] = tuple(found), broken
    return _last_reference[key]


def distances(
    metrics: Sequence[str], montages: Mapping[str, Tensor], reference: Sequence[Tensor], settings: Settings
) -> list[Measurement]:
    """Returns FID, KID and Mean-GIQA, by the names `metrics`.

    Args:
        montages: features (n, d) of the windows of each montage, by its name.
        reference: features (m, d) of the windows of each picture of the reference.
    """
    every, real = torch.cat(list(montages.values())), torch.cat(list(reference))
    order = np.random.default_rng(settings.seed).permutation(len(reference))
    one, other = (torch.cat([reference[i] for i in order[start::2]]) for start in (0, 1))
    low, high = kernel_interval(list(montages.values()), real, settings.draws, settings.seed)
    common: dict[str, Any] = {"group": "fidelity", "n": len(montages), "better": "lower", "values": {}}
    scores = {name: float(giqa(features, real).mean()) for name, features in montages.items()}
    return [
        Measurement(
            metric=metrics[0],
            value=frechet_distance(every, real),
            low=np.nan,  # FID is biased by the number of pictures, and a resample holds fewer different ones
            high=np.nan,
            what="How far the windows as a set are from the reference; compare only sets of equal size.",
            source="arXiv 1706.08500, eq. 6, by torchmetrics, over all windows of the montages",
            bounds={HALVES: frechet_distance(one, other)},
            **common,
        ),
        Measurement(
            metric=metrics[1],
            value=kernel_distance(every, real, settings.seed),
            low=low,
            high=high,
            what="How far the windows as a set are from the reference, at any size of the sets; 0: no difference.",
            source="arXiv 1801.01401, eq. 4, by torchmetrics, over all windows of the montages",
            bounds={HALVES: kernel_distance(one, other, settings.seed)},
            **common,
        ),
        summary(
            metrics[2],
            "fidelity",
            scores,
            settings,
            better="higher",
            what=f"How near each window is to the {NEIGHBOURS} pictures of the reference that are most like it.",
            source="KNN-GIQA, arXiv 2003.08932 and its knn_score.py, K = 8, as in arXiv 2306.05178",
            bounds={HALVES: float(giqa(one, other).mean())},
        ),
    ]
