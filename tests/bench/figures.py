"""Medians, percentiles, ratios. Pure."""

import math
import statistics
from collections.abc import Mapping, Sequence


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two. Raises ValueError where there is none."""
    if not values:
        raise ValueError("no values")
    return statistics.median(values)


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed: one that was measured, never made up.

    Raises ValueError where there is none.
    """
    if not values:
        raise ValueError("no values")
    if not 0 < percent <= 100:
        raise ValueError(f"{percent:g} is no percentage above 0")
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def ratio(above: Sequence[float], below: Sequence[float]) -> float | None:
    """The ratio of two medians; None where one of them was not measured."""
    if not above or not below:
        return None
    return median(above) / median(below)


def median_marks(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median instant of each mark, over the runs that have it, in the order of these instants."""
    names = max(runs, key=len, default={})
    medians = {name: round(median([run[name] for run in runs if name in run]), 1) for name in names}
    return dict(sorted(medians.items(), key=lambda mark: mark[1]))


def growth(first: float, last: float, count: int) -> float | None:
    """What each of `count` adds beyond the first; None where there is only that."""
    return (last - first) / (count - 1) if count > 1 else None
