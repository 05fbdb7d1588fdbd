"""Fixed trains of pulses in groups, the strongest open-loop trains known to us: beta by group size and rate within one.

python -m benchmarks.groups --hz 25.7 --within 184,130 --sizes 8,12,14,16,20 --beside out/timing-26/evaluation.json

With --beside, an evaluation on the same plants: by how much each train lies above its policy, plant by plant.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sea_dbs.files import read_json
from sea_dbs.foresight.plants import MIN_GAP, WIDTH, Onsets, Trials, mean_beta, samples, settled
from sea_dbs.seeds import held_out_seeds
from sea_dbs.statistics import interval, iqm

SECONDS = 20.0  # s on each plant, as in docs/RESULTS.md
TRANSIENT_MS = 1000.0  # ms that no window holds
STEP_MS = 100.0  # ms between two windows

Floats = NDArray[np.float64]


def grouped(size: int, within_hz: float, mean_hz: float, n: int) -> Onsets:
    """Onsets of ``size`` pulses at ``within_hz``, again and again so that ``mean_hz`` are given, in n samples."""
    period_ms = 1000.0 * size / mean_hz
    group_ms = 1000.0 * np.arange(size) / within_hz
    starts_ms = np.arange(0.0, 1000.0 * SECONDS, period_ms)
    onsets = np.array([samples(t) for t in (starts_ms[:, None] + group_ms).ravel()])
    onsets = onsets[onsets < n - WIDTH]
    if (np.diff(onsets) < MIN_GAP - 1).any():  # a sample of rounding
        raise SystemExit(f"{size} pulses at {within_hz:g} Hz, {mean_hz:g} on average, come closer than 185 Hz allows")
    return onsets


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, default=25.7, help="pulses a second on average")
    parser.add_argument("--within", default="184,130", help="rates within a group (Hz)")
    parser.add_argument("--sizes", default="8,12,14,16,20", help="pulses of a group")
    parser.add_argument("--plants", type=int, default=20)
    parser.add_argument("--beside", type=Path, help="evaluation.json of a policy on the same plants")
    given = parser.parse_args()
    kinds = [(int(size), float(hz)) for hz in given.within.split(",") for size in given.sizes.split(",")]
    n = samples(1000.0 * SECONDS)
    trains = [np.zeros(0, np.int64), *(grouped(size, within, given.hz, n) for size, within in kinds)]
    rows: list[list[float]] = []
    for seed in held_out_seeds(given.plants):
        trials = Trials(plant := settled(seed, n), len(trains))
        spikes = trials.advance(trains, n)
        del plant
        beta = [np.nan if one is None else mean_beta(one, samples(TRANSIENT_MS), n, samples(STEP_MS)) for one in spikes]
        rows.append([100.0 * one / beta[0] for one in beta])
    found = np.array(rows)
    policy = None
    if given.beside is not None:
        told = next(row for row in read_json(given.beside)["rows"] if row["controller"] == "policy")
        policy = np.array(told["plants"]["percent_of_untreated"][: given.plants], np.float64)
    print("| group | pulses a second | beta, % of untreated | above the policy, points |\n|---|---|---|---|")
    for (size, within), train, values in zip(kinds, trains[1:], found[:, 1:].T, strict=True):
        apart = "" if policy is None else _told(values - policy, sign="+")
        print(f"| {size} at {within:g} Hz | {len(train) / SECONDS:.1f} | {_told(values)} | {apart} |")


def _told(values: Floats, sign: str = "") -> str:
    """Interquartile mean and interval of what is there."""
    values = values[~np.isnan(values)]
    low, high = interval(values) or (np.nan, np.nan)
    return f"{iqm(values):{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f}; {len(values)} plants)"


if __name__ == "__main__":
    main()
