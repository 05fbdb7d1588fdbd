"""Patients in the environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs.basal_ganglia import BasalGangliaEnv
from envs.config import env_config
from envs.errors import UserError
from envs.patients import Disease, Drift, Impedance, Patient, PatientWrapper, Recruitment, Scales, recruited
from envs.patients.wrapper import change_network
from envs.plant.inputs import SmcRenewal
from envs.plant.kernels import KERNELS
from envs.plant.single import FastPlant
from envs.registration import base_env, get_env_state, set_env_state
from envs.vector import BasalGangliaVectorEnv

SHORT: dict[str, Any] = {
    "slots": 5,
    "window_ms": 150.0,
    "stride_ms": 20.0,
    "n_obs": 6,
    "settle_ms": 260.0,
    "episode_steps": 4,
}
ON, OFF = np.ones(5, np.int8), np.zeros(5, np.int8)


def _make(**overrides: Any) -> gymnasium.Env[Any, Any]:
    return envs.make_env(**{**SHORT, **overrides})


def _drifting(drift: Drift, patient: Patient | None = None) -> PatientWrapper:
    return PatientWrapper(BasalGangliaEnv(env_config(**SHORT)), patient, drift)


def test_each_episode_treats_the_patient() -> None:
    patient = Patient(seed=5, severity=0.7, scales=Scales(gpe_gpe=1.4))
    env = _make(patient=patient)
    runs = [env.reset(seed=seed)[0].tobytes() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]  # the inputs change with the seed, the patient does not
    np.testing.assert_array_equal(base_env(env).ready().network.g_gpe_gpe, patient.network().g_gpe_gpe)
    assert env.reset(seed=1)[1]["severity"] == 0.7
    assert _make().reset(seed=1, options={"patient": patient})[0].tobytes() == runs[0]


def test_an_environment_without_patient_or_drift_says_nothing_of_them() -> None:
    _, info = _make().reset(seed=0)
    assert not {"severity", "efficacy", "missing"} & set(info)


def test_gain_scales_the_observation_and_not_the_reward() -> None:
    runs = []
    for gain in (1.0, 1.5):
        env = _make(patient=Patient(seed=5, electrode_gain=gain))
        first, _ = env.reset(seed=0)
        runs.append((first, *env.step(ON)))
    np.testing.assert_allclose(runs[1][0], 1.5 * runs[0][0], rtol=1e-6)
    np.testing.assert_allclose(runs[1][1], 1.5 * runs[0][1], rtol=1e-6)
    assert runs[0][2] == runs[1][2]
    assert runs[0][5]["P_beta"] == runs[1][5]["P_beta"]


def test_efficacy_weakens_the_pulse_and_not_the_charge() -> None:
    runs = {}
    for efficacy in (1.0, 0.5, 0.0):
        env = _make(patient=Patient(seed=5, charge_efficacy=efficacy))
        env.reset(seed=0)
        runs[efficacy] = [env.step(ON) for _ in range(2)][-1]
        assert runs[efficacy][4]["episode_charge_nC_cm2"] == pytest.approx(10 * 90.0)
        assert runs[efficacy][4]["efficacy"] == efficacy
    env = _make(patient=Patient(seed=5))
    env.reset(seed=0)
    untreated = [env.step(OFF) for _ in range(2)][-1]
    np.testing.assert_array_equal(runs[0.0][0], untreated[0])
    assert not np.array_equal(runs[1.0][0], untreated[0])


def test_graded_recruitment_reaches_the_cells_below_the_amplitude() -> None:
    thresholds = Patient(seed=5, recruitment=Recruitment(sigma=0.2)).thresholds()
    assert 30.0 < thresholds.min() < 150.0 < thresholds.max() < 400.0
    runs = {}
    for amplitude in (30.0, 150.0, 400.0):
        env = _make(patient=Patient(seed=5, recruitment=Recruitment(sigma=0.2)), amplitude_uA_cm2=amplitude)
        env.reset(seed=0)
        runs[amplitude] = [env.step(ON) for _ in range(2)][-1]
        plant = base_env(env).ready()
        assert isinstance(plant, FastPlant)
        gain = plant.rows(0, "gain_stn")[0]
        np.testing.assert_array_equal(
            gain == 1.0, recruited(amplitude, Patient(seed=5, recruitment=Recruitment(sigma=0.2)).thresholds())
        )
        assert set(gain) <= {0.0, 1.0}
    everyone = _make(patient=Patient(seed=5), amplitude_uA_cm2=400.0)
    everyone.reset(seed=0)
    np.testing.assert_array_equal(runs[400.0][0], [everyone.step(ON) for _ in range(2)][-1][0])
    nobody = _make(patient=Patient(seed=5))
    nobody.reset(seed=0)
    np.testing.assert_array_equal(runs[30.0][0], [nobody.step(OFF) for _ in range(2)][-1][0])
    assert len({run[0].tobytes() for run in runs.values()}) == 3


def test_a_weaker_pulse_reaches_fewer_cells_and_counts_less_charge() -> None:
    patient = Patient(seed=5, recruitment=Recruitment(sigma=0.2))
    whole, weak = _make(patient=patient), _make(patient=patient, amplitude_uA_cm2=150.0)
    whole.reset(seed=0)
    weak.reset(seed=0)
    base_env(whole).set_amplitude(150.0)
    runs = [env.step(ON) for env in (whole, weak)]
    assert runs[0][0].tobytes() == runs[1][0].tobytes()
    assert runs[0][4] == runs[1][4]
    assert runs[0][4]["charge_nC_cm2"] == pytest.approx(5 * 150.0 * 0.3)
    copy = _make(patient=patient)
    copy.reset(seed=9)
    set_env_state(copy, get_env_state(whole))
    assert copy.step(ON)[4] == whole.step(ON)[4]
    assert copy.step(ON)[4]["charge_nC_cm2"] == pytest.approx(5 * 150.0 * 0.3)  # until the next reset
    copy.reset(seed=0)
    assert copy.step(ON)[4]["charge_nC_cm2"] == pytest.approx(5 * 300.0 * 0.3)
    vector = BasalGangliaVectorEnv(2, **SHORT, patients=patient, autoreset_mode="Disabled")
    vector.reset(seed=[0, 0])
    vector.set_amplitudes([150.0, 300.0])
    info = vector.step(np.stack([ON, ON]))[4]
    assert info["P_beta"][0] == runs[0][4]["P_beta"] != info["P_beta"][1]
    for amplitude in (0.0, -1.0, 300.1, float("nan"), "x", None):
        with pytest.raises(UserError, match="above 0 to 300 are allowed"):
            base_env(copy).set_amplitude(amplitude)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="1 amplitudes for 2 environments"):
        vector.set_amplitudes([150.0])
    with pytest.raises(UserError, match="400"):
        vector.set_amplitudes([100.0, 400.0])
    assert vector.lane(0).amplitude_uA_cm2 == 150.0  # a refusal changes no lane


def test_changed_conductances_act_alike_on_both_kernels() -> None:
    """Other events after the change, the same on both but for what was under way (5 ms)."""
    spikes = []
    for kernel, change in (("fast", True), ("reference", True), ("fast", False)):
        plant = KERNELS[kernel](Patient(seed=5).network())
        smc = SmcRenewal(np.random.default_rng(0), 0.02).take(30_000)
        zero = np.zeros(15_000)
        plant.advance(smc[:15_000], zero)
        if change:
            change_network(plant, Patient(seed=5, severity=0.0).network())
        found = plant.advance(smc[15_000:], zero).events
        spikes.append(np.bincount(found[:, 1], minlength=8))
    assert plant.network.g_m == pytest.approx(1.5)
    assert np.abs(spikes[0] - spikes[1]).sum() <= 0.1 * spikes[1].sum()
    assert np.abs(spikes[2] - spikes[1]).sum() > 2 * np.abs(spikes[0] - spikes[1]).sum()


def test_drift_moves_network_and_efficacy_and_is_told() -> None:
    drift = Drift(
        impedance=Impedance(efficacy_end=0.2, tau_s=0.1), disease=Disease(change=-1.0, start_s=0.1, ramp_s=0.1)
    )
    env = _drifting(drift, Patient(seed=5, charge_efficacy=0.5))
    env.reset(seed=0)
    told = [env.step(OFF)[4] for _ in range(4)]
    # Decisions start at 0, 0.1, 0.2, 0.3 s.
    assert [info["severity"] for info in told] == pytest.approx([1.0, 1.0, 0.0, 0.0])
    assert [info["efficacy"] for info in told] == pytest.approx(
        [0.5 * (0.2 + 0.8 * np.exp(-t / 0.1)) for t in (0.0, 0.1, 0.2, 0.3)]
    )
    network, healthy = base_env(env).ready().network, Patient(seed=5, severity=0.0).network()
    np.testing.assert_allclose(network.g_ctx_d1, healthy.g_ctx_d1, rtol=1e-12)
    assert (network.g_m, network.g_gpe_gpe_factor) == pytest.approx((2.6, 0.25))
    assert env.reset(seed=0)[1]["severity"] == 1.0  # a new episode starts afresh


def test_no_drift_is_the_plain_environment() -> None:
    plain, wrapped = _make(), _make(drift="impedance")
    assert plain.reset(seed=6)[0].tobytes() == wrapped.reset(seed=6)[0].tobytes()
    assert plain.step(OFF)[0].tobytes() == wrapped.step(OFF)[0].tobytes()  # without a pulse efficacy changes nothing


def test_drift_without_a_patient_starts_from_the_configured_severity() -> None:
    env = _make(pd=0.5, drift="circadian")
    _, info = env.reset(seed=3)
    assert info["severity"] == pytest.approx(0.5)
    phases = []
    for seed in (3, 3, 4):
        env.reset(seed=seed)
        phases.append(env.step(OFF)[4]["severity"])
    assert phases[0] == phases[1] != phases[2]  # the phase is drawn from the seed
    assert 0.0 <= min(phases) <= max(phases) <= 0.5


def test_patient_and_drift_continue_bit_for_bit() -> None:
    patient = Patient(seed=5, scales=Scales(ctx_d1=1.2), electrode_gain=0.8, charge_efficacy=0.9)
    make: dict[str, Any] = {"drift": "circadian", "noise_sd": 0.01}
    env, copy = _make(patient=patient, **make), _make(patient=Patient(seed=9), **make)
    env.reset(seed=2)
    env.step(ON)
    set_env_state(copy, get_env_state(env))
    for _ in range(2):
        ours, theirs = env.step(ON), copy.step(ON)
        assert ours[0].tobytes() == theirs[0].tobytes()
        assert ours[4] == theirs[4]
    assert env.reset()[0].tobytes() == copy.reset()[0].tobytes()


@pytest.mark.parametrize("drift", ["disease", "circadian"])
def test_a_drift_of_severity_shows_in_untreated_beta(drift: str) -> None:
    """Beta is as high at a severity of 0.3 as at 1: a drift that stopped there is none that a controller meets."""
    seconds, lanes = 22, 8
    world = BasalGangliaVectorEnv(lanes, "paper", drift=drift, precision="float32", episode_steps=seconds)
    world.reset(seed=list(range(lanes)))
    beta, severity = [], []
    for _ in range(seconds):
        info = world.step(np.zeros((lanes, 50), np.int8))[-1]
        beta.append(info["P_beta"])
        severity.append(info["severity"])
    before, after = np.array(severity) > 0.5, np.array(severity) < 0.15
    assert before.any()
    assert after.any()
    assert np.array(beta)[after].mean() < 0.9 * np.array(beta)[before].mean()


def test_wrong_options_are_refused() -> None:
    env = _make()
    with pytest.raises(UserError, match=r"options\['patient'\] is a int"):
        env.reset(options={"patient": 3})
    with pytest.raises(UserError, match="patient has its own"):
        env.reset(options={"patient": Patient(), "network": Patient().network()})
    scalar = _make(patient=Patient(recruitment=Recruitment()), kernel="reference")
    scalar.reset(seed=0)
    with pytest.raises(UserError, match="graded recruitment"):
        scalar.step(ON)
    with pytest.raises(UserError, match="does not know the option 'patent'"):
        env.reset(options={"patent": Patient()})
    with pytest.raises(UserError, match="reset"):
        _make(drift="disease").step(OFF)
    with pytest.raises(UserError, match="'drift'"):
        _make(drift="rust")


def test_pulses_at_which_the_plant_would_diverge_are_refused() -> None:
    for overrides in ({"amplitude_uA_cm2": 500.0}, {"width_ms": 0.6}):
        with pytest.raises(UserError, match=r"width_ms|amplitude_uA_cm2"):
            _make(**overrides)
    env = _make(amplitude_uA_cm2=200.0, width_ms=2.0)
    env.reset(seed=0)
    assert np.isfinite(env.step(ON)[0]).all()
