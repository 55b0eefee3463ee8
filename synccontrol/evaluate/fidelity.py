"""Fidelity: FID, KID and GIQA against reference images, and the CLIP score of the prompts."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from synccontrol.errors import InputError, ModelError
from synccontrol.evaluate.dataset import Crops, Gallery, grid, image_files
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, percentiles, resamples, summary
from synccontrol.evaluate.networks import NO_MODEL_HINT, FeatureNetworks
from synccontrol.families import checkpoints
from synccontrol.io import images

KID_SUBSET = 1000  # maximum number of windows in one estimate of KID (arXiv 1801.01401, section 4)
KID_SUBSETS = 20  # number of estimates to average if the two sets differ in size

Floats = npt.NDArray[np.float64]


def kernel_distance(features: Tensor, reference: Tensor, seed: int) -> float:
    """Return the squared kernel distance of features (n, d) to reference features (m, d), by torchmetrics (KID)."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(features), len(reference), KID_SUBSET)
    subsets = 1 if size == len(features) == len(reference) else KID_SUBSETS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about stored features
        metric = KernelInceptionDistance(
            feature=PrecomputedFeatures(features.shape[1]), subsets=subsets, subset_size=size
        )
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return float(metric.compute()[0])


class PrecomputedFeatures(nn.Module):
    """A feature network for torchmetrics whose input is features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def kernel_interval(montages: Sequence[Tensor], reference: Tensor, draws: int, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of KID over resampled montages; nan, nan for fewer than two.

    Args:
        montages: features (n_i, d) of the windows of each montage.
        reference: features (m, d).
    """
    if len(montages) < 2:
        return np.nan, np.nan
    resampled = _resampled_kid(montages, reference, draws, seed)
    return percentiles(resampled[~np.isnan(resampled)])


