"""How long each montage of a folder took: `timings.csv` beside the montages."""

import csv
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from synccontrol.errors import InputError
from synccontrol.evaluate import coherence, control, fidelity, seams
from synccontrol.evaluate.dataset import Gallery, open_gallery, picture_files
from synccontrol.evaluate.measurement import GROUPS, Measurement, Progress, Scores, Settings, interval
from synccontrol.evaluate.networks import Eyes
from synccontrol.models import devices

TIMINGS_FILE = "timings.csv"
TIMING_COLUMNS = ("montage", "seconds", "cpu_seconds")


def append_timing(montage: Path, seconds: float, cpu_seconds: float) -> None:
    """Writes what a montage took into its folder's timings; the last line about a montage counts.

    Args:
        montage: its file, which need not exist yet.
        seconds: by the wall clock.
        cpu_seconds: of all threads.
    """
    path = montage.parent / TIMINGS_FILE
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(TIMING_COLUMNS)
        writer.writerow([montage.name, f"{seconds:.3f}", f"{cpu_seconds:.3f}"])


def read_timings(folder: Path) -> dict[str, dict[str, float]]:
    """Returns `seconds`, and `cpu_seconds` where they are known, by montage (path relative to the folder).

    A folder without a `timings.csv`, in it or in a folder inside it, gives an empty result.

    Raises:
        InputError: a line has no montage, or what should be seconds is no number.
    """
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.rglob(TIMINGS_FILE)):
        inside = path.parent.relative_to(folder)
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    taken = {"seconds": float(row["seconds"])}
                    taken |= {"cpu_seconds": float(row["cpu_seconds"])} if row.get("cpu_seconds") else {}
                    found[(inside / row["montage"]).as_posix()] = taken
                except (KeyError, TypeError, ValueError) as error:
                    wanted = ", ".join(TIMING_COLUMNS)
                    raise InputError(f"{path} line {number} is not {wanted}, as its first line should say") from error
    return found


def score(folder: Path, settings: Settings, progress: Progress = lambda line: None) -> Scores:
    """Returns the figures of the montages in a folder, and what is left out or cannot be had here, with why.

    Args:
        folder: PNG, JPEG or WebP files, all of one size; searched through.
        settings: what to measure, and how.
        progress: is told in a line what is being measured.

    Raises:
        InputError: no pictures, montages too narrow for two windows, none with a guide, or too few windows for FID
            and KID.
        ConfigError: settings that contradict each other or the pictures.
        ModelError: the device is not there.
    """
    return of_gallery(open_gallery(folder, settings), settings, progress)


