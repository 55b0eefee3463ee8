"""Coherence: the similarity of the crops of one montage.

Every figure is a mean over all pairs of non-overlapping native-size crops of a montage, as in the published evaluation
(SyncDiffusion, arXiv 2306.05178, section 5, and its eval_code/). Features are computed once per crop, then paired.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from synccontrol.errors import ModelError
from synccontrol.evaluate.dataset import Gallery
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, summary
from synccontrol.evaluate.networks import VGG19, CropFeatures, FeatureBlocks, FeatureNetworks

Compare = Callable[[CropFeatures, int, CropFeatures, int], float]  # crop i of the first features, crop j of the second

LPIPS_WHAT = "how different two windows of one montage look on average, to a network trained on what people see"
LPIPS = "arXiv 2306.05178, eval_code/eval_intra_lpips.py; arXiv 1801.03924, eq. 1"
STLPIPS = "the same pairs, by Shift-Tolerant LPIPS (arXiv 2207.13686)"
STYLE_WHAT = "how different the style (textures and colours, wherever they are) of two windows of one montage is"
STYLE = "arXiv 2306.05178, eval_code/eval_style_loss.py; arXiv 1508.06576, eq. 5"


def perceptual_distance(a: CropFeatures, i: int, b: CropFeatures, j: int) -> float:
    """Return the LPIPS distance of two crops: the squared distance of their points."""
    difference = a.points[i] - b.points[j]
    return float(torch.dot(difference, difference))


def style_distance(a: CropFeatures, i: int, b: CropFeatures, j: int) -> float:
    """Return the sum over layers of the mean squared difference of two crops' Gram matrices."""
    return sum(float(((x[i] - y[j]) ** 2).mean()) for x, y in zip(a.grams, b.grams, strict=True))


def similarity(a: CropFeatures, i: int, b: CropFeatures, j: int) -> float:
    """Return the cosine -1..1 between two crops' pooled features."""
    return float(torch.nn.functional.cosine_similarity(a.pooled[i].double(), b.pooled[j].double(), dim=0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoherenceMetric:
    """One metric of coherence."""

    metric: str
    network: str  # a name that `FeatureNetworks.load` takes
    compare: Compare
    what: str
    source: str
    better: str = "lower"
    summed: bool = False  # sum over pairs, as in the published style loss, instead of the mean


def coherence_metrics(settings: Settings) -> tuple[CoherenceMetric, ...]:
    """Return all metrics of coherence, including those whose networks are not available."""
    lpips_rows = (
        ("Intra-LPIPS", "lpips", LPIPS_WHAT, LPIPS),
        ("Intra-LPIPS (alex)", "lpips-alex", LPIPS_WHAT, LPIPS + ", with AlexNet"),
        ("Intra-ST-LPIPS (alex)", "stlpips", LPIPS_WHAT + ", small shifts forgiven", STLPIPS),
        ("Intra-ST-LPIPS (vgg)", "stlpips-vgg", LPIPS_WHAT + ", small shifts forgiven", STLPIPS),
    )
    style_rows = (
        ("Intra-Style-L", VGG19, STYLE_WHAT, STYLE + ", divided by the number of pairs", False),
        ("Intra-Style-L (sum)", VGG19, STYLE_WHAT + ", added up over the pairs, so it grows with width", STYLE, True),
        ("Intra-ST-Style-L", "stlpips-vgg", STYLE_WHAT, "Intra-Style-L on the VGG-16 of ST-LPIPS, per pair", False),
    )
    return (
        *(
            CoherenceMetric(metric=metric, network=network, compare=perceptual_distance, what=what, source=source)
            for metric, network, what, source in lpips_rows
        ),
        *(
            CoherenceMetric(
                metric=metric, network=network, compare=style_distance, what=what, source=source, summed=summed
            )
            for metric, network, what, source, summed in style_rows
        ),
        CoherenceMetric(
            metric=f"embedding similarity ({settings.embedding})",
            network=settings.embedding,
            compare=similarity,
            what="how alike two windows of one montage are in what they show, wherever in the window it is",
            source="mean cosine of pooled features over the pairs of Intra-LPIPS",
            better="higher",
        ),
    )


def measure(
    gallery: Gallery, eyes: FeatureNetworks, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Return the measurements of coherence, and the skipped metrics with the reason.

    `bounds` compares each with one crop repeated, and with crops of different montages, which is what unrelated windows
    would give. The latter pairs a montage with the next one, at the positions of the pairs inside a montage. One
    network at a time processes all montages, so memory holds the features of two montages.
    """
    loadable, skipped = [], []
    for metric in coherence_metrics(settings):
        try:
            eyes.load(metric.network)
            loadable.append(metric)
        except ModelError as error:
            skipped.append((metric.metric, str(error)))
    within: dict[str, dict[str, float]] = {metric.metric: {} for metric in loadable}
    between: dict[str, list[float]] = {metric.metric: [] for metric in loadable}
    repeated: dict[str, float] = {}
    for network in sorted({metric.network for metric in loadable}):
        own_metrics = [metric for metric in loadable if metric.network == network]
        previous: FeatureBlocks | None = None
        for number, montage in enumerate(gallery.montages, 1):
            progress(f"coherence, {network}: {montage.name} ({number} of {len(gallery.montages)})")
            blocks = eyes.feature_blocks(network, montage)
            first = blocks.block(0)
            for metric in own_metrics:
                repeated.setdefault(metric.metric, metric.compare(first, 0, first, 0))
            for name, value in over_pairs(own_metrics, blocks, blocks).items():
                within[name][montage.name] = value
            if previous is not None:
                for name, value in over_pairs(own_metrics, previous, blocks).items():
                    between[name].append(value)
            previous = blocks
    measured = [
        _summary(metric, within[metric.metric], repeated[metric.metric], between[metric.metric], gallery, settings)
        for metric in loadable
    ]
    return measured, skipped


def over_pairs(metrics: Sequence[CoherenceMetric], first: FeatureBlocks, second: FeatureBlocks) -> dict[str, float]:
    """Return, by metric, the mean (or sum) over all i < j of crop i of the first against crop j of the second."""
    values: dict[str, list[float]] = {metric.metric: [] for metric in metrics}
    for a, i, b, j in first.pairs(second):
        for metric in metrics:
            values[metric.metric].append(metric.compare(a, i, b, j))
    return {metric.metric: float((np.sum if metric.summed else np.mean)(values[metric.metric])) for metric in metrics}


def _summary(
    kind: CoherenceMetric,
    values: dict[str, float],
    same: float,
    across: Sequence[float],
    gallery: Gallery,
    settings: Settings,
) -> Measurement:
    bounds = {"one crop repeated": same}
    if across:
        bounds["crops of different montages"] = float(np.mean(across))
    what = kind.what[0].upper() + kind.what[1:]
    if kind.network in gallery.optimised:
        what += "; sync optimised this very network, so hold the figures of others beside it"
    return summary(
        kind.metric,
        "coherence",
        values,
        settings,
        better=kind.better,
        what=what + ".",
        source=kind.source,
        bounds=bounds,
    )
