"""KID: the kernel distance of windows to a reference, its interval, and the interval of a difference between two."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from synccontrol.errors import InputError, ModelError
from synccontrol.evaluate.dataset import Crops, Gallery, grid, picture_files
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, percentiles, resamples, summary
from synccontrol.evaluate.networks import NO_MODEL_HINT, Eyes
from synccontrol.families import checkpoints
from synccontrol.io import images

KID_SUBSET = 1000  # windows that one estimate of KID takes at most (arXiv 1801.01401, section 4)
KID_SUBSETS = 20  # estimates whose mean is KID where the two sets differ in size

Floats = npt.NDArray[np.float64]


def kernel_distance(features: Tensor, reference: Tensor, seed: int) -> float:
    """Returns the squared kernel distance of features (n, d) to reference features (m, d), by torchmetrics (KID)."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(features), len(reference), KID_SUBSET)
    subsets = 1 if size == len(features) == len(reference) else KID_SUBSETS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it keeps the features
        metric = KernelInceptionDistance(feature=Features(features.shape[1]), subsets=subsets, subset_size=size)
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return float(metric.compute()[0])


class Features(nn.Module):
    """The feature network that torchmetrics asks for: "pictures" are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def kernel_interval(montages: Sequence[Tensor], reference: Tensor, draws: int, seed: int) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of KID when montages are resampled; nan, nan for fewer than two.

    Args:
        montages: features (n_i, d) of the windows of each montage.
        reference: features (m, d).
    """
    if len(montages) < 2:
        return np.nan, np.nan
    found = _resampled(montages, reference, draws, seed)
    return percentiles(found[~np.isnan(found)])


def kernel_difference(
    montages: Sequence[Tensor], baseline: Sequence[Tensor], reference: Tensor, draws: int, seed: int
) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of how much more KID montages have than others of the same guides.

    Montage by montage: each resample draws the same ones of both, so that what a guide does to both falls out.

    Args:
        montages: features (n_i, d) of the windows of each montage, two at least.
        baseline: the same of the others, in the same order.
        reference: features (m, d).
    """
    found = _resampled(montages, reference, draws, seed) - _resampled(baseline, reference, draws, seed)
    return percentiles(found[~np.isnan(found)])


def _resampled(montages: Sequence[Tensor], reference: Tensor, draws: int, seed: int) -> Floats:
    """Returns KID (draws,) of resampled montages; nan where one montage alone was drawn.

    The unbiased estimate (arXiv 1801.01401, eq. 4) with each montage as often as it was drawn. Two windows of one
    montage count as a pair as often as it was drawn, copies of it never meet.
    """
    sizes = np.array([len(features) for features in montages])
    every = torch.cat(list(montages)).double().numpy()
    real = reference.double().numpy()
    starts = np.cumsum(sizes) - sizes
    own = _kernel(every, every)
    blocks = np.add.reduceat(np.add.reduceat(own, starts, axis=0), starts, axis=1)
    inside = np.diag(blocks) - np.add.reduceat(np.diag(own), starts)
    cross = np.add.reduceat(_kernel(every, real).mean(axis=1), starts)
    np.fill_diagonal(blocks, 0)
    real_own = _kernel(real, real)
    real_mean = (real_own.sum() - np.trace(real_own)) / (len(real) * (len(real) - 1))
    found = []
    for counts in resamples(len(montages), draws, seed):
        windows = counts * sizes
        pairs = windows.sum() ** 2 - (windows**2).sum() + (counts * sizes * (sizes - 1)).sum()
        own_mean = (counts @ blocks @ counts + counts @ inside) / pairs if pairs else np.nan
        found.append(own_mean + real_mean - 2 * (counts @ cross) / windows.sum())
    return np.array(found)


def _kernel(one: Floats, other: Floats) -> Floats:
    kernel: Floats = (one @ other.T / one.shape[1] + 1) ** 3
    return kernel


def measure_clip(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Returns the CLIP score of the windows for the prompts that montages carry, and what is left out, with why."""
    metric = f"CLIP score ({settings.clip})"
    prompts = {montage.name: str(montage.settings.get("prompt", "")) for montage in gallery.montages}
    silent = [(f"CLIP score of {name}", "it carries no prompt") for name, prompt in prompts.items() if not prompt]
    if len(silent) == len(prompts):
        return [], [(metric, "needs the prompts, and no montage carries one; use PNG files as SyncControl writes")]
    try:
        clip = Clip(settings)
    except ModelError as error:
        return [], [(metric, str(error))]
    values = {}
    spoken = [montage for montage in gallery.montages if prompts[montage.name]]
    for number, montage in enumerate(spoken, 1):
        progress(f"CLIP score: {montage.name} ({number} of {len(spoken)})")
        values[montage.name] = clip.score(gallery.crops(montage), prompts[montage.name])
    what = "How well the windows fit the prompt, as CLIP sees it; 0..100."
    source = "arXiv 2104.08718, by torchmetrics; Mean-CLIP-S of arXiv 2306.05178"
    measured = summary(metric, "fidelity", values, settings, better="higher", what=what, source=source, bounds={})
    return [measured], silent


class Clip:
    """A CLIP model as torchmetrics calls it; whatever transformers' own methods return, these return tensors."""

    def __init__(self, settings: Settings) -> None:
        """Raises `ModelError` when the model cannot be had."""
        from transformers import CLIPModel, CLIPProcessor

        def load(local: bool) -> tuple[Any, Any]:
            name = settings.clip
            model = CLIPModel.from_pretrained(name, local_files_only=local)
            return model, CLIPProcessor.from_pretrained(name, local_files_only=local)

        model, self._processor = checkpoints.fetch(load, [settings.clip], settings.offline, NO_MODEL_HINT)
        self._model = model.eval().to(settings.device)
        self._device, self._batch = settings.device, settings.window_batch
        self.config = model.config

    def score(self, crops: Crops, prompt: str) -> float:
        """Returns the mean CLIP score of crops for a prompt; so many at a time as one call of a network takes."""
        from torchmetrics.functional.multimodal import clip_score as score

        total = 0.0
        for start in range(0, len(crops), self._batch):
            some = (crops.take(start, start + self._batch) * 255).round().to(self._device, torch.uint8)
            with torch.inference_mode():
                found = score(list(some), [prompt] * len(some), model_name_or_path=lambda: (self, self._processor))
            total += float(found) * len(some)
        return total / len(crops)

    def to(self, device: torch.device) -> "Clip":
        return self

    def get_image_features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.visual_projection(self._model.vision_model(pixels).pooler_output)
        return features

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        pooled = self._model.text_model(input_ids=tokens, attention_mask=mask).pooler_output
        features: Tensor = self._model.text_projection(pooled)
        return features


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
    measured, skipped = measure_clip(gallery, settings, progress)
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
