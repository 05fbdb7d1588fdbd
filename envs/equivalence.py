"""Are two plants statistically the same? Two one-sided tests on paired seeds, with stated margins.

float32 leaves the trajectory of float64 after 0.1 to 0.4 s (the network is chaotic) and must then keep its statistics.
Each seed gives the same network and inputs to both; of each measure the 90 % confidence interval of the mean paired
difference must lie inside the margin (two one-sided tests at 5 %, Schuirmann 1987, J Pharmacokinet Biopharm 15:657).

Margins: rates ±3 % or 0.2 Hz (the larger), P_beta ±5 %, CV of intervals ±0.05, cross-correlation peak ±10 %. And one
narrower: the rates of GPe and GPi over all conditions together, ±0.5 %. Without it a change of g(GPe->GPe) by 5 %,
which moves the GPe by 0.7 % and P_beta of the healthy plant by 3 %, stays inside every other margin (measured).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.multitaper import beta_trace
from envs.errors import UserError
from envs.plant.batch import LANES, BatchPlant
from envs.plant.common import GPE, GPI, N_CELLS, POPULATIONS, STN, TH
from envs.plant.inputs import SmcRenewal
from envs.plant.network import Record
from envs.plant.state import Network, draw_network
from envs.stimulation import regular_train

CONDITIONS = {"con": (0.0, 0.0), "pd": (1.0, 0.0), "pd130": (1.0, 130.0), "pd50": (1.0, 50.0), "pd30": (1.0, 30.0)}
ALL = "all"  # the condition of the rows that pool the others
FIRST_SEED = 1000  # apart from the seeds of oracle files and goldens
SKIP_MS = 500.0  # ms of each run that do not count: both precisions still follow one trajectory
WINDOW_MS = 1000.0  # ms, of a spectrum
MIN_INTERVALS = 10  # of a cell, for a coefficient of variation
PAIRS = ((STN, GPI), (GPE, GPI), (GPI, TH))  # of the cross-correlations, along the pathway
MAX_LAG_MS, SMOOTH_MS = 30, 5  # ms, of the cross-correlations, in bins of 1 ms

RATE_SHARE, RATE_HZ = 0.03, 0.2
BETA_SHARE, CV_MARGIN, PEAK_SHARE = 0.05, 0.05, 0.10
POOLED_SHARE = 0.005
CONFIDENCE = 0.90

Floats = NDArray[np.float64]
Measures = dict[str, float]  # NaN where it is undefined, as the CV of a population that hardly fires


# -- what is measured ----------------------------------------------------------------------------------------------


def measure(record: Record, start: int, stop: int, dt_ms: float) -> Measures:
    """Rates (Hz), CV of intervals, cross-correlation peaks and P_beta of a run between two samples."""
    events = record.events[(record.events[:, 0] > start) & (record.events[:, 0] <= stop)]
    of = [events[events[:, 1] == p][:, [0, 2]] for p in range(len(POPULATIONS))]
    seconds = (stop - start) * dt_ms / 1000.0
    found = {f"rate {name}": len(of[p]) / N_CELLS / seconds for p, name in enumerate(POPULATIONS)}
    found |= {f"CV {name}": interval_cv(of[p]) for p, name in enumerate(POPULATIONS)}
    for a, b in PAIRS:
        name = f"peak {POPULATIONS[a]}-{POPULATIONS[b]}"
        found[name] = correlation_peak(of[a][:, 0], of[b][:, 0], start, stop, dt_ms)
    window = round(WINDOW_MS / dt_ms)
    starts = np.arange(start, stop - window + 1, window)
    found["P_beta"] = float(np.mean(beta_trace(record.gpi_spikes, starts, window, dt_ms, fixed_grid=True)))
    return found


def interval_cv(spikes: NDArray[np.int64]) -> float:
    """Mean over cells of sd/mean of their intervals; spikes (n, 2) are sample, cell. NaN if no cell has ten."""
    cvs = []
    for k in range(N_CELLS):
        intervals = np.diff(np.sort(spikes[spikes[:, 1] == k, 0]))
        if len(intervals) >= MIN_INTERVALS:
            cvs.append(float(np.std(intervals) / np.mean(intervals)))
    return float(np.mean(cvs)) if cvs else float("nan")


def correlation_peak(
    source: NDArray[np.int64], target: NDArray[np.int64], start: int, stop: int, dt_ms: float
) -> float:
    """Largest coincidence of target with source at lags of 0 to 30 ms, as a multiple of chance; NaN if one is silent.

    Population counts in bins of 1 ms; the target's are smoothed over 5 ms.
    """
    n = int((stop - start) * dt_ms)
    x, y = (
        np.bincount(np.clip(((spikes - start - 1) * dt_ms).astype(np.int64), 0, n - 1), minlength=n).astype(np.float64)
        for spikes in (source, target)
    )
    if not (x.any() and y.any()):
        return float("nan")
    y = np.convolve(y, np.full(SMOOTH_MS, 1.0 / SMOOTH_MS), mode="same")
    chance = x.mean() * y.mean()
    return float(max(np.mean(x[: n - lag] * y[lag:]) for lag in range(MAX_LAG_MS + 1)) / chance)


# -- the plant -------------------------------------------------------------------------------------------------------


def simulate(
    condition: str,
    seeds: Sequence[int],
    seconds: float,
    precision: str,
    *,
    change: float = 0.0,
    threads: int = 1,
    dt_ms: float = 0.02,
) -> Iterator[list[Measures]]:
    """Measures of one run a seed, in groups of 8 × threads seeds.

    Args:
        condition: of `CONDITIONS`.
        seeds: each gives a network and its inputs, the same in every precision.
        seconds: counted time of a run (s), after `SKIP_MS`.
        precision: float64 or float32.
        change: relative change of g(GPe->GPe): 0.05 plants an error of 5 %.
        threads: blocks of 8 networks at a time.
        dt_ms: plant step (ms).

    Raises:
        UserError: less than a spectrum's window, or no such condition or precision.
    """
    if condition not in CONDITIONS:
        raise UserError(f"unknown condition '{condition}': allowed are {', '.join(CONDITIONS)}")
    if not seconds * 1000.0 >= WINDOW_MS:
        raise UserError(f"--seconds is {seconds:g}: allowed are {WINDOW_MS / 1000.0:g} s and more")
    skip, window = round(SKIP_MS / dt_ms), round(WINDOW_MS / dt_ms)
    stop = skip + round(seconds * 1000.0 / dt_ms)
    pd, stim_hz = CONDITIONS[condition]
    current = regular_train(stim_hz, stop, dt_ms)
    size = LANES * threads
    for first in range(0, len(seeds), size):
        rngs = [np.random.default_rng(seed) for seed in seeds[first : first + size]]
        networks = [_changed(draw_network(rng, pd), change) for rng in rngs]
        trains = [SmcRenewal(rng, dt_ms) for rng in rngs]
        plant = BatchPlant(networks, dt_ms, precision, threads)
        parts = []
        for begin in range(0, stop, window):  # second by second: little memory
            part = current[begin : begin + window]
            smc = np.stack([train.take(len(part)) for train in trains])
            parts.append(plant.advance(smc, np.broadcast_to(part, smc.shape)))
        yield [measure(_joined(records), skip, stop, dt_ms) for records in zip(*parts, strict=True)]


def _changed(network: Network, change: float) -> Network:
    return network._replace(g_gpe_gpe=(1.0 + change) * network.g_gpe_gpe)


def _joined(records: Sequence[Record]) -> Record:
    events = np.concatenate([record.events for record in records])
    return records[0]._replace(events=events, gpi_spikes=np.concatenate([record.gpi_spikes for record in records]))


# -- the test --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One measure of one condition, compared."""

    condition: str
    measure: str
    seeds: int  # pairs in which it is defined
    reference: float  # mean
    difference: float  # mean of candidate minus reference
    low: float  # 90 % interval of the mean difference
    high: float
    margin: float
    equivalent: bool

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return asdict(self)


