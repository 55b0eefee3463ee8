"""Intervals of constants, of one value, and how often intervals hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synccontrol.evaluate.measurement import Settings, interval, resamples, summary


def test_constants_have_an_interval_of_no_width() -> None:
    assert interval(np.full(7, 0.25), 100, 0) == (0.25, 0.25)


def test_one_value_has_no_interval() -> None:
    assert all(math.isnan(end) for end in interval(np.array([3.0]), 100, 0))


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.integers(0, 5))
def test_intervals_lie_inside_the_values_and_depend_on_the_seed_alone(values: list[float], seed: int) -> None:
    array = np.array(values)
    low, high = interval(array, 50, seed)
    assert array.min() - 1e-9 <= low <= high <= array.max() + 1e-9
    assert (low, high) == interval(array, 50, seed)


def test_resamples_have_as_many_draws_as_montages() -> None:
    assert all(counts.sum() == 9 and counts.shape == (9,) for counts in resamples(9, 20, 0))


def test_intervals_have_their_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in (interval(rng.normal(size=40), 200, i) for i in range(100))]
    assert 85 <= sum(held) <= 100


def test_a_summary_is_the_mean_over_montages() -> None:
    found = summary(
        "m", "seams", {"a": 1.0, "b": 3.0}, Settings(), better="1", what="w", source="s", bounds={"no seam": 1.0}
    )
    assert (found.value, found.n, found.low, found.high) == (2.0, 2, 1.0, 3.0)
    assert dict(found.values) == {"a": 1.0, "b": 3.0}
    with pytest.raises(AssertionError):
        summary("m", "taste", {"a": 1.0}, Settings(), better="1", what="w", source="s", bounds={})
