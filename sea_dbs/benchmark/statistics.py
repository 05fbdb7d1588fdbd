"""Summaries over runs, as Agarwal et al. 2021 (NeurIPS, "Deep RL at the edge of the statistical precipice") ask for:
interquartile mean, stratified bootstrap, probability of improvement, sample-efficiency curves.

Their library, rliable 1.2.0, needs arch 7.2.0, which does not import beside the pandas 3 that our recordings need, and
it draws from NumPy's global generator; its four formulas stand here, on SciPy, with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 5000
LEVEL = 95.0  # %
TRIM = 0.25  # of each end: interquartile mean

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where one run gives none."""

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, digits: int = 0) -> str:
        """``298 (268 to 313)``."""
        value = f"{self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return value
        low, high = f"{self.low:.{digits}f}", f"{self.high:.{digits}f}"
        return value if low == value == high else f"{value} ({low} to {high})"

    @property
    def above_zero(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low is not None and self.low > 0.0


def as_scores(values: Sequence[float] | Sequence[Sequence[float]] | Values) -> Values:
    """(runs, tasks); a plain list is one task."""
    scores = np.asarray(values, np.float64)
    return scores[:, None] if scores.ndim == 1 else scores


def iqm_of(scores: Values) -> float:
    """Interquartile mean over runs and tasks together."""
    return float(stats.trim_mean(scores.reshape(-1), TRIM))


def _resampled(scores: Values, generator: np.random.Generator) -> Values:
    """(RESAMPLES, runs, tasks): runs drawn anew within each task."""
    runs, tasks = scores.shape
    index = generator.integers(runs, size=(RESAMPLES, runs, tasks))
    drawn: Values = scores[index, np.arange(tasks)]
    return drawn


def aggregate(values: Sequence[float] | Sequence[Sequence[float]] | Values) -> Estimate:
    """Interquartile mean with its 95 % stratified bootstrap interval (percentiles); runs are resampled by task."""
    scores = as_scores(values)
    if len(scores) < 2:
        return Estimate(iqm_of(scores))
    drawn = _resampled(scores, np.random.default_rng(0)).reshape(RESAMPLES, -1)
    low, high = np.percentile(stats.trim_mean(drawn, TRIM, axis=1), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(iqm_of(scores), float(low), float(high))


def paired(a: Sequence[float] | Values, b: Sequence[float] | Values) -> Estimate:
    """`aggregate` of ``a - b`` on the same plants."""
    return aggregate(as_scores(np.asarray(a, np.float64) - np.asarray(b, np.float64)))


def improvement(a: Sequence[float] | Values, b: Sequence[float] | Values) -> Estimate:
    """Probability that a run of ``a`` is above a run of ``b`` (ties count half), mean over tasks; independent runs."""
    x, y = as_scores(a), as_scores(b)
    if len(x) < 2 or len(y) < 2:
        return Estimate(float(_above(x[None], y[None])[0]))
    generator = np.random.default_rng(0)
    drawn = _above(_resampled(x, generator), _resampled(y, generator))
    low, high = np.percentile(drawn, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(float(_above(x[None], y[None])[0]), float(low), float(high))


def _above(x: Values, y: Values) -> Values:
    """(draws, runs, tasks) twice -> (draws,)."""
    pairs = x[:, :, None, :] - y[:, None, :, :]
    won: Values = ((pairs > 0).mean(axis=(1, 2)) + 0.5 * (pairs == 0).mean(axis=(1, 2))).mean(axis=1)
    return won


@dataclass(frozen=True)
class Curve:
    """A measure over environment steps: interquartile mean over runs, and its band."""

    steps: Values
    value: Values
    low: Values
    high: Values


def curve(steps: Values, runs: Values) -> Curve:
    """(points,) and (runs, points) -> `Curve`; with a single run the band is the line."""
    each = [aggregate(column) for column in runs.T]
    value = np.array([one.value for one in each])
    low = np.array([one.value if one.low is None else one.low for one in each])
    high = np.array([one.value if one.high is None else one.high for one in each])
    return Curve(np.asarray(steps, np.float64), value, low, high)


def first_reached(steps: Values, values: Values, level: float) -> float:
    """The first step from which on a falling measure has come down to ``level``; infinity if it never has."""
    hit = np.flatnonzero(np.asarray(values) <= level)
    return float(steps[hit[0]]) if len(hit) else float("inf")
