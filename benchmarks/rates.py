"""The GPi's mean rate and P_beta by pulse rate, healthy and parkinsonian: which of the two tells the plants apart.

python -m benchmarks.rates --plants 24 --seconds 10
"""

from __future__ import annotations

import argparse

import numpy as np
from gymnasium.utils.seeding import np_random

from envs.biomarkers.multitaper import beta_trace
from envs.plant.batch import BatchPlant
from envs.plant.common import N_CELLS
from envs.plant.inputs import SmcRenewal
from envs.plant.state import draw_network
from envs.stimulation import PULSE_AMPLITUDE, PULSE_WIDTH_MS
from sea_dbs.seeds import search_seeds

DT_MS = 0.02  # ms
SETTLE_MS = 2000.0  # ms without a pulse, not counted
TRANSIENT_MS = 1000.0  # ms of pulses, not counted
WINDOW_MS = 1000.0  # ms of a spectrum
STEP_MS = 500.0  # ms between two spectra


def samples(ms: float) -> int:
    """A time in samples."""
    return round(ms / DT_MS)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=10.0, help="counted on each plant")
    parser.add_argument("--hz", default="0,26,45,78,130,185", help="pulses a second")
    parser.add_argument("--pd", default="1,0", help="severities: 1 parkinsonian, 0 healthy")
    given = parser.parse_args()
    begin = samples(SETTLE_MS + TRANSIENT_MS)
    n = begin + samples(1000.0 * given.seconds)
    print("| plant | pulses a second | GPi, spikes a second a cell: mean, sd, range | P_beta: mean, sd, range |")
    print("|---|---|---|---|")
    for pd in (float(one) for one in given.pd.split(",")):
        word = {1.0: "parkinsonian", 0.0: "healthy"}.get(pd, f"severity {pd:g}")
        plants, inputs = [], []
        for seed in search_seeds(given.plants):
            generator, _ = np_random(seed)
            smc = SmcRenewal(generator, DT_MS)
            plants.append(draw_network(generator, pd))
            inputs.append(smc.take(n))
        for hz in (float(one) for one in given.hz.split(",")):
            current = np.zeros(n)
            for onset in np.arange(SETTLE_MS, n * DT_MS - PULSE_WIDTH_MS, 1000.0 / hz) if hz else ():
                current[samples(onset) : samples(onset + PULSE_WIDTH_MS)] = PULSE_AMPLITUDE
            batch = BatchPlant(plants, DT_MS, "float32")
            rates, beta = [], []
            for record in batch.advance(np.stack(inputs), current):
                spikes = record.gpi_spikes
                rates.append((spikes[:, 0] >= begin).sum() / given.seconds / N_CELLS)
                starts = np.arange(begin, n - samples(WINDOW_MS), samples(STEP_MS))
                beta.append(beta_trace(spikes, starts, samples(WINDOW_MS), DT_MS, fixed_grid=True).mean())
            told = [f"{np.mean(x):.1f}, {np.std(x):.1f}, {np.min(x):.1f} to {np.max(x):.1f}" for x in (rates, beta)]
            print(f"| {word} | {hz:g} | {told[0]} | {told[1]} |", flush=True)


if __name__ == "__main__":
    main()
