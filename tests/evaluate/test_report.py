"""Comparisons, tables, files and plots of the evaluation, on hand-made figures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.evaluate import html_report, report, scoring
from synccontrol.evaluate.measurement import Measurement, Scores
from synccontrol.evaluate.scoring import FolderScores

NAMES = ("first", "second")
numbers = st.floats(-1e3, 1e3, allow_subnormal=False)


def figure(values: Mapping[str, float], better: str = "lower", **other: Any) -> Measurement:
    """Return a measurement with these values by montage."""
    mean = float(np.mean(list(values.values()))) if values else 0.5
    settings = {"metric": "Intra-LPIPS", "group": "coherence", "bounds": {"one crop repeated": 0.0}}
    settings |= {"value": mean, "low": mean - 0.1, "high": mean + 0.1, "n": max(len(values), 1)} | other
    return Measurement(better=better, what="How different <windows> are.", source="a paper", values=values, **settings)


def folder(label: str, *measurements: Measurement, seconds: Mapping[str, float] | None = None) -> FolderScores:
    """Return a scored folder."""
    scores = Scores(measurements=measurements, skipped=(("FID", "needs pictures"),))
    return FolderScores(label=label, folder=Path(label), scores=scores, seconds=seconds or {})


def difference(first: Measurement, second: Measurement) -> scoring.Difference:
    return scoring.compare_measurements(first, second, NAMES, 500, 0)


def test_a_constant_shift_is_the_difference_and_its_interval() -> None:
    values = {"a": 0.5, "b": 0.25, "c": 0.75}
    found = difference(figure(values), figure({name: value - 0.125 for name, value in values.items()}))
    assert (found.value, found.low, found.high, found.n) == (-0.125, -0.125, -0.125, 3)
    assert found.verdict == "better"


def test_the_interval_is_that_of_the_mean_of_the_pairs() -> None:
    pairs = np.random.default_rng(0).normal(0.3, 1.0, 40)
    first = {f"{i}": 5.0 * i for i in range(40)}  # whatever the montages have in common cancels
    second = {name: value + pair for (name, value), pair in zip(first.items(), pairs, strict=True)}
    found = scoring.compare_measurements(figure(first), figure(second), NAMES, 4000, 0)
    error = pairs.std() / math.sqrt(len(pairs))
    assert found.value == pytest.approx(pairs.mean())
    assert found.low == pytest.approx(pairs.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(pairs.mean() + 1.96 * error, abs=0.15 * error)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6))
def test_swapping_the_folders_negates_the_difference(pairs: list[tuple[float, float]]) -> None:
    first, second = (figure({f"{i}": pair[side] for i, pair in enumerate(pairs)}) for side in (0, 1))
    one = scoring.compare_measurements(first, second, NAMES, 30, 0)
    other = scoring.compare_measurements(second, first, NAMES, 30, 0)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-6)


@pytest.mark.parametrize(("better", "verdict"), [("lower", "worse"), ("higher", "better")])
def test_the_verdict_depends_on_which_direction_is_better(better: str, verdict: str) -> None:
    first, second = (figure({"a": 1.0 + more, "b": 2.0 + more}, better) for more in (0.0, 0.5))
    assert difference(first, second).verdict == verdict


def test_metrics_best_at_one_compare_distances_from_one() -> None:
    found = difference(figure({"a": 0.8, "b": 0.8}, "1"), figure({"a": 1.1, "b": 1.1}, "1"))
    assert found.value == pytest.approx(-0.1)
    assert (found.better, found.verdict) == ("lower", "better")


def test_only_montages_of_the_same_name_are_pairs() -> None:
    found = difference(figure({"a": 1.0, "b": 1.0, "only": 99.0}), figure({"a": 2.0, "b": 4.0, "other": -99.0}))
    assert (found.value, found.n) == (2.0, 2)


def test_one_pair_or_none_has_an_open_verdict() -> None:
    one = difference(figure({"a": 1.0}), figure({"a": 2.0}))
    assert (one.value, one.n, one.verdict) == (1.0, 1, "open")
    none = difference(figure({}, value=3.0), figure({}, value=1.0))
    assert (none.value, none.n, none.verdict) == (-2.0, 0, "open")
    assert math.isnan(none.low)


def test_labels_are_the_shortest_distinct_paths() -> None:
    assert scoring.folder_labels([Path("/out/a"), Path("/out/b")]) == ["a", "b"]
    assert scoring.folder_labels([Path("/one/out"), Path("/two/out")]) == ["one/out", "two/out"]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9))
def test_numbers_keep_three_digits(value: float) -> None:
    assert float(report.format_number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_the_table_lists_values_intervals_bounds_and_missing_metrics() -> None:
    lines = report.text_table([folder("mine", figure({"a": 0.4, "b": 0.6}))], [])
    assert any("Intra-LPIPS  0.5 [0.4, 0.6]" in line and "lower" in line for line in lines)
    assert any("one crop repeated 0" in line for line in lines)
    assert "  FID: needs pictures" in lines


def test_the_table_of_two_folders_has_a_column_each_and_the_verdict() -> None:
    folders = [folder("plain", figure({"a": 0.4, "b": 0.6})), folder("synced", figure({"a": 0.3, "b": 0.5}))]
    lines = report.text_table(folders, scoring.compare_folders(*folders, 200, 0))
    values = next(line for line in lines if line.startswith("  Intra-LPIPS"))
    head = lines[0]
    assert values[head.index("plain") :].startswith("0.5 [0.4, 0.6], 2")
    assert values[head.index("synced") :].startswith("0.4 [0.3, 0.5], 2")
    start = next(index for index, line in enumerate(lines) if "synced minus plain" in line)
    assert any("-0.1 [-0.1, -0.1]" in line and line.endswith("better") for line in lines[start:])


def scored() -> FolderScores:
    whole = figure({}, metric="KID", group="fidelity", low=math.nan, high=math.nan)
    return folder("mine", figure({"deep/a.png": 0.1, "b.png": math.nan}, value=0.1), whole, seconds={"b.png": 2.5})


def test_json_round_trip(tmp_path: Path) -> None:
    report.write_json(report.as_json(scored()), tmp_path / "a.json")
    back = report.from_json(report.read_json(tmp_path / "a.json"))
    assert report.as_json(back) == report.as_json(scored())
    assert math.isnan(back.scores.measurements[1].low)
    assert math.isnan(back.scores.measurements[0].values["b.png"])
    assert "NaN" not in (tmp_path / "a.json").read_text()


def test_csv_round_trip(tmp_path: Path) -> None:
    report.write_csv(report.metric_rows(scored()), tmp_path / "metrics.csv")
    report.write_csv(report.montage_rows(scored()), tmp_path / "montages.csv")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        lpips, kid = csv.DictReader(file)
    assert (lpips["metric"], float(lpips["value"]), int(lpips["n"])) == ("Intra-LPIPS", 0.1, 2)
    assert (kid["low"], kid["group"]) == ("", "fidelity")
    with (tmp_path / "montages.csv").open(newline="") as file:
        rows = [(row["montage"], row["metric"], row["value"]) for row in csv.DictReader(file)]
    assert rows == [
        ("deep/a.png", "Intra-LPIPS", "0.1"),
        ("b.png", "Intra-LPIPS", ""),
        ("b.png", "seconds", "2.5"),
    ]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    rows = [{"montage": "=1+2.png", "value": -0.5}, {"montage": "a.png", "value": float("nan")}]
    report.write_csv(rows, tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text().splitlines() == ["montage,value", "'=1+2.png,-0.5", "a.png,"]


@pytest.mark.parametrize("text", ["", "[1", "no"])
def test_broken_json_is_an_input_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="holds no results"):
        report.read_json(tmp_path / "a.json")


def test_timings_round_trip_and_the_last_line_counts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    scoring.append_timing(tmp_path / "a.png", 1.5, 3.0)
    scoring.append_timing(tmp_path / "a.png", 2.5, 4.0)
    scoring.append_timing(tmp_path / "deep" / "b.png", 1.0, 1.0)
    assert scoring.read_timings(tmp_path) == {
        "a.png": {"seconds": 2.5, "cpu_seconds": 4.0},
        "deep/b.png": {"seconds": 1.0, "cpu_seconds": 1.0},
    }


def test_timings_work_without_cpu_seconds_and_reject_text(tmp_path: Path) -> None:
    (tmp_path / scoring.TIMINGS_FILE).write_text("montage,seconds\na.png,3\n")
    assert scoring.read_timings(tmp_path) == {"a.png": {"seconds": 3.0}}
    (tmp_path / scoring.TIMINGS_FILE).write_text("montage,seconds\na.png,3\nb.png,soon\n")
    with pytest.raises(InputError, match=r"timings\.csv line 3 is not montage, seconds"):
        scoring.read_timings(tmp_path)


coordinates = st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float))
sides = st.sampled_from(["lower", "higher"])


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(coordinates, min_size=1, max_size=8), st.tuples(sides, sides))
def test_the_frontier_holds_the_unbeaten_points(points: list[tuple[float, float]], better: tuple[str, str]) -> None:
    found = html_report.frontier(points, better)

    def at_least(a: float, b: float, side: str) -> bool:
        return a <= b if side == "lower" else a >= b

    for point in points:
        beaten = any(other != point and all(map(at_least, other, point, better)) for other in points)
        assert (point in found) != beaten


def test_plots_are_pngs_of_the_known_metrics() -> None:
    kid = figure({}, metric="KID", group="fidelity")
    values = {"a": 0.4, "b": 0.6}
    alone = folder("plain", figure(values))
    assert [plot.file for plot in html_report.make_plots([alone])] == ["metrics.png"]
    both = [
        folder("plain", figure(values), kid, seconds={"a": 2.0}),
        folder("synced", figure(values), kid, seconds={"a": 3.0}),
    ]
    drawn = html_report.make_plots(both)
    assert [plot.file for plot in drawn] == ["metrics.png", "fidelity.png", "seconds.png"]
    for plot in drawn:
        with Image.open(io.BytesIO(plot.png)) as image:
            assert len(image.convert("L").getcolors() or []) > 2  # not blank


def test_results_are_valid_json(tmp_path: Path) -> None:
    found = scoring.compare_folders(scored(), scored(), 20, 0)
    report.write_json({"differences": [report.difference_json(one) for one in found]}, tmp_path / "a.json")
    kid = json.loads((tmp_path / "a.json").read_text())["differences"][1]
    assert (kid["metric"], kid["low"], kid["verdict"]) == ("KID", None, "open")
