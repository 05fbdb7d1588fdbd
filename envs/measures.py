"""What an environment tells with ``measures=True``: thalamic relay, the wider beta band, excursions of beta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.error_index import error_index, input_onsets
from envs.biomarkers.multitaper import spectrum
from envs.config import EnvConfig
from envs.plant.network import Record
from envs.watch import Watched

WIDE_BAND_HZ = (7.0, 35.0)  # Hz, alpha and beta

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Measures:
    """Everything of an episode that the measures need, its settling included, and the measures themselves.

    It grows with the episode (8 kB a simulated second for the LFP), so it is there only where it is asked for.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        self._window = round(config.window_ms / config.dt_ms)
        self._watched = Watched(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        self._smc = 0.0  # sensorimotor current at the last sample handed over
        self._above_ms = 0.0  # for which P_beta has now been above the threshold
        self._every = round(config.measures_every_ms / config.dt_ms)
        self._taken = 0  # sample at which the slow measures were taken last
        self._told: dict[str, Any] = {}  # and what they were

    @property
    def watched(self) -> Watched:
        """Thalamic spikes, onsets of inputs and the LFP (not blanked) since sample 0."""
        return self._watched

    def give(self, smc: Floats, first_sample: int) -> None:
        """The sensorimotor current at the new samples from ``first_sample`` on."""
        onsets = input_onsets(smc, first_sample, self._smc)
        self._smc = float(smc[-1])
        self._watched = self._watched._replace(onsets=np.concatenate([self._watched.onsets, onsets]))

    def add(self, records: Sequence[Record], trace: Floats, step_ms: float) -> float:
        """What happened, and the new values of P_beta, ``step_ms`` apart; the share of these above the threshold."""
        old = self._watched
        self._watched = old._replace(
            th_spikes=np.concatenate([old.th_spikes, *(record.th_spikes for record in records)]),
            lfp=np.concatenate([old.lfp, *(record.lfp for record in records)]),
            lfp_samples=np.concatenate([old.lfp_samples, *(record.lfp_samples for record in records)]),
        )
        above = trace > self._config.beta_threshold * 1000.0
        for value in above:
            self._above_ms = self._above_ms + step_ms if value else 0.0
        return float(above.mean())

    def due(self, now: int) -> bool:
        """Whether `info` takes the slow measures anew at sample ``now``, or tells the last ones."""
        return not self._told or now - self._taken >= self._every

    def info(self, spikes: Ints, now: int, origin: int) -> dict[str, Any]:
        """The measures at sample ``now``; the episode began at ``origin``."""
        if self.due(now):
            self._told, self._taken = self._take(spikes, now, origin), now
        return {**self._told, "burst_ms": self._above_ms}

    def _take(self, spikes: Ints, now: int, origin: int) -> dict[str, Any]:
        c = self._config
        starts = np.array([now - self._window])
        thalamus = error_index(self._watched.th_spikes, self._watched.onsets, starts, self._window, c.dt_ms)
        fixed = c.spectral_grid == "fixed"
        _, _, wide = spectrum(spikes, now - self._window, self._window, c.dt_ms, fixed_grid=fixed, band_hz=WIDE_BAND_HZ)
        if now > origin:
            whole = error_index(
                self._watched.th_spikes, self._watched.onsets, np.array([origin]), now - origin, c.dt_ms
            )
            parts = {name: float(value[0]) for name, value in whole._asdict().items()}
        else:
            parts = dict.fromkeys(("ei", "missed", "bad", "spurious"), float("nan")) | {"inputs": 0.0}
        return {
            "EI": float(thalamus.ei[0]),
            "P_beta_7_35": wide,
            "episode_EI": parts["ei"],
            "episode_EI_missed": parts["missed"],
            "episode_EI_bad": parts["bad"],
            "episode_EI_spurious": parts["spurious"],
            "episode_inputs": int(parts["inputs"]),
        }

    def get_state(self) -> dict[str, Any]:
        """All that was kept."""
        return {
            **{name: np.array(value) for name, value in self._watched._asdict().items()},
            "now": [self._smc, self._above_ms],
            "told": dict(self._told),
            "taken": self._taken,
        }

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self._watched = Watched(*(np.array(values[name]) for name in Watched._fields))
        self._smc, self._above_ms = (float(value) for value in values["now"])
        self._told, self._taken = dict(values["told"]), int(values["taken"])
