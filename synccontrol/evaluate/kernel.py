"""KID: the kernel distance of windows to a reference, its interval, and the interval of a difference between two."""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from synccontrol.evaluate.bootstrap import percentiles, resamples

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
