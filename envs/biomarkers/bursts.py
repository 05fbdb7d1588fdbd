"""Beta bursts: when beta stands above a threshold, for how long, how often.

Definition of Tinkhauser et al. 2017 (Brain 140:1053): the threshold is the 75th percentile of the beta amplitude, a
burst lasts at least 100 ms. Compare conditions with ONE threshold, taken from the untreated state: each condition's
own percentile is exceeded by a quarter of its samples by construction.

The trace may be P_beta or the LFP's `beta_envelope`. P_beta of 1 s windows cannot show bursts much shorter than its
window; the envelope can.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

THRESHOLD_PERCENTILE = 75.0  # %, Tinkhauser 2017
MIN_BURST_MS = 100.0  # ms, Tinkhauser 2017
DURATION_EDGES_MS = np.arange(100.0, 1000.0, 100.0)  # ms, bins 100-200 ... 800-900 and above 900, Tinkhauser 2017

Floats = NDArray[np.float64]


class Bursts(NamedTuple):
    """The bursts of one trace, in time order."""

    threshold: float  # unit of the trace
    onsets_ms: Floats  # (n,) from the trace's first sample
    durations_ms: Floats  # (n,)
    peaks: Floats  # (n,) largest value of each burst
    complete: NDArray[np.bool_]  # (n,) False where the trace's start or end cuts the burst: it lasted longer
    share_above: float  # share of all samples above the threshold, short excursions included
    length_ms: float  # length of the trace

    @property
    def rate_per_min(self) -> float:
        """Bursts a minute."""
        return 60_000.0 * len(self.onsets_ms) / self.length_ms

    @property
    def mean_duration_ms(self) -> float:
        """Mean duration of the complete bursts (ms); NaN when there is none."""
        return float(self.durations_ms[self.complete].mean()) if self.complete.any() else float("nan")

    def distribution(self, edges_ms: Floats = DURATION_EDGES_MS) -> Floats:
        """Share of the complete bursts in each duration bin, the last one open, shape (len(edges),)."""
        counts, _ = np.histogram(self.durations_ms[self.complete], [*edges_ms, np.inf])
        return np.asarray(counts / max(1, counts.sum()), dtype=np.float64)


def burst_threshold(trace: Floats, percentile: float = THRESHOLD_PERCENTILE) -> float:
    """The threshold that a reference trace (the untreated state) gives.

    Raises:
        UserError: a percentile outside 0..100, or a trace that is empty or not finite.
    """
    if not 0.0 <= percentile <= 100.0:
        raise UserError(f"the percentile is {percentile:g}: allowed are 0 to 100")
    return float(np.percentile(_checked(trace), percentile))


def find_bursts(
    trace: Floats, step_ms: float, *, threshold: float | None = None, min_ms: float = MIN_BURST_MS
) -> Bursts:
    """The bursts of a beta trace.

    Args:
        trace: beta power or amplitude at equal steps, shape (n,).
        step_ms: time between two samples (ms).
        threshold: a sample strictly above it belongs to a burst; None takes `burst_threshold` of this trace.
        min_ms: shorter excursions are no bursts.

    Raises:
        UserError: an empty or non-finite trace, or a step that is not above 0.
    """
    trace = _checked(trace)
    if not step_ms > 0.0:
        raise UserError(f"the step of the beta trace is {step_ms} ms: allowed are values above 0")
    if threshold is None:
        threshold = burst_threshold(trace)
    above = trace > threshold
    edges = np.diff(np.concatenate([[False], above, [False]]).astype(np.int8))
    first, stop = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long = (stop - first) * step_ms >= min_ms - 1e-9
    first, stop = first[long], stop[long]
    times: Floats = np.stack([first, stop]).astype(np.float64) * step_ms
    return Bursts(
        threshold=float(threshold),
        onsets_ms=times[0],
        durations_ms=times[1] - times[0],
        peaks=np.array([trace[a:b].max() for a, b in zip(first, stop, strict=True)], dtype=np.float64),
        complete=(first > 0) & (stop < len(trace)),
        share_above=float(above.mean()),
        length_ms=len(trace) * step_ms,
    )


def _checked(trace: Floats) -> Floats:
    trace = np.asarray(trace, dtype=np.float64)
    if trace.ndim != 1 or len(trace) == 0:
        raise UserError(f"the beta trace has shape {trace.shape}: expected (n,) with at least one sample")
    if not np.isfinite(trace).all():
        raise UserError(f"sample {int(np.flatnonzero(~np.isfinite(trace))[0])} of the beta trace is not finite")
    return trace
