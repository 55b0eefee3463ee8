"""Figures in words and files: the table on the terminal, JSON and CSV."""

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.errors import InputError, OutputError
from synccontrol.evaluate.measurement import Measurement, Scores
from synccontrol.evaluate.scoring import Difference, Scored

DASH = "–"  # noqa: RUF001  what stands where there is no number
QUESTIONS = {  # by group
    "coherence": "are all windows of a montage one scene?",
    "fidelity": "does it look like the reference, and like the prompt?",
    "control": "does it follow the guide?",
    "seams": "do the borders of the windows show?",
}
METRICS_CSV, MONTAGES_CSV, JSON = "metrics.csv", "montages.csv", "results.json"


def number(value: float) -> str:
    """Returns a value to three significant digits, or a dash for nan."""
    if math.isnan(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"


def with_interval(figure: Measurement | Difference) -> str:
    """Returns a value and its 95 % interval, as "0.41 [0.38, 0.45]"; without the interval where there is none."""
    if math.isnan(figure.low):
        return number(figure.value)
    return f"{number(figure.value)} [{number(figure.low)}, {number(figure.high)}]"


def best(figure: Measurement) -> str:
    """Returns in words which values are good."""
    return "nearest to 1" if figure.better == "1" else figure.better


def verdict(found: Difference) -> str:
    """Returns in words what a difference says about the other folder."""
    if not found.n:
        return "not paired: only whole folders have this figure"
    return found.verdict if found.verdict != "open" else "not clearly different: the interval holds 0"


def bounds(figure: Measurement) -> str:
    """Returns in words what to hold a value against."""
    return ", ".join(f"{what} {number(value)}" for what, value in figure.bounds.items())


def metrics(folders: Sequence[Scored]) -> list[Measurement]:
    """Returns one measurement of every metric that any folder has, in the order of the first that has it."""
    found: dict[str, Measurement] = {}
    for folder in folders:
        for measurement in folder.scores.measurements:
            found.setdefault(measurement.metric, measurement)
    return sorted(found.values(), key=lambda measurement: list(QUESTIONS).index(measurement.group))


def table(folders: Sequence[Scored], differences: Sequence[Difference]) -> list[str]:
    """Returns the lines of the report for a terminal: by group, a line per metric; then what folders differ by.

    Args:
        folders: one, or several whose figures stand side by side.
        differences: of the others from the first.
    """
    known = metrics(folders)
    if len(folders) == 1:
        head = ["metric", "value [95 % interval]", "n", "better is", "to hold it against"]
        rows = [[m.metric, with_interval(m), str(m.n), best(m), bounds(m)] for m in known]
    else:
        head = ["metric", "better is", *(f"{folder.label}, n" for folder in folders)]
        rows = [[m.metric, best(m), *(_figure(folder, m.metric) for folder in folders)] for m in known]
    lines = _grouped(head, rows, [m.group for m in known])
    for other in dict.fromkeys(found.other for found in differences):
        shown = [found for found in differences if found.other == other]
        head = [f"{other} minus {shown[0].baseline}", "difference [95 % interval]", "pairs", f"{other} is"]
        cells = [[found.metric, with_interval(found), str(found.n), verdict(found)] for found in shown]
        lines += ["", *_grouped(head, cells, [found.group for found in shown])]
    missing = dict.fromkeys(pair for folder in folders for pair in folder.scores.skipped)
    if missing:
        lines += ["", "not measured", *(f"  {metric}: {why}" for metric, why in missing)]
    return lines


def _figure(folder: Scored, metric: str) -> str:
    found = folder.measurement(metric)
    return f"{with_interval(found)}, {found.n}" if found else DASH


def _grouped(head: Sequence[str], rows: Sequence[Sequence[str]], groups: Sequence[str]) -> list[str]:
    """Returns the lines of a table, its columns aligned, its rows under the questions of their groups."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()

    lines = [line(head)]
    for group, question in QUESTIONS.items():
        members = [row for row, own in zip(rows, groups, strict=True) if own == group]
        lines += [f"{group}: {question}", *map(line, members)] if members else []
    return lines


def metric_rows(folder: Scored) -> list[dict[str, Any]]:
    """Returns a CSV row for each of a folder's metrics."""
    return [
        {
            "folder": folder.label,
            "group": found.group,
            "metric": found.metric,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "n": found.n,
            "better": found.better,
            "bounds": bounds(found),
        }
        for found in folder.scores.measurements
    ]


def montage_rows(folder: Scored) -> list[dict[str, Any]]:
    """Returns a CSV row for each of a folder's montages and metrics, and one for its seconds where they are known."""
    figures = {found.metric: found.values for found in folder.scores.measurements} | {"seconds": folder.seconds}
    return [
        {"folder": folder.label, "montage": montage, "metric": metric, "value": value}
        for metric, values in figures.items()
        for montage, value in values.items()
    ]


def write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes rows of the same columns; nan is an empty cell, and a text that a spreadsheet would run has a ' before it.

    Raises:
        OutputError: the file cannot be written.
    """
    known = list(rows)
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(known[0]) if known else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in known)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error


def _cell(value: Any) -> Any:
    """Returns a value as a cell. Text that begins with = + - @ is a formula to spreadsheets (OWASP, CSV injection)."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return "" if value != value else value


def as_json(folder: Scored) -> dict[str, Any]:
    """Returns a folder's figures as JSON values; nan is null."""
    return {
        "label": folder.label,
        "folder": str(folder.folder),
        "measurements": [
            {name: _null(value) for name, value in _fields(found).items()} for found in folder.scores.measurements
        ],
        "skipped": [list(pair) for pair in folder.scores.skipped],
        "seconds": dict(folder.seconds),
    }


def difference_json(found: Difference) -> dict[str, Any]:
    """Returns a difference as JSON values, with its verdict; nan is null."""
    return {name: _null(value) for name, value in _fields(found).items()} | {"verdict": found.verdict}


def from_json(values: Mapping[str, Any]) -> Scored:
    """Returns the folder that `as_json` wrote."""
    measurements = tuple(Measurement(**{k: _nan(v) for k, v in found.items()}) for found in values["measurements"])
    skipped = tuple((metric, why) for metric, why in values["skipped"])
    return Scored(
        label=values["label"],
        folder=Path(values["folder"]),
        scores=Scores(measurements=measurements, skipped=skipped),
        seconds=values["seconds"],
    )


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes JSON values. Raises `OutputError` if the file cannot be written."""
    try:
        path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error


def read_json(path: Path) -> dict[str, Any]:
    """Returns what `write_json` wrote. Raises `InputError` if the file cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no results ({error}); score the folder again") from error
    assert isinstance(values, dict)
    return values


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _null(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _nan(inner) for name, inner in value.items()}
    return math.nan if value is None else value