def kernel_difference(
    montages: Sequence[Tensor], baseline: Sequence[Tensor], reference: Tensor, draws: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference in KID between montages and a baseline of the same guides.

    The resamples are paired by montage, so the effect of a guide cancels out.

    Args:
        montages: features (n_i, d) of the windows of each montage, at least two.
        baseline: features of the baseline's montages, in the same order.
        reference: features (m, d).
    """
    differences = _resampled_kid(montages, reference, draws, seed) - _resampled_kid(baseline, reference, draws, seed)
    return percentiles(differences[~np.isnan(differences)])


def _resampled_kid(montages: Sequence[Tensor], reference: Tensor, draws: int, seed: int) -> Floats:
    """Return KID (draws,) of resampled montages; nan where a resample holds a single montage.

    The unbiased estimate (arXiv 1801.01401, eq. 4), with each montage weighted by its count in the resample. Copies of
    a window form no pairs with each other.
    """
    sizes = np.array([len(features) for features in montages])
    all_features = torch.cat(list(montages)).double().numpy()
    reference_features = reference.double().numpy()
    starts = np.cumsum(sizes) - sizes
    kernel = _kernel(all_features, all_features)
    blocks = np.add.reduceat(np.add.reduceat(kernel, starts, axis=0), starts, axis=1)
    within = np.diag(blocks) - np.add.reduceat(np.diag(kernel), starts)
    cross = np.add.reduceat(_kernel(all_features, reference_features).mean(axis=1), starts)
    np.fill_diagonal(blocks, 0)
    real_own = _kernel(reference_features, reference_features)
    real_mean = (real_own.sum() - np.trace(real_own)) / (len(reference_features) * (len(reference_features) - 1))
    values = []
    for counts in resamples(len(montages), draws, seed):
        windows = counts * sizes
        pairs = windows.sum() ** 2 - (windows**2).sum() + (counts * sizes * (sizes - 1)).sum()
        own_mean = (counts @ blocks @ counts + counts @ within) / pairs if pairs else np.nan
        values.append(own_mean + real_mean - 2 * (counts @ cross) / windows.sum())
    return np.array(values)


def _kernel(features: Floats, other_features: Floats) -> Floats:
    kernel: Floats = (features @ other_features.T / features.shape[1] + 1) ** 3
    return kernel


def measure_clip(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Return the CLIP score of the windows for the montages' recorded prompts, and what is skipped, with the reason."""
    metric = f"CLIP score ({settings.clip})"
    prompts = {montage.name: str(montage.settings.get("prompt", "")) for montage in gallery.montages}
    without_prompt = [
        (f"CLIP score of {name}", "it carries no prompt") for name, prompt in prompts.items() if not prompt
    ]
    if len(without_prompt) == len(prompts):
        return [], [(metric, "needs the prompts, and no montage carries one; use PNG files as SyncControl writes")]
    try:
        clip = Clip(settings)
    except ModelError as error:
        return [], [(metric, str(error))]
    values = {}
    with_prompt = [montage for montage in gallery.montages if prompts[montage.name]]
    for number, montage in enumerate(with_prompt, 1):
        progress(f"CLIP score: {montage.name} ({number} of {len(with_prompt)})")
        values[montage.name] = clip.score(gallery.crops(montage), prompts[montage.name])
    what = "How well the windows fit the prompt, as CLIP sees it; 0..100."
    source = "arXiv 2104.08718, by torchmetrics; Mean-CLIP-S of arXiv 2306.05178"
    measured = summary(metric, "fidelity", values, settings, better="higher", what=what, source=source, bounds={})
    return [measured], without_prompt


class Clip:
    """A CLIP model with the interface that torchmetrics calls; its methods always return tensors."""

    def __init__(self, settings: Settings) -> None:
        """Raise `ModelError` when the model cannot be had."""
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
        """Return the mean CLIP score of crops for a prompt, computed in batches."""
        from torchmetrics.functional.multimodal import clip_score as score

        total = 0.0
        for start in range(0, len(crops), self._batch):
            batch = (crops.take(start, start + self._batch) * 255).round().to(self._device, torch.uint8)
            with torch.inference_mode():
                batch_score = score(
                    list(batch), [prompt] * len(batch), model_name_or_path=lambda: (self, self._processor)
                )
            total += float(batch_score) * len(batch)
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


MIN_WINDOWS = 50  # minimum number of windows of the montages, and of the reference's halves
NEIGHBOURS = 8  # K of KNN-GIQA (arXiv 2306.05178, section 5)
GIQA_EPSILON = 1e-6  # per feature; gives reference images themselves a finite score
HALVES = "reference against itself, in halves"

Skipped = list[tuple[str, str]]

_last_reference: dict[tuple[Any, ...], tuple[tuple[Tensor, ...], Skipped]] = {}  # shared by compared folders


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Return the Frechet distance of features (n, d) to reference features (m, d), by torchmetrics (FID)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=PrecomputedFeatures(features.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    return float(metric.compute())


def giqa(features: Tensor, reference: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Return the KNN-GIQA score (n,) of features (n, d): the sum of 1 / distance to the K nearest reference features.

    Gu et al., arXiv 2003.08932, section 3.2, with the L1 distance and the sum of their program (knn_score.py).
    """
    distances = torch.cdist(features.double(), reference.double(), p=1) + GIQA_EPSILON * features.shape[1]
    return (1 / distances.topk(neighbours, largest=False).values).sum(dim=1)


def check(gallery: Gallery, settings: Settings) -> None:
    """Raise `InputError` if there is a reference, and it or the montages have too few windows."""
    if settings.reference is None:
        return
    windows = len(gallery.boxes) * len(gallery.montages)
    if windows < MIN_WINDOWS:
        raise InputError(
            f"{gallery.folder} has {windows} windows of {gallery.window} px, and FID and KID need {MIN_WINDOWS}: give "
            f"{-(-MIN_WINDOWS // len(gallery.boxes))} montages of this size, or leave the reference out"
        )
    files, excluded = _usable(settings.reference, gallery.window)
    count = sum(files.values())
    if count < 2 * MIN_WINDOWS or len(files) < 2:
        raise InputError(
            f"{settings.reference} has {count} windows of {gallery.window} px in {len(files)} images; FID and KID "
            f"need {2 * MIN_WINDOWS} in two at least, to hold its halves against each other; give more images"
            + (f" ({len(excluded)} cannot be used: {excluded[0][1]})" if excluded else "")
        )


def _usable(folder: Path, window: int) -> tuple[dict[Path, int], Skipped]:
    """Return the number of windows of each reference image, and the unusable images with the reason."""
    usable: dict[Path, int] = {}
    excluded = []
    for path in image_files(folder):
        try:
            width, height = images.open_image(path, max_pixels=images.LARGEST).size
            usable[path] = len(grid(height, width, window))
            if not usable[path]:
                excluded.append((f"reference {path.name}", f"{width}x{height}, below a window of {window} px"))
        except InputError as error:
            excluded.append((f"reference {path.name}", str(error)))
    return {path: windows for path, windows in usable.items() if windows}, excluded


def measure(
    gallery: Gallery, eyes: FeatureNetworks, settings: Settings, progress: Progress
) -> tuple[list[Measurement], Skipped]:
    """Return the measurements of fidelity, and the skipped metrics with the reason.

    `bounds` compares each with the reference's own halves: the score of images just like the reference.
    """
    measured, skipped = measure_clip(gallery, settings, progress)
    metrics = [f"{metric} ({settings.features})" for metric in ("FID", "KID", "Mean-GIQA")]
    if settings.reference is None:
        reason = "needs images to compare with: name their folder with --reference"
        return measured, [*((metric, reason) for metric in metrics), *skipped]
    try:
        eyes.load(settings.features)
    except ModelError as error:
        return measured, [*((metric, str(error)) for metric in metrics), *skipped]
    progress("fidelity: the montages")
    features = {montage.name: eyes.pooled(settings.features, montage) for montage in gallery.montages}
    files, left_out = _usable(settings.reference, gallery.window)
    reference, unreadable = _reference(list(files), gallery.window, eyes, settings, progress)
    skipped = [*left_out, *unreadable, *skipped]
    windows = sum(map(len, reference))
    if windows < 2 * MIN_WINDOWS or len(reference) < 2:
        reason = f"the reference has {windows} windows in {len(reference)} readable images; it needs {2 * MIN_WINDOWS}"
        return measured, [*((metric, reason) for metric in metrics), *skipped]
    progress("fidelity: FID, KID, GIQA")
    return [*distances(metrics, features, reference, settings), *measured], skipped


def _reference(
    files: Sequence[Path], window: int, eyes: FeatureNetworks, settings: Settings, progress: Progress
) -> tuple[tuple[Tensor, ...], Skipped]:
    """Return the window features (n, d) of each reference image, cached while the files stay the same.

    Also return the images that cannot be read.
    """
    key = (settings.features, window, *((path, path.stat().st_mtime_ns) for path in files))
    if key not in _last_reference:
        features, unreadable = [], []
        for path in files:
            progress(f"fidelity: reference {path.name}")
            try:
                image = images.open_image(path, max_pixels=images.LARGEST)
            except InputError as error:
                unreadable.append((f"reference {path.name}", str(error)))
                continue
            features.append(eyes.pool(settings.features, Crops(image=image, window=window)))
        _last_reference.clear()
        _last_reference[key] = tuple(features), unreadable
    return _last_reference[key]


def distances(
    metrics: Sequence[str], montages: Mapping[str, Tensor], reference: Sequence[Tensor], settings: Settings
) -> list[Measurement]:
    """Return FID, KID and Mean-GIQA under the names in `metrics`.

    Args:
        montages: window features (n, d) of each montage, by name.
        reference: window features (m, d) of each reference image.
    """
    all_features, reference_features = torch.cat(list(montages.values())), torch.cat(list(reference))
    order = np.random.default_rng(settings.seed).permutation(len(reference))
    first_half, second_half = (torch.cat([reference[i] for i in order[start::2]]) for start in (0, 1))
    low, high = kernel_interval(list(montages.values()), reference_features, settings.draws, settings.seed)
    common: dict[str, Any] = {"group": "fidelity", "n": len(montages), "better": "lower", "values": {}}
    scores = {name: float(giqa(features, reference_features).mean()) for name, features in montages.items()}
    return [
        Measurement(
            metric=metrics[0],
            value=frechet_distance(all_features, reference_features),
            low=np.nan,  # FID depends on the number of distinct images, which a resample lowers
            high=np.nan,
            what="How far the windows as a set are from the reference; compare only sets of equal size.",
            source="arXiv 1706.08500, eq. 6, by torchmetrics, over all windows of the montages",
            bounds={HALVES: frechet_distance(first_half, second_half)},
            **common,
        ),
        Measurement(
            metric=metrics[1],
            value=kernel_distance(all_features, reference_features, settings.seed),
            low=low,
            high=high,
            what="How far the windows as a set are from the reference, at any size of the sets; 0: no difference.",
            source="arXiv 1801.01401, eq. 4, by torchmetrics, over all windows of the montages",
            bounds={HALVES: kernel_distance(first_half, second_half, settings.seed)},
            **common,
        ),
        summary(
            metrics[2],
            "fidelity",
            scores,
            settings,
            better="higher",
            what=f"How near each window is to the {NEIGHBOURS} most similar reference images.",
            source="KNN-GIQA, arXiv 2003.08932 and its knn_score.py, K = 8, as in arXiv 2306.05178",
            bounds={HALVES: float(giqa(first_half, second_half).mean())},
        ),
    ]
