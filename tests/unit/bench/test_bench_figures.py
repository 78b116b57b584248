"""Medians, percentiles, ratios: what they say of few and of many values."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.figures import growth, median, median_marks, nearest_rank, ratio

_VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [
        (1, 95, 1),
        (2, 95, 2),
        (5, 95, 5),
        (19, 95, 19),
        (20, 95, 19),
        (21, 95, 20),
        (100, 95, 95),
        (4, 50, 2),
        (3, 1, 1),
    ],
)
def test_the_nearest_rank(count: int, percent: float, expected: int) -> None:
    """Of 1 to `count`, in whatever order."""
    assert nearest_rank([*range(count, 0, -1)], percent) == expected


@given(_VALUES, st.integers(1, 100))
def test_the_nearest_rank_was_measured_and_enough_are_not_above_it(values: list[float], percent: int) -> None:
    found = nearest_rank(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(_VALUES)
def test_the_median_is_python_s(values: list[float]) -> None:
    assert median(values) == statistics.median(values)


def test_there_is_none_of_nothing() -> None:
    for look in (median, lambda values: nearest_rank(values, 95)):
        with pytest.raises(ValueError, match="no values"):
            look([])
    for percent in (0, -1, 101):
        with pytest.raises(ValueError, match="no percentage"):
            nearest_rank([1.0], percent)


def test_a_ratio_is_that_of_medians() -> None:
    assert ratio([1, 100, 10], [2, 2, 50]) == 5
    assert ratio([], [1]) is None
    assert ratio([1], []) is None


def test_marks_are_over_the_runs_that_have_them() -> None:
    runs = [{"a": 0.0, "b": 1.0}, {"a": 0.0, "retried": 5.0, "b": 9.0}, {"a": 0.0, "b": 2.0}]
    assert median_marks(runs) == {"a": 0.0, "retried": 5.0, "b": 2.0}
    assert [*median_marks(runs)] == ["a", "b", "retried"]
    assert median_marks([]) == {}


def test_growth_is_what_each_adds_beyond_the_first() -> None:
    assert growth(100, 550, 10) == 50
    assert growth(100, 100, 1) is None
