"""Beta bursts on traces whose bursts are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.biomarkers.bursts import burst_threshold, find_bursts
from envs.errors import UserError


def _trace(*intervals: tuple[int, int, float], n: int = 4000) -> np.ndarray:
    """Zeros, raised to a height from first to stop (ms; one sample a ms)."""
    trace = np.zeros(n)
    for first, stop, height in intervals:
        trace[first:stop] = height
    return trace


def test_bursts_have_their_onsets_durations_peaks_and_rate() -> None:
    bursts = find_bursts(_trace((500, 650, 2.0), (1000, 1700, 3.0), (2000, 2099, 5.0)), 1.0, threshold=1.0)
    assert bursts.onsets_ms.tolist() == [500.0, 1000.0]  # 99 ms are too short
    assert bursts.durations_ms.tolist() == [150.0, 700.0]
    assert bursts.peaks.tolist() == [2.0, 3.0]
    assert bursts.complete.all()
    assert bursts.share_above == pytest.approx((150 + 700 + 99) / 4000)
    assert bursts.rate_per_min == pytest.approx(30.0)  # 2 in 4 s
    assert bursts.mean_duration_ms == 425.0
    assert bursts.distribution().tolist() == [0.5, 0, 0, 0, 0, 0, 0.5, 0, 0]  # 100-200 and 700-800 ms


def test_shortest_burst_and_step() -> None:
    assert find_bursts(_trace((500, 600, 2.0)), 1.0, threshold=1.0).durations_ms.tolist() == [100.0]
    coarse = find_bursts(np.array([0.0, 2, 2, 2, 2, 2, 0, 2, 2, 2, 2, 0]), 20.0, threshold=1.0)
    assert coarse.durations_ms.tolist() == [100.0]  # five samples of 20 ms, not four
    assert coarse.onsets_ms.tolist() == [20.0]


def test_default_threshold_is_the_75th_percentile() -> None:
    trace = np.arange(1000, dtype=np.float64)
    bursts = find_bursts(trace, 1.0)
    assert bursts.threshold == pytest.approx(np.percentile(trace, 75.0))
    assert bursts.share_above == pytest.approx(0.25)
    assert bursts.durations_ms.tolist() == [250.0]
    assert bursts.complete.tolist() == [False]  # the trace ends within it
    assert np.isnan(bursts.mean_duration_ms)
    assert bursts.distribution().sum() == 0.0
    assert find_bursts(trace, 1.0, threshold=burst_threshold(trace, 50.0)).share_above == pytest.approx(0.5)


def test_a_flat_trace_has_no_burst() -> None:
    bursts = find_bursts(np.full(1000, 3.0), 1.0)
    assert len(bursts.onsets_ms) == len(bursts.peaks) == 0
    assert bursts.share_above == bursts.rate_per_min == 0.0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=40), st.integers(1, 20))
def test_bursts_are_the_long_runs_of_a_trace(runs: list[tuple[bool, int]], step: int) -> None:
    trace = np.concatenate([np.full(n, 1.0 if high else -1.0) for high, n in runs])
    merged: list[tuple[bool, int]] = []
    for high, n in runs:
        if merged and merged[-1][0] == high:
            merged[-1] = (high, merged[-1][1] + n)
        else:
            merged.append((high, n))
    expected = [float(n * step) for high, n in merged if high and n * step >= 100]
    assert find_bursts(trace, float(step), threshold=0.0).durations_ms.tolist() == expected


@pytest.mark.parametrize("trace", [np.zeros(0), np.zeros((3, 3)), np.array([1.0, np.nan])])
def test_unusable_traces_are_refused(trace: np.ndarray) -> None:
    with pytest.raises(UserError, match="beta trace"):
        find_bursts(trace, 1.0)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="step of the beta trace is 0"):
        find_bursts(np.ones(10), 0.0)
    with pytest.raises(UserError, match="percentile is 101"):
        burst_threshold(np.ones(10), 101.0)
