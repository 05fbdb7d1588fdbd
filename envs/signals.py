"""What the environment keeps to observe more than P_beta: the STN LFP as a device records it, and samples of each slot.

Everything here is causal: a value uses what lies before the sample at which it is observed, and is never revised.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.lfp import LFP_STEP_MS, band_power
from envs.config import EnvConfig
from envs.plant.common import N_CELLS
from envs.plant.network import Record

# (µA/cm²)², 13-35 Hz power of the LFP proxy per unit of observation: untreated plants (71 ± 7 over 8 networks) then
# stand at 0.45, where their P_beta/1000 stands
LFP_BETA_SCALE = 160.0
LFP_SCALE = 50.0  # µA/cm², LFP proxy per unit of observation: its mean of 20 in untreated plants becomes 0.4
RATE_SCALE_HZ = 100.0  # Hz, rate of a GPi cell per unit of observation: 37 Hz of untreated plants become 0.37

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LfpTrack:
    """The LFP proxy, a value a millisecond, sampled and held over pulses: while a pulse blanks it, the last value that
    was good stands.

    Args:
        config: of the environment; a pulse blanks the samples in [p, p + artefact_ms).
    """

    def __init__(self, config: EnvConfig) -> None:
        back_ms = config.slots_observed * config.slot_ms
        if config.view == "trace":
            back_ms = (config.n_obs - 1) * config.stride_ms
        span_ms = config.window_ms + back_ms
        self._every = round(LFP_STEP_MS / config.dt_ms)
        self._hidden = round(config.artefact_ms / config.dt_ms)
        self._length = round(config.window_ms / LFP_STEP_MS)  # values of a window
        self._keep = math.ceil(span_ms / LFP_STEP_MS) + 2
        self.values: Floats = np.zeros(0)  # µA/cm², oldest first; the last one is value ``count - 1`` since sample 0
        self.count = 0

    def add(self, records: list[Record], pulses: Ints) -> None:
        """What the plant recorded, and the samples at which pulses began (sorted; those of the last 20 ms suffice)."""
        samples = np.concatenate([record.lfp_samples for record in records])
        new = np.concatenate([record.lfp for record in records])
        bad = np.searchsorted(pulses, samples, "right") > np.searchsorted(pulses, samples - self._hidden, "right")
        last = self.values[-1:] if len(self.values) else new[:1]
        line = np.concatenate([last, new])
        good = np.maximum.accumulate(np.concatenate([[0], np.where(bad, 0, np.arange(1, len(new) + 1))]))
        self.values = np.concatenate([self.values, line[good[1:]]])[-self._keep :]
        self.count += len(new)

    def beta(self, ends: Ints) -> Floats:
        """13-35 Hz power (µA/cm²)² of the windows whose last value lies before each of ``ends`` (samples)."""
        first = self.count - len(self.values)
        return band_power(self.values, -(-ends // self._every) - first, self._length)

    def slot_means(self, edges: Ints) -> Floats:
        """Mean (µA/cm²) of the values in each slot edges[i] .. edges[i + 1] (samples), shape (len(edges) - 1,)."""
        at = -(-edges // self._every) - (self.count - len(self.values))
        total = np.concatenate([[0.0], np.cumsum(self.values)])
        return np.asarray((total[at[1:]] - total[at[:-1]]) / np.diff(at))

    def get_state(self) -> dict[str, Any]:
        """The values that later windows can hold."""
        return {"values": self.values.copy(), "count": self.count}

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self.values, self.count = np.array(values["values"], dtype=np.float64), int(values["count"])


def slot_rates(spikes: Ints, edges: Ints, dt_ms: float) -> Floats:
    """Mean GPi rate (Hz a cell) in each slot edges[i] .. edges[i + 1] (absolute samples), shape (len(edges) - 1,)."""
    at = np.searchsorted(spikes[:, 0], edges)
    return np.asarray(np.diff(at) / (N_CELLS * np.diff(edges) * dt_ms / 1000.0))
