"""Coherence: how alike the crops of one montage are.

Every figure is a mean over all pairs of the non-overlapping native-size crops of a montage, as the published evaluation
takes it (SyncDiffusion, arXiv 2306.05178, section 5, and its eval_code/). Crops are looked at once, then paired.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from synccontrol.errors import ModelError
from synccontrol.evaluate.dataset import Gallery
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, summary
from synccontrol.evaluate.networks import VGG19, Eyes, Look, Seen

Compare = Callable[[Look, int, Look, int], float]  # crop i of one look with crop j of another

LPIPS_WHAT = "how different two windows of one montage look on average, to a network trained on what people see"
LPIPS = "arXiv 2306.05178, eval_code/eval_intra_lpips.py; arXiv 1801.03924, eq. 1"
STLPIPS = "the same pairs, by Shift-Tolerant LPIPS (arXiv 2207.13686)"
STYLE_WHAT = "how different the style (textures and colours, wherever they are) of two windows of one montage is"
STYLE = "arXiv 2306.05178, eval_code/eval_style_loss.py; arXiv 1508.06576, eq. 5"


def perceptual_distance(a: Look, i: int, b: Look, j: int) -> float:
    """Returns the LPIPS distance of two crops: the squared distance of their points."""
    apart = a.points[i] - b.points[j]
    return float(torch.dot(apart, apart))


def style_distance(a: Look, i: int, b: Look, j: int) -> float:
    """Returns the sum over layers of the mean squared difference of two crops' Gram matrices."""
    return sum(float(((x[i] - y[j]) ** 2).mean()) for x, y in zip(a.grams, b.grams, strict=True))


def similarity(a: Look, i: int, b: Look, j: int) -> float:
    """Returns the cosine -1..1 between two crops' pooled features."""
    return float(torch.nn.functional.cosine_similarity(a.pooled[i].double(), b.pooled[j].double(), dim=0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One figure of coherence."""

    metric: str
    network: str  # a name of `Eyes.load`
    compare: Compare
    what: str
    source: str
    better: str = "lower"
    summed: bool = False  # over pairs, as the published style loss is; else the mean


def kinds(settings: Settings) -> tuple[Kind, ...]:
    """Returns all figures of coherence, whether or not their networks can be had."""
    lpips = (
        ("Intra-LPIPS", "lpips", LPIPS_WHAT, LPIPS),
        ("Intra-LPIPS (alex)", "lpips-alex", LPIPS_WHAT, LPIPS + ", with AlexNet"),
        ("Intra-ST-LPIPS (alex)", "stlpips", LPIPS_WHAT + ", small shifts forgiven", STLPIPS),
        ("Intra-ST-LPIPS (vgg)", "stlpips-vgg", LPIPS_WHAT + ", small shifts forgiven", STLPIPS),
    )
    style = (
        ("Intra-Style-L", VGG19, STYLE_WHAT, STYLE + ", divided by the number of pairs", False),
        ("Intra-Style-L (sum)", VGG19, STYLE_WHAT + ", added up over the pairs, so it grows with width", STYLE, True),
        ("Intra-ST-Style-L", "stlpips-vgg", STYLE_WHAT, "Intra-Style-L on the VGG-16 of ST-LPIPS, per pair", False),
    )
    return (
        *(
            Kind(metric=metric, network=network, compare=perceptual_distance, what=what, source=source)
            for metric, network, what, source in lpips
        ),
        *(
            Kind(metric=metric, network=network, compare=style_distance, what=what, source=source, summed=summed)
            for metric, network, what, source, summed in style
        ),
        Kind(
            metric=f"embedding similarity ({settings.embedding})",
            network=settings.embedding,
            compare=similarity,
            what="how alike two windows of one montage are in what they show, wherever in the window it is",
            source="mean cosine of pooled features over the pairs of Intra-LPIPS",
            better="higher",
        ),
    )


def measure(
    gallery: Gallery, eyes: Eyes, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Returns the figures of coherence, and those whose networks cannot be had, with why.

    `bounds` holds each against one crop repeated, and against crops of different montages: what windows without any
    connection would give. The latter pairs a montage with the next one, at the places of the pairs inside a montage.
    One network at a time looks at all montages, so that memory holds what one saw in two of them.
    """
    wanted, skipped = [], []
    for kind in kinds(settings):
        try:
            eyes.load(kind.network)
            wanted.append(kind)
        except ModelError as error:
            skipped.append((kind.metric, str(error)))
    inside: dict[str, dict[str, float]] = {kind.metric: {} for kind in wanted}
    across: dict[str, list[float]] = {kind.metric: [] for kind in wanted}
    same: dict[str, float] = {}
    for network in sorted({kind.network for kind in wanted}):
        own = [kind for kind in wanted if kind.network == network]
        before: Seen | None = None
        for number, montage in enumerate(gallery.montages, 1):
            progress(f"coherence, {network}: {montage.name} ({number} of {len(gallery.montages)})")
            seen = eyes.seen(network, montage)
            first = seen.block(0)
            for kind in own:
                same.setdefault(kind.metric, kind.compare(first, 0, first, 0))
            for metric, value in over_pairs(own, seen, seen).items():
                inside[metric][montage.name] = value
            if before is not None:
                for metric, value in over_pairs(own, before, seen).items():
                    across[metric].append(value)
            before = seen
    measured = [
        _summary(kind, inside[kind.metric], same[kind.metric], across[kind.metric], gallery, settings)
        for kind in wanted
    ]
    return measured, skipped


def over_pairs(kinds: Sequence[Kind], one: Seen, other: Seen) -> dict[str, float]:
    """Returns by metric the mean (or sum) of crop i of one against crop j of another, over all i < j."""
    values: dict[str, list[float]] = {kind.metric: [] for kind in kinds}
    for a, i, b, j in one.pairs(other):
        for kind in kinds:
            values[kind.metric].append(kind.compare(a, i, b, j))
    return {kind.metric: float((np.sum if kind.summed else np.mean)(values[kind.metric])) for kind in kinds}


def _summary(
    kind: Kind, values: dict[str, float], same: float, across: Sequence[float], gallery: Gallery, settings: Settings
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
