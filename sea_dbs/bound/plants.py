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
    """Networks with their coming inputs known, advanced together, a pulse train each.

    Args:
        plants: which plant each lane is; the same one as often as it is tried.
        threads: blocks of 8 lanes at the same time.
    """

    def __init__(self, plants: Sequence[Plant], threads: int = 1) -> None:
        self.plants = plants
        self.at = 0  # samples since the end of settling
        self._batch = BatchPlant([plant.network for plant in plants], DT_MS, "float32", threads)
        self.put([plant.state for plant in plants], 0)

    def put(self, states: Sequence[LaneState], at: int) -> None:
        """Let the lanes go on from these states, all of one time (samples since the end of settling)."""
        self.at = at
        for i, state in enumerate(states):
            self._batch.put(i, self.plants[i].network, state)
        self._origins = [self._batch.sample_of(i) - at for i in range(len(states))]

    def take(self, i: int) -> LaneState:
        """Where a lane stands."""
        return self._batch.take(i)

    def advance(self, trains: Sequence[Onsets], n: int) -> list[Spikes | None]:
        """Go on by ``n`` samples, with a pulse at each onset (samples from here).

        Returns:
            The GPi spikes of those samples in each lane, counted from the end of settling; None: it diverged.
        """
        current = np.zeros((len(self._batch), n))
        for i, train in enumerate(trains):
            for onset in train:
                current[i, onset : onset + WIDTH] = CONFIG.amplitude_uA_cm2
        smc = np.stack([plant.smc[self.at : self.at + n] for plant in self.plants])
        failed: set[int] = set()
        try:
            records = self._batch.advance(smc, current)
        except NetworkFailedError as error:
            records, failed = error.records, set(error.failures)
        self.at += n
        return [
            None if i in failed else _since(record.gpi_spikes, self._origins[i]) for i, record in enumerate(records)
        ]


def newest_beta(spikes: Spikes, end: int) -> float:
    """P_beta of the window that ends with a sample (counted from the end of settling)."""
    return float(beta_trace(spikes, np.array([end - WINDOW]), WINDOW, DT_MS, fixed_grid=True)[0])


def mean_beta(spikes: Spikes, first: int, end: int, step: int) -> float:
    """Mean P_beta of the windows that begin at ``first`` or later and end by ``end``, one every ``step`` samples."""
    starts = np.arange(first, end - WINDOW + 1, step)
    return float(beta_trace(spikes, starts, WINDOW, DT_MS, fixed_grid=True).mean())
