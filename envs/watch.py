"""A plant that is watched more closely: thalamic spikes for the error index, and the STN LFP proxy.

It advances the frozen reference kernel one sample at a time (about six times slower) and reads the state in between,
so the trajectory is the kernel's own, bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.error_index import RELAY_THRESHOLD_MV, input_onsets
from envs.biomarkers.lfp import LFP_STEP_MS, lfp_proxy, stn_synaptic_current
from envs.plant.common import TH
from envs.plant.network import Plant, Record
from envs.plant.state import Network


class Watched(NamedTuple):
    """What a `WatchedPlant` saw, in absolute samples (sample 0 = initial state)."""

    th_spikes: NDArray[np.int64]  # (n, 2) first sample above -40 mV, thalamic cell
    onsets: NDArray[np.int64]  # (m,) samples at which the sensorimotor current switched on
    lfp: NDArray[np.float64]  # (k,) µA/cm², once a millisecond
    lfp_samples: NDArray[np.int64]  # (k,) their samples


class WatchedPlant(Plant):
    """A `Plant` that keeps what the error index and the LFP need; what it kept does not travel with its state.

    Args:
        network: the draws and parameters.
        dt_ms: step of forward Euler (ms).
    """

    def __init__(self, network: Network, dt_ms: float = 0.02) -> None:
        super().__init__(network, dt_ms)
        self._kept: list[Watched] = []
        self._smc = 0.0  # input at the current sample

    def advance(self, smc: NDArray[np.float64], dbs: NDArray[np.float64]) -> Record:
        """See `Plant.advance`."""
        every = round(LFP_STEP_MS / self.dt_ms)
        start, V = self.sample, self.state.V[TH]
        onsets = input_onsets(smc, start + 1, self._smc)
        records, spikes, lfp = [], [], []
        for i in range(len(smc)):
            below = V < RELAY_THRESHOLD_MV
            records.append(super().advance(smc[i : i + 1], dbs[i : i + 1]))
            crossed = below & (V > RELAY_THRESHOLD_MV)
            if crossed.any():
                spikes += [(start + 1 + i, cell) for cell in np.flatnonzero(crossed)]
            if (start + 1 + i) % every == 0:
                lfp.append(lfp_proxy(stn_synaptic_current(self.state, self.network, self._tables, self.dt_ms)))
        if len(smc):
            self._smc = float(smc[-1])
        lfp_samples = np.arange(start // every + 1, self.sample // every + 1, dtype=np.int64) * every
        self._kept.append(Watched(np.array(spikes, dtype=np.int64).reshape(-1, 2), onsets, np.array(lfp), lfp_samples))
        return Record(
            np.concatenate([np.zeros((0, 3), dtype=np.int64), *(record.events for record in records)]),
            np.concatenate([np.zeros((0, 2), dtype=np.int64), *(record.gpi_spikes for record in records)]),
        )

    @property
    def watched(self) -> Watched:
        """Everything seen since this object was made."""
        if not self._kept:
            return Watched(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        return Watched(*(np.concatenate(parts) for parts in zip(*self._kept, strict=True)))
