"""Score folders of montages, compare them, and read and write their timings."""

import csv
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from synccontrol.errors import InputError
from synccontrol.evaluate import coherence, control, fidelity, seams
from synccontrol.evaluate.dataset import Gallery, image_files, open_gallery
from synccontrol.evaluate.measurement import GROUPS, Measurement, Progress, Scores, Settings, interval
from synccontrol.evaluate.networks import FeatureNetworks
from synccontrol.models import devices

TIMINGS_FILE = "timings.csv"
TIMING_COLUMNS = ("montage", "seconds", "cpu_seconds")


def append_timing(montage: Path, seconds: float, cpu_seconds: float) -> None:
    """Append the timing of a montage to its folder's timings; the last line of a montage counts.

    Args:
        montage: its file, which need not exist yet.
        seconds: wall-clock time.
        cpu_seconds: CPU time of all threads.
    """
    path = montage.parent / TIMINGS_FILE
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(TIMING_COLUMNS)
        writer.writerow([montage.name, f"{seconds:.3f}", f"{cpu_seconds:.3f}"])


def read_timings(folder: Path) -> dict[str, dict[str, float]]:
    """Return `seconds`, and `cpu_seconds` if known, by montage (path relative to the folder).

    The result is empty if there is no `timings.csv` in the folder or its subfolders.

    Raises:
        InputError: a line has no montage, or its seconds are not a number.
    """
    timings: dict[str, dict[str, float]] = {}
    for path in sorted(folder.rglob(TIMINGS_FILE)):
        subfolder = path.parent.relative_to(folder)
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    timing = {"seconds": float(row["seconds"])}
                    timing |= {"cpu_seconds": float(row["cpu_seconds"])} if row.get("cpu_seconds") else {}
                    timings[(subfolder / row["montage"]).as_posix()] = timing
                except (KeyError, TypeError, ValueError) as error:
                    columns = ", ".join(TIMING_COLUMNS)
                    raise InputError(f"{path} line {number} is not {columns}, as its first line should say") from error
    return timings


def score(folder: Path, settings: Settings, progress: Progress = lambda line: None) -> Scores:
    """Return the scores of the montages in a folder, and what is skipped, with the reason.

    Args:
        folder: folder of PNG, JPEG or WebP files of one size, searched recursively.
        settings: evaluation settings.
        progress: called with a line about the current measurement.

    Raises:
        InputError: there are no images, montages are too narrow for two windows, none has a guide, or there are too few
            windows for FID and KID.
        ConfigError: the settings contradict each other or the images.
        ModelError: the device is missing.
    """
    return measure_gallery(open_gallery(folder, settings), settings, progress)


def measure_gallery(gallery: Gallery, settings: Settings, progress: Progress) -> Scores:
    """Return the scores of montages that are opened already, as `score`."""
    devices.check_device(settings.device)
    if "fidelity" in settings.groups:
        fidelity.check(gallery, settings)
    if "control" in settings.groups:
        control.check(gallery, settings)
    eyes = FeatureNetworks(gallery, settings)
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
class FolderScores:
    """A folder of montages with its scores."""

    label: str
    folder: Path
    scores: Scores
    seconds: Mapping[str, float]  # by montage; empty without timings

    def measurement(self, metric: str) -> Measurement | None:
        """Return the measurement of a metric; None if the folder has none."""
        return next((candidate for candidate in self.scores.measurements if candidate.metric == metric), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of a folder from a baseline in one metric, over montages of the same name."""

    metric: str
    group: str
    baseline: str  # label of the baseline
    other: str  # label of the compared folder
    value: float  # other minus baseline; for metrics that are best at 1, of the distance from 1
    low: float  # 95 % bootstrap interval over pairs; nan for metrics of whole folders
    high: float
    n: int  # number of pairs; 0 for metrics of whole folders
    better: str  # "lower" or "higher": the sign of a value in favour of the compared folder

    @property
    def verdict(self) -> str:
        """Return whether the compared folder is "better" or "worse", or "open" if the interval includes 0."""
        if math.isnan(self.low) or self.low <= 0 <= self.high:
            return "open"
        return "better" if (self.value < 0) == (self.better == "lower") else "worse"


def score_folder(gallery: Gallery, label: str, settings: Settings, progress: Progress) -> FolderScores:
    """Return the scores of an opened folder. Raise the errors of `score`, and `InputError` for unreadable timings."""
    seconds = {montage: timing["seconds"] for montage, timing in read_timings(gallery.folder).items()}
    scores = measure_gallery(gallery, settings, progress)
    return FolderScores(label=label, folder=gallery.folder, scores=scores, seconds=seconds)


def open_galleries(folders: Sequence[Path], settings: Settings) -> list[Gallery]:
    """Return the montages of folders.

    Raises:
        InputError: they cannot be scored, or not compared: their sizes or windows differ.
    """
    for needed in (settings.reference, settings.guides):
        if needed is not None:
            image_files(needed)
    galleries = [open_gallery(folder, settings) for folder in folders]
    sizes = [f"{gallery.width}x{gallery.height} in windows of {gallery.window} px" for gallery in galleries]
    for folder, size in zip(folders, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"{folders[0]} holds montages of {sizes[0]}, {folder} of {size}; figures of several sizes cannot be "
                "compared; say one --window, or generate the montages in one size"
            )
    return galleries


def folder_labels(folders: Sequence[Path]) -> list[str]:
    """Return labels of folders: their last names, or as many path components as make them distinct."""
    paths = [folder.resolve().parts for folder in folders]
    longest = max(len(path) for path in paths)
    shortened = (["/".join(path[-parts:]) for path in paths] for parts in range(1, longest + 1))
    return next((short for short in shortened if len(set(short)) == len(set(paths))), [str(path) for path in folders])


def compare_folders(baseline: FolderScores, other: FolderScores, draws: int, seed: int) -> list[Difference]:
    """Return the differences of a folder from a baseline, for every metric that both have.

    Args:
        baseline: scores of the baseline.
        other: scores of the compared folder.
        draws: bootstrap resamples of the pairs.
        seed: seed of the bootstrap.
    """
    pairs = [(first, other.measurement(first.metric)) for first in baseline.scores.measurements]
    return [
        compare_measurements(first, second, (baseline.label, other.label), draws, seed)
        for first, second in pairs
        if second
    ]


def compare_measurements(
    baseline: Measurement, other: Measurement, names: tuple[str, str], draws: int, seed: int
) -> Difference:
    """Return the difference of a measurement from a baseline of the same metric.

    Arguments are those of `compare_folders`.
    """

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
