"""Evaluation results as text tables, JSON and CSV."""

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.errors import InputError, OutputError
from synccontrol.evaluate.measurement import Measurement, Scores
from synccontrol.evaluate.scoring import Difference, FolderScores

DASH = "–"  # noqa: RUF001  stands for a missing number
QUESTIONS = {  # by group
    "coherence": "are all windows of a montage one scene?",
    "fidelity": "does it look like the reference, and like the prompt?",
    "control": "does it follow the guide?",
    "seams": "do the borders of the windows show?",
}
METRICS_CSV, MONTAGES_CSV, JSON = "metrics.csv", "montages.csv", "results.json"


def format_number(value: float) -> str:
    """Return a value with three significant digits, or a dash for nan."""
    if math.isnan(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"


def format_interval(figure: Measurement | Difference) -> str:
    """Return a value with its 95 % interval, as "0.41 [0.38, 0.45]"; without one, only the value."""
    if math.isnan(figure.low):
        return format_number(figure.value)
    return f"{format_number(figure.value)} [{format_number(figure.low)}, {format_number(figure.high)}]"


def better_text(figure: Measurement) -> str:
    """Return which values of a metric are good, as text."""
    return "nearest to 1" if figure.better == "1" else figure.better


def verdict_text(difference: Difference) -> str:
    """Return the verdict of a difference as text."""
    if not difference.n:
        return "not paired: only whole folders have this figure"
    return difference.verdict if difference.verdict != "open" else "not clearly different: the interval holds 0"


def bounds_text(figure: Measurement) -> str:
    """Return the values to compare a measurement with, as text."""
    return ", ".join(f"{what} {format_number(value)}" for what, value in figure.bounds.items())


def all_metrics(folders: Sequence[FolderScores]) -> list[Measurement]:
    """Return one measurement per metric of any folder, in the order of the groups."""
    by_name: dict[str, Measurement] = {}
    for folder in folders:
        for measurement in folder.scores.measurements:
            by_name.setdefault(measurement.metric, measurement)
    return sorted(by_name.values(), key=lambda measurement: list(QUESTIONS).index(measurement.group))


def text_table(folders: Sequence[FolderScores], differences: Sequence[Difference]) -> list[str]:
    """Return the lines of the report for a terminal: metrics by group, then the differences of folders.

    Args:
        folders: one folder, or several to show side by side.
        differences: differences of the other folders from the first.
    """
    metrics = all_metrics(folders)
    if len(folders) == 1:
        head = ["metric", "value [95 % interval]", "n", "better is", "to hold it against"]
        rows = [[m.metric, format_interval(m), str(m.n), better_text(m), bounds_text(m)] for m in metrics]
    else:
        head = ["metric", "better is", *(f"{folder.label}, n" for folder in folders)]
        rows = [[m.metric, better_text(m), *(_figure(folder, m.metric) for folder in folders)] for m in metrics]
    lines = _grouped(head, rows, [m.group for m in metrics])
    for other in dict.fromkeys(difference.other for difference in differences):
        selected = [difference for difference in differences if difference.other == other]
        head = [f"{other} minus {selected[0].baseline}", "difference [95 % interval]", "pairs", f"{other} is"]
        cells = [
            [difference.metric, format_interval(difference), str(difference.n), verdict_text(difference)]
            for difference in selected
        ]
        lines += ["", *_grouped(head, cells, [difference.group for difference in selected])]
    missing = dict.fromkeys(pair for folder in folders for pair in folder.scores.skipped)
    if missing:
        lines += ["", "not measured", *(f"  {metric}: {why}" for metric, why in missing)]
    return lines


def _figure(folder: FolderScores, metric: str) -> str:
    measurement = folder.measurement(metric)
    return f"{format_interval(measurement)}, {measurement.n}" if measurement else DASH


def _grouped(head: Sequence[str], rows: Sequence[Sequence[str]], groups: Sequence[str]) -> list[str]:
    """Return the lines of a table with aligned columns and its rows grouped."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()

    lines = [line(head)]
    for group, question in QUESTIONS.items():
        members = [row for row, own in zip(rows, groups, strict=True) if own == group]
        lines += [f"{group}: {question}", *map(line, members)] if members else []
    return lines


def metric_rows(folder: FolderScores) -> list[dict[str, Any]]:
    """Return a CSV row for each metric of a folder."""
    return [
        {
            "folder": folder.label,
            "group": measurement.group,
            "metric": measurement.metric,
            "value": measurement.value,
            "low": measurement.low,
            "high": measurement.high,
            "n": measurement.n,
            "better": measurement.better,
            "bounds": bounds_text(measurement),
        }
        for measurement in folder.scores.measurements
    ]


def montage_rows(folder: FolderScores) -> list[dict[str, Any]]:
    """Return a CSV row for each montage and metric of a folder, and one for its seconds if known."""
    figures = {measurement.metric: measurement.values for measurement in folder.scores.measurements} | {
        "seconds": folder.seconds
    }
    return [
        {"folder": folder.label, "montage": montage, "metric": metric, "value": value}
        for metric, values in figures.items()
        for montage, value in values.items()
    ]


def write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows with the same columns.

    nan becomes an empty cell; text that a spreadsheet would run as a formula is escaped.

    Raises:
        OutputError: the file cannot be written.
    """
    row_list = list(rows)
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row_list[0]) if row_list else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in row_list)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error


def _cell(value: Any) -> Any:
    """Return a value as a CSV cell.

    Text that begins with = + - @ is a formula in spreadsheets (OWASP, CSV injection).
    """
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return "" if value != value else value


def as_json(folder: FolderScores) -> dict[str, Any]:
    """Return a folder's scores as JSON values; nan is null."""
    return {
        "label": folder.label,
        "folder": str(folder.folder),
        "measurements": [
            {name: _nan_to_null(value) for name, value in _fields(measurement).items()}
            for measurement in folder.scores.measurements
        ],
        "skipped": [list(pair) for pair in folder.scores.skipped],
        "seconds": dict(folder.seconds),
    }


def difference_json(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON values, with its verdict; nan is null."""
    return {name: _nan_to_null(value) for name, value in _fields(difference).items()} | {"verdict": difference.verdict}


def from_json(values: Mapping[str, Any]) -> FolderScores:
    """Return the folder scores from the output of `as_json`."""
    measurements = tuple(
        Measurement(**{k: _null_to_nan(v) for k, v in fields.items()}) for fields in values["measurements"]
    )
    skipped = tuple((metric, why) for metric, why in values["skipped"])
    return FolderScores(
        label=values["label"],
        folder=Path(values["folder"]),
        scores=Scores(measurements=measurements, skipped=skipped),
        seconds=values["seconds"],
    )


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write JSON values. Raises `OutputError` if the file cannot be written."""
    try:
        path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a results file. Raise `InputError` if it cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no results ({error}); score the folder again") from error
    assert isinstance(values, dict)
    return values


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _nan_to_null(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _null_to_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _null_to_nan(inner) for name, inner in value.items()}
    return math.nan if value is None else value
