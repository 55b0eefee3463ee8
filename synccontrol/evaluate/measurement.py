"""What an evaluation is asked and what it answers: settings, one measurement, and all of them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synccontrol.errors import ConfigError

GROUPS = ("coherence", "fidelity", "control", "seams")
BETTER = ("lower", "higher", "1")  # "1": the nearer to one
OFFLINE_FEATURES = "stlpips-vgg"
INCEPTION = "inception"

Progress = Callable[[str], None]  # is told in a line what is being measured now


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure about a folder of montages."""

    metric: str  # its name, as "Intra-LPIPS" or "canny F1 (2 px)"
    group: str  # one of GROUPS
    value: float  # mean over montages, or the value of the whole set
    low: float  # 95 % bootstrap interval over montages; nan where it cannot be had
    high: float
    n: int  # montages behind it
    better: str  # one of BETTER
    what: str  # one plain sentence for someone who has not read the papers
    source: str  # paper, equation or file
    values: Mapping[str, float]  # by montage (path relative to the folder); empty where only the whole set has one
    bounds: Mapping[str, float]  # what to hold the value against, by a few words that say what it is

    def __post_init__(self) -> None:
        assert self.group in GROUPS and self.better in BETTER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """All figures about a folder of montages."""

    measurements: tuple[Measurement, ...]  # in the order of GROUPS
    skipped: tuple[tuple[str, str], ...]  # picture or metric, and why it is missing and what would work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a folder is scored. Raises `ConfigError` for a value outside its range."""

    window: int | None = None  # px, side of a square window; None: what the pictures' own settings say, else 256
    stride: int | None = None  # px between neighbouring windows, for seams; None: what the pictures' own settings say
    loop: bool = False  # the montages are rings; pictures whose own settings say so need no telling
    groups: tuple[str, ...] = GROUPS  # what to measure
    reference: Path | None = None  # folder of pictures that fidelity is measured against
    guides: Path | None = None  # folder with the guide (or a ready control map) of each montage, of the same name
    controls: tuple[str, ...] = ()  # control types to compare; (): what the pictures' own settings say
    detectors: tuple[str, ...] = ()  # what reads the maps off guides and montages, one per control; (): the defaults
    ready_maps: bool = False  # the guides are control maps already
    features: str = OFFLINE_FEATURES  # of FID, KID and GIQA: "stlpips-vgg", "inception", or a vision model's id, folder
    embedding: str = OFFLINE_FEATURES  # of the position-free similarity: "stlpips-vgg", or a vision model's id, folder
    clip: str = "openai/clip-vit-base-patch16"  # of the CLIP score: hub id or folder
    tolerance: int = 2  # px between canny edges that count as the same
    device: str = "cpu"  # torch device
    offline: bool = False  # never use the network
    draws: int = 2000  # bootstrap resamples
    seed: int = 0  # of everything that is drawn at random
    window_batch: int = 8  # windows in one network call at most; fewer, where they are large

    def __post_init__(self) -> None:
        for name, least in (("window", 16), ("stride", 1), ("tolerance", 0), ("draws", 1), ("window_batch", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name.replace('_', ' ')} is {value}; it must be at least {least}")
        unknown = [group for group in self.groups if group not in GROUPS]
        if unknown or not self.groups:
            raise ConfigError(f"there is no group {', '.join(unknown) or 'named'}; choose of {', '.join(GROUPS)}")
        if self.detectors and len(self.detectors) != len(self.controls):
            raise ConfigError(
                f"{len(self.detectors)} detectors are named for {len(self.controls)} controls; name one each, or none"
            )


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
