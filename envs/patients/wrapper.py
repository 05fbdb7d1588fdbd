"""The wrapper that puts a patient into an environment, and lets it drift."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import BasalGangliaEnv
from envs.errors import UserError
from envs.patients.drift import Drift
from envs.patients.patient import Patient, severity_of, with_severity
from envs.plant.batch_layout import ROW
from envs.plant.kernels import AnyPlant
from envs.plant.network import Plant
from envs.plant.state import Network
from envs.wrappers.base import Env, Layer, Observation, Start, Step


class PatientWrapper(Layer):
    """Every episode treats ``patient``: its network, its electrode, and what drifts meanwhile.

    ``reset(options={"patient": other})`` treats another one from then on. Without a patient the environment draws its
    networks itself. Drift starts from the severity of the reset and is applied at the start of each decision. The
    electrode gain scales the observation alone; the charge that is counted is the delivered one. With a patient or
    drift info gains "severity" and "efficacy".

    Raises:
        UserError: another base environment; a patient with graded recruitment on the scalar reference kernel.
    """

    def __init__(self, env: Env, patient: Patient | None = None, drift: Drift | None = None) -> None:
        super().__init__(env)
        base = env.unwrapped
        if not isinstance(base, BasalGangliaEnv):
            raise UserError(f"a patient needs a BasalGangliaEnv, not a {type(base).__name__}")
        self._base = base
        self.patient = patient
        self.drift = drift or Drift()
        self._drifts = self.drift != Drift()
        self._rng = np.random.default_rng(0)
        self._phase = 0.0
        self._network: Network | None = None  # as it was at reset
        self._severity = self._applied = base.config.pd  # at reset, and now

    def before_reset(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        """See `Layer.before_reset`; the drift's phase has its own stream, derived from the seed."""
        if "patient" in options:
            self.patient = _checked(options.pop("patient"))
        if seed is not None:
            self._rng = np.random.default_rng([seed, 3])
        self._phase = float(self._rng.random())
        base, patient = self._base, self.patient
        base.efficacy, base.thresholds = 1.0, _thresholds(patient)
        if patient is not None:
            if "network" in options:
                raise UserError("reset was given a network beside a patient: a patient has its own")
            options["network"] = patient.network()
            base.efficacy = patient.charge_efficacy
        return options

    def after_reset(self, observation: Observation, info: dict[str, Any]) -> Start:
        """See `Layer.after_reset`."""
        base, patient = self._base, self.patient
        self._network = base.ready().network
        self._severity = severity_of(self._network) if patient is None else patient.severity
        self._applied = self._severity
        return self._sensed(observation), self._told(info)

    def before_step(self) -> None:
        """See `Layer.before_step`."""
        if self._drifts:
            self._apply()

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, reward, terminated, truncated, info = step
        return self._sensed(observation), reward, terminated, truncated, self._told(info)

    def _apply(self) -> None:
        plant, patient = self._base.ready(), self.patient
        if self._network is None:
            raise UserError("the environment has no network yet: call reset() before step()")
        t_s = self._base.time_ms / 1000.0
        self._applied = self.drift.severity(self._severity, t_s, self._phase)
        scale = 1.0 if patient is None else patient.scales.ctx_d1
        network = with_severity(self._network, self._severity, self._applied, scale)
        if network.g_m != plant.network.g_m:
            change_network(plant, network)
        efficacy = 1.0 if patient is None else patient.charge_efficacy
        self._base.efficacy = efficacy * self.drift.efficacy(t_s)

    def _sensed(self, observation: Observation) -> Observation:
        if self.patient is None or self.patient.electrode_gain == 1.0:
            return observation
        gain, config = self.patient.electrode_gain, self._base.config
        if config.view == "timing":  # of power: spikes are counted all the same, an LFP's amplitude goes with its root
            scale = np.ones(config.n_obs)
            scale[: config.slots_observed] = 1.0 if config.obs == "gpi" else math.sqrt(gain)
            return (observation * scale).astype(np.float32)
        return (observation * gain).astype(np.float32)

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        if self.patient is None and not self._drifts:
            return info
        return {**info, "severity": self._applied, "efficacy": self._base.efficacy}

    def get_state(self) -> dict[str, Any]:
        """The patient, its network at reset, and the drift's phase and generator; {} before the first reset."""
        if self._network is None:
            return {}
        return {
            "patient": None if self.patient is None else self.patient.model_dump(),
            "network": {name: np.array(value) for name, value in self._network._asdict().items()},
            "severity": [self._severity, self._applied],
            "phase": self._phase,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`, with the patient that it holds."""
        if not values:
            self._network = None
            return
        self.patient = None if values["patient"] is None else Patient.model_validate(values["patient"])
        network: dict[str, Any] = {
            name: np.array(value) if np.ndim(value) else float(value) for name, value in values["network"].items()
        }
        self._network = Network(**network)
        self._base.thresholds = _thresholds(self.patient)
        self._severity, self._applied = (float(value) for value in values["severity"])
        self._phase = float(values["phase"])
        self._rng.bit_generator.state = values["rng"]


def change_network(plant: AnyPlant, network: Network) -> None:
    """Give a running plant other conductances; wiring and state stay.

    On the fast kernel, which weighs events as they arrive, the conductances hold for events from now on and what is
    under way decays (5 ms) as it was; on the reference kernel they hold at once.
    """
    if isinstance(plant, Plant):
        plant.network = network
        return
    state = plant.take(0)
    state.rows[ROW["g_m"]] = network.g_m
    plant.put(0, network, state)


def _thresholds(patient: Patient | None) -> NDArray[np.float64] | None:
    return None if patient is None or patient.recruitment is None else patient.thresholds()


def _checked(patient: Any) -> Patient | None:
    if patient is not None and not isinstance(patient, Patient):
        raise UserError(f"options['patient'] is a {type(patient).__name__}: expected envs.patients.Patient")
    return patient
