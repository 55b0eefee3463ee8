"""Scoring the drawn cells: each is scored once, and again only when its montages have changed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.frontier.draw import Studio, cell, guides, reference
from benchmarks.frontier.material import NONE
from benchmarks.frontier.methods import RENDERED
from synccontrol.evaluate import fidelity, report, scoring
from synccontrol.evaluate.dataset import open_gallery
from synccontrol.evaluate.measurement import GROUPS, Measurement, Scores, Settings, summary
from synccontrol.evaluate.scoring import Difference, FolderScores, compare_measurements, score_folder

DRAWS, SEED = 2000, 0  # of the bootstrap
PAIRS = (  # baseline, and what is held against it
    ("multidiffusion", "default"),
    ("published-10", "default"),
    ("multidiffusion", "fast"),
    ("published-10", "best"),
    ("published-all", "best"),
)


def cell_settings(studio: Studio, out: Path, control: str, method: str, offline: bool) -> Settings:
    """Returns how a cell is scored, but for fidelity, which needs more windows than a cell has.

    Depth and edges are held against the exact maps. People cannot be read off a drawn map, so that for pose they are
    read off the rendered scenes.
    """
    without = ("fidelity",) if control != NONE else ("fidelity", "control")
    return Settings(
        window=studio.window,
        stride=studio.stride if method == RENDERED else None,  # scenes have no windows: the places are the same
        groups=tuple(group for group in GROUPS if group not in without),
        guides=cell(out, control, RENDERED) if control == "pose" else guides(out, control),
        controls=() if control == NONE else (control,),
        ready_maps=control != "pose",
        offline=offline,
        draws=DRAWS,
        seed=SEED,
    )


def score_cell(studio: Studio, out: Path, control: str, method: str, offline: bool) -> FolderScores | None:
    """Returns the figures of a method under a control; None if nothing is drawn."""
    folder = cell(out, control, method)
    known = out / "scores" / f"{method}-{control}.json"
    return _scored(folder, method, cell_settings(studio, out, control, method, offline), known, out)


def score_fidelity(studio: Studio, out: Path, method: str, offline: bool) -> FolderScores | None:
    """Returns the fidelity of a method, over all controls together; None if there are too few windows for it."""
    folder = out / "montages" / method
    if len(list(folder.rglob("*.png"))) * (studio.width // studio.window) < fidelity.MIN_WINDOWS:
        return None
    wanted = Settings(
        window=studio.window,
        groups=("fidelity",),
        reference=reference(out),
        offline=offline,
        draws=DRAWS,
        seed=SEED,
    )
    return _scored(folder, method, wanted, out / "scores" / f"{method}-fidelity.json", out)


def _scored(folder: Path, method: str, wanted: Settings, known: Path, out: Path) -> FolderScores | None:
    """Returns the figures of a folder, from the last run's file where they still hold; None if it has no montages."""
    key = {
        "settings": {name: str(value) for name, value in wanted.model_dump().items()},
        "montages": {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*.png"))},
    }
    if not key["montages"]:
        return None
    if known.exists():
        stored = report.read_json(known)
        if stored["key"] == key:
            return report.from_json(stored["scored"])
    found = score_folder(open_gallery(folder, wanted), method, wanted, lambda _: None)
    found = dataclasses.replace(found, folder=folder.relative_to(out))
    known.parent.mkdir(parents=True, exist_ok=True)
    report.write_json({"key": key, "scored": report.as_json(found)}, known)
    return found


def together(cells: Mapping[str, Sequence[FolderScores]], whole: Sequence[FolderScores]) -> list[FolderScores]:
    """Returns each method over all controls: coherence and seams of all its montages, and its fidelity.

    Args:
        cells: scored methods by control.
        whole: the fidelity of the methods that have enough windows.
    """
    methods = dict.fromkeys(one.label for members in cells.values() for one in members)
    found = []
    for method in methods:
        merged = [
            summary(
                metric.metric,
                metric.group,
                metric.values,
                Settings(draws=DRAWS, seed=SEED),
                better=metric.better,
                what=metric.what,
                source=metric.source,
                bounds={},
            )
            for metric in _pooled(cells, method, "").values()
            if metric.group != "control" and metric.values
        ]
        fidelities = [figure for one in whole if one.label == method for figure in one.scores.measurements]
        seconds = {
            f"{control}/{montage}": taken
            for control, members in cells.items()
            for one in members
            if one.label == method
            for montage, taken in one.seconds.items()
        }
        scores = Scores(measurements=(*merged, *fidelities), skipped=())
        found.append(FolderScores(label=method, folder=Path("montages") / method, scores=scores, seconds=seconds))
    return found


def differences(cells: Mapping[str, Sequence[FolderScores]], kind: str = "") -> list[Difference]:
    """Returns what the methods of `PAIRS` differ by, montage by montage, over all controls together.

    Args:
        cells: scored methods by control.
        kind: only montages with this in their name; all if empty.
    """
    found = []
    for baseline, other in PAIRS:
        first, second = (_pooled(cells, method, kind) for method in (baseline, other))
        found += [
            compare_measurements(first[metric], second[metric], (baseline, other), DRAWS, SEED)
            for metric in first
            if metric in second
        ]
    return [one for one in found if one.n]


def _pooled(cells: Mapping[str, Sequence[FolderScores]], method: str, kind: str) -> dict[str, Measurement]:
    """Returns by metric the values of all of a method's montages, whatever their control."""
    pooled: dict[str, Measurement] = {}
    for control, members in cells.items():
        for measurement in (found for one in members if one.label == method for found in one.scores.measurements):
            values = {f"{control}/{name}": value for name, value in measurement.values.items() if kind in name}
            before = pooled[measurement.metric].values if measurement.metric in pooled else {}
            pooled[measurement.metric] = dataclasses.replace(measurement, values={**before, **values})
    return pooled


def cpu_seconds(folder: Path) -> list[float]:
    """Returns the CPU seconds, of all threads, that the montages of a folder took."""
    return [taken["cpu_seconds"] for taken in scoring.read_timings(folder).values()]


def rows(cells: Mapping[str, Sequence[FolderScores]]) -> list[dict[str, Any]]:
    """Returns a CSV row for every control, method and metric."""
    return [
        {"control": control, **row}
        for control, scored in cells.items()
        for one in scored
        for row in report.metric_rows(one)
    ]