def interval(differences: Floats) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of its 90 % confidence interval (Student's t); needs two or more."""
    from scipy import stats

    n = len(differences)
    mean = float(np.mean(differences))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2.0, n - 1) * np.std(differences, ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def margin_of(name: str, reference: float) -> float:
    """The margin of a measure, in its unit, by the reference's mean."""
    kind = name.split()[0]
    if kind == "rate":
        return max(RATE_SHARE * reference, RATE_HZ)
    return {"CV": CV_MARGIN, "peak": PEAK_SHARE * reference, "P_beta": BETA_SHARE * reference}[kind]


def compare(reference: Mapping[str, Sequence[Measures]], candidate: Mapping[str, Sequence[Measures]]) -> list[Row]:
    """All rows; by condition one `Measures` a seed, in the same order of seeds.

    A measure that is undefined in most reference runs is left out (a silent population has no intervals); one that is
    undefined in the candidate where the reference has it is not equivalent.

    Raises:
        UserError: fewer than two seeds, or not the same number.
    """
    rows = []
    for condition, ours in reference.items():
        theirs = candidate[condition]
        if len(ours) != len(theirs) or len(ours) < 2:
            raise UserError(
                f"{len(ours)} and {len(theirs)} runs of '{condition}': a comparison needs two pairs or more"
            )
        for name in ours[0]:
            a, b = (np.array([run[name] for run in runs]) for runs in (ours, theirs))
            known = np.isfinite(a)
            if 2 * known.sum() < len(a) or known.sum() < 2:
                continue
            rows.append(_row(condition, name, a[known], b[known], margin_of(name, float(np.mean(a[known])))))
    for name in ("rate gpe", "rate gpi"):
        rows.append(_pooled(reference, candidate, name))
    return rows


def _row(condition: str, name: str, a: Floats, b: Floats, margin: float) -> Row:
    both = np.isfinite(b)
    reference = float(np.mean(a))
    if both.sum() < max(2, 0.9 * len(a)):
        nan = float("nan")
        return Row(condition, name, int(both.sum()), reference, nan, nan, nan, margin, False)
    mean, low, high = interval(b[both] - a[both])
    return Row(condition, name, int(both.sum()), reference, mean, low, high, margin, -margin < low and high < margin)


def _pooled(reference: Mapping[str, Sequence[Measures]], candidate: Mapping[str, Sequence[Measures]], name: str) -> Row:
    """Relative differences of a rate, averaged over the conditions of each seed."""
    ratios = []
    for condition, ours in reference.items():
        a, b = (np.array([run[name] for run in runs]) for runs in (ours, candidate[condition]))
        ratios.append((b - a) / np.mean(a))
    mean, low, high = interval(np.mean(ratios, axis=0))
    inside = low > -POOLED_SHARE and high < POOLED_SHARE
    return Row(ALL, f"{name}, relative", len(ratios[0]), 1.0, mean, low, high, POOLED_SHARE, inside)
