"""Settled plants whose coming inputs are known, for trying many pulse trains on the same future."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from envs.biomarkers.multitaper import beta_trace
from envs.config import env_config
from envs.plant.batch import BatchPlant, NetworkFailedError
from envs.plant.batch_block import LaneState
from envs.plant.inputs import SmcRenewal
from envs.plant.state import Network, draw_network

CONFIG = env_config("paper", precision="float32")  # pulses, spectrum and settling are those of every environment
DT_MS = CONFIG.dt_ms
WINDOW = round(CONFIG.window_ms / DT_MS)  # samples of a spectrum
WIDTH = round(CONFIG.width_ms / DT_MS)  # samples of a pulse

Spikes = NDArray[np.int64]
Onsets = NDArray[np.int64]  # samples at which pulses begin


class Plant(NamedTuple):
    """One network after `settle_ms` without stimulation, and the cortical input that awaits it."""

    seed: int
    network: Network
    state: LaneState
    smc: NDArray[np.float64]  # µA/cm², one value a sample
    spikes: Spikes  # of the GPi while it settled: (n, 2), sample from the end of settling, and cell


def samples(ms: float) -> int:
    """A duration in samples."""
    return round(ms / DT_MS)


def settled(seed: int, ms: float) -> Plant:
    """The network that an environment draws with this seed, as its reset leaves it, with ``ms`` of its input."""
    generator, _ = np_random(seed)
    smc = SmcRenewal(generator, DT_MS)  # the order of an environment's draws
    network = draw_network(generator, CONFIG.pd)
    n = samples(CONFIG.settle_ms)
    batch = BatchPlant([network], DT_MS, "float32")
    [record] = batch.advance(smc.take(n), np.zeros(n))
    spikes = _since(record.gpi_spikes, batch.sample_of(0))
    return Plant(seed, network, batch.take(0), smc.take(samples(ms)), spikes)


def _since(spikes: Spikes, sample: int) -> Spikes:
    """The same spikes, counted from a sample."""
    return np.asarray(spikes - np.array([sample, 0]))


class Trials:
    """Many pulse trains tried on one plant at once.

    Args:
        plant: the plant.
        lanes: trains at the same time.
        threads: blocks of 8 lanes at the same time.
    """

    def __init__(self, plant: Plant, lanes: int, threads: int = 1) -> None:
        self.plant = plant
        self._batch = BatchPlant([plant.network] * lanes, DT_MS, "float32", threads)

    def run(
        self, states: Sequence[LaneState], trains: Sequence[Onsets], start: int, n: int
    ) -> list[tuple[Spikes | None, LaneState]]:
        """Continue each state by ``n`` samples with a pulse at each onset (from ``start``, samples).

        Returns:
            The GPi spikes of those samples, counted from the end of settling (None: the network diverged), and the
            state at the end, train by train.
        """
        current = np.zeros((len(self._batch), n))
        for i, train in enumerate(trains):
            self._batch.put(i, self.plant.network, states[i])
            for onset in train:
                current[i, onset : onset + WIDTH] = CONFIG.amplitude_uA_cm2
        origins = [self._batch.sample_of(i) - start for i in range(len(trains))]
        smc = np.broadcast_to(self.plant.smc[start : start + n], current.shape)
        failed: set[int] = set()
        try:
            records = self._batch.advance(smc, current)
        except NetworkFailedError as error:
            records, failed = error.records, set(error.failures)
        return [
            (None if i in failed else _since(records[i].gpi_spikes, origins[i]), self._batch.take(i))
            for i in range(len(trains))
        ]


def newest_beta(spikes: Spikes, end: int) -> float:
    """P_beta of the window that ends with a sample (counted from the end of settling)."""
    return float(beta_trace(spikes, np.array([end - WINDOW]), WINDOW, DT_MS, fixed_grid=True)[0])


def mean_beta(spikes: Spikes, first: int, end: int, step: int) -> float:
    """Mean P_beta of the windows that begin at ``first`` or later and end by ``end``, one every ``step`` samples."""
    starts = np.arange(first, end - WINDOW + 1, step)
    return float(beta_trace(spikes, starts, WINDOW, DT_MS, fixed_grid=True).mean())