def of_gallery(gallery: Gallery, settings: Settings, progress: Progress) -> Scores:
    """Returns what `score` does, of montages that are opened already. Raises as `score`."""
    devices.check_device(settings.device)
    if "fidelity" in settings.groups:
        fidelity.check(gallery, settings)
    if "control" in settings.groups:
        control.check(gallery, settings)
    eyes = Eyes(gallery, settings)
    measure: dict[str, Callable[[], tuple[list[Measurement], list[tuple[str, str]]]]] = {
        "coherence": lambda: coherence.measure(gallery, eyes, settings, progress),
        "fidelity": lambda: fidelity.measure(gallery, eyes, settings, progress),
        "control": lambda: control.measure(gallery, settings, progress),
        "seams": lambda: seams.measure(gallery, settings, progress),
    }
    results = [measure[group]() for group in GROUPS if group in settings.groups]
    return Scores(
        measurements=tuple(measurement for measured, _ in results for measurement in measured),
        skipped=(*gallery.left_out, *(reason for _, skipped in results for reason in skipped)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """A folder of montages and its figures."""

    label: str  # what to call it
    folder: Path
    scores: Scores
    seconds: Mapping[str, float]  # that a montage took, by montage; empty where nobody wrote them down

    def measurement(self, metric: str) -> Measurement | None:
        """Returns the measurement of a metric; None if the folder has none."""
        return next((found for found in self.scores.measurements if found.metric == metric), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """What a folder has more of than a baseline in one metric, over montages of the same name."""

    metric: str
    group: str
    baseline: str  # its label
    other: str  # label of the folder that is held against it
    value: float  # other minus baseline; of the distance from 1 where nearest to 1 is best
    low: float  # 95 % bootstrap interval over pairs; nan where single montages have no figure
    high: float
    n: int  # pairs; 0 where only whole folders have a figure
    better: str  # "lower" or "higher": which sign of the value speaks for the other folder

    @property
    def verdict(self) -> str:
        """Returns "better" or "worse" of the other folder if the interval excludes 0, else "open"."""
        if math.isnan(self.low) or self.low <= 0 <= self.high:
            return "open"
        return "better" if (self.value < 0) == (self.better == "lower") else "worse"


def scored(gallery: Gallery, label: str, settings: Settings, progress: Progress) -> Scored:
    """Returns a folder with its figures. Raises `SyncControlError` as `score`, and for unreadable timings."""
    seconds = {montage: taken["seconds"] for montage, taken in read_timings(gallery.folder).items()}
    scores = of_gallery(gallery, settings, progress)
    return Scored(label=label, folder=gallery.folder, scores=scores, seconds=seconds)


def opened(folders: Sequence[Path], settings: Settings) -> list[Gallery]:
    """Returns the montages of folders.

    Raises:
        InputError: they cannot be scored, or not compared: their sizes or windows differ.
    """
    for needed in (settings.reference, settings.guides):
        if needed is not None:
            picture_files(needed)
    galleries = [open_gallery(folder, settings) for folder in folders]
    sizes = [f"{gallery.width}x{gallery.height} in windows of {gallery.window} px" for gallery in galleries]
    for folder, size in zip(folders, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"{folders[0]} holds montages of {sizes[0]}, {folder} of {size}; figures of several sizes cannot be "
                "compared; say one --window, or make the montages of one size"
            )
    return galleries


def labels(folders: Sequence[Path]) -> list[str]:
    """Returns what to call folders: their last names, or as much of their paths as tells them apart."""
    paths = [folder.resolve().parts for folder in folders]
    longest = max(len(path) for path in paths)
    shortened = (["/".join(path[-parts:]) for path in paths] for parts in range(1, longest + 1))
    return next((short for short in shortened if len(set(short)) == len(set(paths))), [str(path) for path in folders])


def differences(baseline: Scored, other: Scored, draws: int, seed: int) -> list[Difference]:
    """Returns what a folder differs by from a baseline in every metric that both have.

    Args:
        baseline: what is held against.
        other: what is asked about.
        draws: bootstrap resamples of the pairs.
        seed: of them.
    """
    pairs = [(first, other.measurement(first.metric)) for first in baseline.scores.measurements]
    return [difference(first, second, (baseline.label, other.label), draws, seed) for first, second in pairs if second]


def difference(baseline: Measurement, other: Measurement, names: tuple[str, str], draws: int, seed: int) -> Difference:
    """Returns what one measurement differs by from another of the same metric; arguments as `differences`."""

    def cost(value: float) -> float:
        return abs(value - 1) if baseline.better == "1" else value

    shared = [name for name in baseline.values if name in other.values]
    pairs = [cost(other.values[name]) - cost(baseline.values[name]) for name in shared]
    pairs = [pair for pair in pairs if not math.isnan(pair)]
    value = sum(pairs) / len(pairs) if pairs else cost(other.value) - cost(baseline.value)
    low, high = interval(np.array(pairs, np.float64), draws, seed)
    return Difference(
        metric=baseline.metric,
        group=baseline.group,
        baseline=names[0],
        other=names[1],
        value=value,
        low=low,
        high=high,
        n=len(pairs),
        better="higher" if baseline.better == "higher" else "lower",
    )
