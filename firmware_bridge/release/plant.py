"""The plants of a release check: held-out patients, each under four conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import BasalGangliaEnv
from envs.config import EnvConfig, env_config
from envs.patients import Cohort, Patient, sample_cohort
from envs.plant.network import Record
from envs.registration import with_layers
from envs.signals import LfpTrack
from envs.wrappers import Env
from export.manifest import Manifest

SEED = 700_000  # of the cohort and its plants: neither training, search nor evaluation draws from it (sea_dbs.seeds)
DELAY_MS = 50.0  # from the newest sample to slot 0
NOMINAL, ARTEFACT, DRIFT, DELAY = CONDITIONS = ("nominal", "artefact", "drift", "delay")
DRIFTS = ("impedance", "disease", "circadian")  # in turn, patient by patient
LFP_ARTEFACT_MS = 5.0  # ms for which a pulse hides the LFP: blanking is part of that signal, here it lasts longer
MEANING = {
    NOMINAL: "the plant as the policy knows it, without noise, loss or delay",
    ARTEFACT: "the recorder does not blank: each pulse is seen as a spike of every cell and hides the true ones for "
    f"2 ms (LFP: each pulse hides {LFP_ARTEFACT_MS:g} ms of it)",
    DRIFT: f"patient by patient in turn: {', '.join(DRIFTS)}",
    DELAY: f"{DELAY_MS:g} ms from the newest sample to slot 0",
}
_PLAIN: dict[str, Any] = {
    "artefact": "none",
    "noise_sd": 0.0,
    "missing_share": 0.0,
    "missing_run": None,
    "delay_steps": 0,
    "drift": "none",
}
_NO_PULSES = np.zeros(0, dtype=np.int64)


class WatchedPlant(BasalGangliaEnv):
    """A plant that also tells what would have been observed now had no pulse left an artefact."""

    def __init__(self, config: EnvConfig) -> None:
        super().__init__(config)
        self._unhidden: LfpTrack | None = None
        self._unhidden_trace: NDArray[np.float64] = np.zeros(0)

    def _watch(self, records: Sequence[Record], n_windows: int) -> dict[str, Any]:
        told = super()._watch(records, n_windows)
        if self.config.obs == "lfp":
            if self._step_count == 0 and self._pulses == 0 and not len(self.pulse_samples):
                self._unhidden = self._unhidden or LfpTrack(self.config)
            assert self._unhidden is not None
            self._unhidden.add(list(records), _NO_PULSES)
            windows = n_windows if self.config.view == "trace" else 1
            ends = self.ready().sample - np.arange(windows - 1, -1, -1) * self._stride
            new = self._unhidden.beta(ends)
            self._unhidden_trace = np.concatenate([self._unhidden_trace, new])[-self._n_windows :]
        return told

    def unhidden(self) -> NDArray[np.float32]:
        """The observation without artefact, (n_obs,); the true one where the GPi is observed."""
        if self.config.obs != "lfp":
            return self._observation()
        assert self._unhidden is not None
        kept = self.lfp, self.lfp_trace
        self.lfp, self.lfp_trace = self._unhidden, self._unhidden_trace
        try:
            return self._observation()
        finally:
            self.lfp, self.lfp_trace = kept


def cohort(n: int, seed: int) -> Cohort:
    """The held-out patients."""
    return sample_cohort(n, seed)


def settings(manifest: Manifest, condition: str, index: int, steps: int) -> EnvConfig:
    """The environment of a run: what the policy was made for, plus the one thing that the condition adds.

    Raises:
        UserError: a preset or value that this version does not know.
    """
    values = {**manifest.environment, **_PLAIN}
    lfp = env_config(manifest.preset, **values).obs == "lfp"
    if condition == ARTEFACT:
        values |= {"artefact": "blanked", "artefact_ms": LFP_ARTEFACT_MS} if lfp else {"artefact": "raw"}
    if condition == DRIFT:
        values["drift"] = DRIFTS[index % len(DRIFTS)]
    config = env_config(manifest.preset, **values)
    if condition == DELAY and not late_order_us(config):
        values["delay_steps"] = -(-DELAY_MS // config.decision_ms)
    episode = config.episode_steps
    return env_config(manifest.preset, **{**values, "episode_steps": -(-steps // episode) * episode})


def late_order_us(config: EnvConfig) -> int:
    """How late after its sample a decision starts in the condition ``delay`` (µs); 0: its observation is late instead.

    A board holds one decision in waiting, so that only decisions longer than the delay can be started late.
    """
    return round(DELAY_MS * 1000) if config.decision_ms >= DELAY_MS else 0


def make(config: EnvConfig, patient: Patient) -> tuple[Env, WatchedPlant]:
    """The environment with all its layers, and the plant in it."""
    plant = WatchedPlant(config)
    return with_layers(plant, patient), plant


def without_artefact(plant: WatchedPlant, patient: Patient) -> NDArray[np.float32]:
    """What the patient's electrode would show now without artefact, (n_obs,)."""
    return np.asarray(plant.unhidden() * patient.electrode_gain, dtype=np.float32)
