"""Settings and results of an evaluation, and bootstrap intervals."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synccontrol.errors import ConfigError
from synccontrol.spec import schema
from synccontrol.spec.schema import setting

GROUPS = ("coherence", "fidelity", "control", "seams")
BETTER = ("lower", "higher", "1")  # "1": values near 1 are best
OFFLINE_FEATURES = "stlpips-vgg"
INCEPTION = "inception"

Progress = Callable[[str], None]  # called with a line about the current measurement


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """The value of one metric for a folder of montages."""

    metric: str  # its name, as "Intra-LPIPS" or "canny F1 (2 px)"
    group: str  # one of GROUPS
    value: float  # mean over montages, or value of the whole set
    low: float  # 95 % bootstrap interval over montages; nan without one
    high: float
    n: int  # number of montages
    better: str  # one of BETTER
    what: str  # one plain sentence
    source: str  # paper, equation or file
    values: Mapping[str, float]  # by montage (path relative to the folder); empty for metrics of the whole set
    bounds: Mapping[str, float]  # values to compare with, by description

    def __post_init__(self) -> None:
        assert self.group in GROUPS and self.better in BETTER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """All measurements of a folder of montages."""

    measurements: tuple[Measurement, ...]  # in the order of GROUPS
    skipped: tuple[tuple[str, str], ...]  # image or metric, and the reason with a remedy


WHAT, HOW = "what to measure", "how to measure"
RECORDED = "that recorded in the montages"


class Settings(schema.Settings):
    """Settings of an evaluation. Raise `ConfigError` for a value outside its range."""

    reference: Path | None = setting(None, "folder of real images that fidelity is measured against", group=WHAT)
    guides: Path | None = setting(None, "folder with the guide of each montage, under the montage's name", group=WHAT)
    controls: tuple[str, ...] = setting(
        (), "control type to compare; repeat it", flag="control", shown_default=RECORDED, group=WHAT
    )
    ready_maps: bool = setting(False, "the guides are control maps", group=WHAT)
    groups: tuple[str, ...] = setting(
        GROUPS, "what to measure; repeat it", flag="group", choices=GROUPS, shown_default="all", group=WHAT
    )
    window: int | None = setting(
        None, "px, side of a square window", minimum=16, shown_default="the model's window, else 256", group=HOW
    )
    stride: int | None = setting(None, "px between windows, for seams", minimum=1, shown_default=RECORDED, group=HOW)
    loop: bool = setting(False, "all montages are rings; recorded settings count in any case", group=HOW)
    detectors: tuple[str, ...] = setting(
        (), "detector of guides and montages, one per --control", flag="detector", group=HOW
    )
    tolerance: int = setting(2, "px between canny edges that count as the same", minimum=0, group=HOW)
    features: str = setting(
        OFFLINE_FEATURES,
        "network of FID, KID and GIQA: stlpips-vgg (carries its weights), inception (as published), or a vision "
        "model's hub id or folder",
        group=HOW,
    )
    embedding: str = setting(OFFLINE_FEATURES, "network of the embedding similarity, likewise", group=HOW)
    clip: str = setting("openai/clip-vit-base-patch16", "hub id or folder for the CLIP score", group=HOW)
    draws: int = setting(2000, "bootstrap resamples", minimum=1, group=HOW)
    seed: int = setting(0, "seed of the resamples and of other random choices", group=HOW)
    device: str = setting("cpu", "torch device", group=HOW)
    window_batch: int = setting(8, "windows in one network call; large windows lower it", minimum=1, group=HOW)
    offline: bool = setting(False, "never use the network; metrics that need it are left out", group=HOW)

    def check(self) -> None:
        if not self.groups:
            raise ConfigError(f"there is nothing to measure; choose of {', '.join(GROUPS)}", field="groups")
        if self.detectors and len(self.detectors) != len(self.controls):
            raise ConfigError(
                f"{len(self.detectors)} detectors are named for {len(self.controls)} controls; name one each, or none"
            )


LEVEL = 0.95  # of intervals

Floats = npt.NDArray[np.float64]


def resamples(n: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield `draws` bootstrap resamples as counts (n,) of `n` montages."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield rng.multinomial(n, np.full(n, 1 / n))


def percentiles(statistics: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled statistics (m,)."""
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval(values: Floats, draws: int, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` (n,); nan, nan for fewer than two."""
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
    """Return the measurement whose value is the mean of `values` over montages, with its interval."""
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
