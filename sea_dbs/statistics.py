"""Summaries over plants: interquartile mean, bootstrap intervals, paired comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 95.0  # percent

Values = Sequence[float] | NDArray[np.float64]


def iqm(values: Values) -> float:
    """Interquartile mean: the mean of the middle half (a quarter, rounded down, is dropped at each end)."""
    return float(_iqm(np.asarray(values, np.float64)[None, :])[0])


def _iqm(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(rows, axis=1)
    cut = ordered.shape[1] // 4
    means: NDArray[np.float64] = ordered[:, cut : ordered.shape[1] - cut].mean(axis=1)
    return means


def interval(values: Values) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the interquartile mean; None for a single value, which has none.

    The resampling has a fixed seed: equal values, equal interval.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    index = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.percentile(_iqm(array[index]), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def mean_interval(values: Values) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean; None for a single value. Equal values, equal interval.

    For differences that a few plants make: the interquartile mean does not see them.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    index = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.percentile(array[index].mean(axis=1), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def surely_greater(a: Values, b: Values) -> bool:
    """Whether ``a`` exceeds ``b`` on the same plants: the interval of the paired difference lies above 0."""
    bounds = interval(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    return bounds is not None and bounds[0] > 0
