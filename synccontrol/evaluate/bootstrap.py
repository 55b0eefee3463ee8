"""How sure a figure is: resampling montages with replacement (Efron, 1979)."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from synccontrol.evaluate.measurement import Measurement, Settings

LEVEL = 0.95  # of intervals

Floats = npt.NDArray[np.float64]


def resamples(n: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yields `draws` times how often each of `n` montages was drawn, (n,), n draws with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield rng.multinomial(n, np.full(n, 1 / n))


def percentiles(statistics: Floats) -> tuple[float, float]:
    """Returns the ends of the interval that holds the middle 95 % of resampled statistics (m,)."""
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval(values: Floats, draws: int, seed: int) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean of `values` (n,); nan, nan for fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    means = np.array([counts @ values / len(values) for counts in resamples(len(values), draws, seed)])
    return percentiles(means)


def summary(
    metric: str,
    group: str,
    values: Mapping[str, float],
    settings: Settings,
    *,
    better: str,
    what: str,
    source: str,
    bounds: Mapping[str, float],
) -> Measurement:
    """Returns the measurement whose value is the mean of `values` by montage, with its interval."""
    array = np.array(list(values.values()), np.float64)
    low, high = interval(array, settings.draws, settings.seed)
    return Measurement(
        metric=metric,
        group=group,
        value=float(array.mean()),
        low=low,
        high=high,
        n=len(array),
        better=better,
        what=what,
        source=source,
        values=dict(values),
        bounds=dict(bounds),
    )
