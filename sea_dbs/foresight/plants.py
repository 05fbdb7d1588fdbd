"""Settled plants whose coming inputs are known, for trying many pulse trains on the same future.

Times are samples of 0.02 ms from the end of settling. float32: a realisation with the plant's statistics, as in every
search of ours, and one that repeats byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from envs.biomarkers.multitaper import beta_trace
from envs.config import env_config
from envs.errors import UserError
from envs.plant.batch import BatchPlant, Failure, NetworkFailedError
from envs.plant.batch_block import LaneState
from envs.plant.inputs import SmcRenewal
from envs.plant.state import Network, draw_network

CONFIG = env_config("paper", precision="float32")  # pulses, spectrum and settling are those of every environment
DT_MS = CONFIG.dt_ms
WINDOW = round(CONFIG.window_ms / DT_MS)  # samples of a spectrum
WIDTH = round(CONFIG.width_ms / DT_MS)  # samples of a pulse
MIN_GAP = math.ceil(1000.0 / 185.0 / DT_MS)  # samples between onsets: 185 Hz, the envelope's limit (SPEC.md)

Spikes = NDArray[np.int64]  # (n, 2): sample and GPi cell, in order of time
Onsets = NDArray[np.int64]  # (n,): samples at which pulses begin, ascending


class Plant(NamedTuple):
    """One network after `settle_ms` without stimulation, and the cortical input that awaits it."""

    seed: int
    network: Network
    state: LaneState
    smc: NDArray[np.float64]  # (n,) µA/cm², a value a sample
    spikes: Spikes  # while it settled: samples below 0


def samples(ms: float) -> int:
    """A duration (ms) in whole samples, rounded."""
    return round(ms / DT_MS)


def settled(seed: int, n: int) -> Plant:
    """The network that an environment draws with this seed, as its reset leaves it, and ``n`` samples of its input.

    Raises:
        UserError: the network diverges while it settles.
    """
    generator, _ = np_random(seed)
    smc = SmcRenewal(generator, DT_MS)  # the order of an environment's draws
    network = draw_network(generator, CONFIG.pd)
    settle = samples(CONFIG.settle_ms)
    batch = BatchPlant([network], DT_MS, "float32")
    [record] = batch.advance(smc.take(settle), np.zeros(settle))
    return Plant(seed, network, batch.take(0), smc.take(n), _since(record.gpi_spikes, batch.sample_of(0)))


def _since(spikes: Spikes, sample: int) -> Spikes:
    """The same spikes, counted from a sample."""
    return np.asarray(spikes - np.array([sample, 0]))


class Trials:
    """One plant many times over, a pulse train each.

    Args:
        plant: which plant.
        lanes: how often.
        threads: blocks of 8 lanes at the same time.
    """

    def __init__(self, plant: Plant, lanes: int, threads: int = 1) -> None:
        self.plant = plant
        self.failures: list[Failure] = []  # of all networks that diverged so far
        self._batch = BatchPlant([plant.network] * lanes, DT_MS, "float32", threads)
        self.put([plant.state] * lanes, 0)

    def put(self, states: Sequence[LaneState], at: int) -> None:
        """Let the lanes go on from these states, one a lane, all of the time ``at``."""
        self.at = at
        for i, state in enumerate(states):
            self._batch.put(i, self.plant.network, state)
        self._origins = [self._batch.sample_of(i) - at for i in range(len(states))]

    def take(self, i: int) -> LaneState:
        """Where a lane stands."""
        return self._batch.take(i)

    def advance(self, trains: Sequence[Onsets], n: int) -> list[Spikes | None]:
        """Go on by ``n`` samples, lane by lane with a pulse at each onset (counted from here).

        Returns:
            The GPi spikes of those samples in each lane; None: its network diverged.

        Raises:
            UserError: a train too many or too few, or a pulse that does not lie within the n samples or meets another.
        """
        if len(trains) != len(self._batch):
            raise UserError(f"{len(trains)} pulse trains were given for {len(self._batch)} lanes: one each is needed")
        current = np.zeros((len(trains), n))
        for i, train in enumerate(trains):
            if len(train) and (train[0] < 0 or train[-1] > n - WIDTH or (np.diff(train) < WIDTH).any()):
                raise UserError(
                    f"the pulse train of lane {i} does not fit: pulses {WIDTH} samples apart, in 0 to {n - WIDTH}"
                )
            current[i, (train[:, None] + np.arange(WIDTH)).ravel()] = CONFIG.amplitude_uA_cm2
        smc = np.broadcast_to(self.plant.smc[self.at : self.at + n], current.shape)
        failed: dict[int, Failure] = {}
        try:
            records = self._batch.advance(smc, current)
        except NetworkFailedError as error:
            records, failed = error.records, error.failures
            self.failures += failed.values()
        self.at += n
        return [
            None if i in failed else _since(record.gpi_spikes, self._origins[i]) for i, record in enumerate(records)
        ]


def newest_beta(spikes: Spikes, end: int) -> float:
    """P_beta (as `envs.biomarkers.multitaper.beta_trace` has it) of the window that ends with a sample."""
    return float(beta_trace(spikes, np.array([end - WINDOW]), WINDOW, DT_MS, fixed_grid=True)[0])


def mean_beta(spikes: Spikes, first: int, end: int, step: int) -> float:
    """Mean P_beta of the windows that begin at ``first`` or later and end by ``end``, one every ``step`` samples."""
    starts = np.arange(first, end - WINDOW + 1, step)
    return float(beta_trace(spikes, starts, WINDOW, DT_MS, fixed_grid=True).mean())
