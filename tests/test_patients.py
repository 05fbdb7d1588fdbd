"""Virtual patients: draws, cohorts and their files, recruitment, drift as functions of time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import UserError
from envs.patients import (
    DRIFTS,
    Circadian,
    Cohort,
    Disease,
    Drift,
    Impedance,
    Patient,
    Recruitment,
    Scales,
    Variation,
    loads_cohort,
    read_cohort,
    recruited,
    sample_cohort,
    severity_of,
    with_severity,
)
from envs.plant.state import Network, draw_network


def _equal(a: Network, b: Network) -> bool:
    return all(np.allclose(x, y, rtol=1e-12, atol=0.0) for x, y in zip(a, b, strict=True))


# -- patients ------------------------------------------------------------------------------------------------------


def test_default_patient_is_the_network_as_drawn() -> None:
    assert _equal(Patient(seed=4).network(), draw_network(np.random.default_rng(4), 1.0))


def test_severity_and_scales_change_what_they_name_and_nothing_else() -> None:
    plain = Patient(seed=4, severity=0.6).network()
    scaled = Patient(seed=4, severity=0.6, scales=Scales(ctx_stn=2.0, m_current=0.5)).network()
    for name, before, after in zip(Network._fields, plain, scaled, strict=True):
        factor = {"g_ctx_stn_ampa": 2.0, "g_ctx_stn_nmda": 2.0, "g_m": 0.5}.get(name, 1.0)
        np.testing.assert_allclose(after, factor * before, rtol=1e-12, err_msg=name)
    assert plain.g_m == pytest.approx(2.6 - 1.1 * 0.6)


@given(
    seed=st.integers(0, 1000), old=st.floats(0.0, 1.0), new=st.floats(0.0, 1.0), d1=st.floats(0.3, 3.0),
    m=st.floats(0.3, 3.0),
)  # fmt: skip
def test_moving_severity_gives_the_patient_drawn_at_that_severity(
    seed: int, old: float, new: float, d1: float, m: float
) -> None:
    scales = Scales(ctx_d1=d1, m_current=m, gpe_gpe=1.3)
    before = Patient(seed=seed, severity=old, scales=scales).network()
    after = Patient(seed=seed, severity=new, scales=scales).network()
    assert _equal(with_severity(before, old, new, d1), after)
    assert severity_of(draw_network(np.random.default_rng(seed), new)) == pytest.approx(new, abs=1e-12)


# -- cohorts -------------------------------------------------------------------------------------------------------


def test_cohort_comes_from_its_seed_alone_and_grows_at_its_end() -> None:
    cohort = sample_cohort(5, 7)
    assert cohort == sample_cohort(5, 7)
    assert cohort.patients == sample_cohort(9, 7).patients[:5]
    assert cohort.patients != sample_cohort(5, 8).patients
    assert len({p.seed for p in cohort.patients}) == len({p.name for p in cohort.patients}) == 5


def test_sampled_values_fill_their_ranges() -> None:
    patients = sample_cohort(400, 1).patients
    for values, (low, high) in (
        ([p.severity for p in patients], (0.5, 1.0)),
        ([p.scales.gpe_gpe for p in patients], (0.8, 1.25)),
        ([p.electrode_gain for p in patients], (0.5, 2.0)),
        ([p.charge_efficacy for p in patients], (0.35, 1.0)),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    gains = np.log([p.electrode_gain for p in patients])
    assert abs(gains.mean()) < 0.06  # log-uniform around 1
    fixed = sample_cohort(2, 1, Variation(severity=(0.7, 0.7))).patients
    assert [p.severity for p in fixed] == [0.7, 0.7]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_cohort_survives_its_file(tmp_path: Path, form: str) -> None:
    cohort = sample_cohort(3, 11, Variation(recruitment=Recruitment(sigma=0.3)))
    path = tmp_path / f"cohort.{form}"
    path.write_text(cohort.dumps(form), encoding="utf-8")  # type: ignore[arg-type]
    again = read_cohort(path)
    assert again == cohort
    assert _equal(again.patients[2].network(), cohort.patients[2].network())
    if form == "json":
        assert json.loads(path.read_text())["patients"][0]["recruitment"]["sigma"] == 0.3


def test_cohort_by_hand() -> None:
    cohort = loads_cohort("patients:\n- {name: mild, severity: 0.3}\n- {name: severe, scales: {gpe_gpe: 1.5}}\n")
    assert [p.severity for p in cohort.patients] == [0.3, 1.0]
    assert cohort.seed is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patients: [", "neither JSON nor YAML"),
        ("- 3", "expected the keys"),
        ("patients: []", "'patients' in the cohort"),
        ("patients: [{severty: 0.5}]", "unknown key 'patients.0.severty' in the cohort"),
        ("patients: [{severity: 1.5}]", r"'patients\.0\.severity' in the cohort is 1\.5"),
        ("patients: [{scales: {gpe_gpe: 9}}]", r"'patients\.0\.scales\.gpe_gpe' in the cohort is 9"),
        ("patients: [{electrode_gain: .nan}]", "electrode_gain"),
        ("{version: 2, patients: [{}]}", "'version' in the cohort is 2"),
    ],
)
def test_wrong_cohorts_are_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        loads_cohort(text)
    assert "\n" not in str(caught.value)


def test_unreadable_and_impossible_cohorts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the cohort"):
        read_cohort(tmp_path / "none.json")
    with pytest.raises(UserError, match="cohort of 0 patients"):
        sample_cohort(0, 1)
    with pytest.raises(ValueError, match="must not fall"):
        Variation(severity=(0.9, 0.5))
    assert Cohort(patients=(Patient(),)).version == 1


# -- recruitment ---------------------------------------------------------------------------------------------------


def test_recruitment_grows_with_amplitude_to_all_cells() -> None:
    patient = Patient(seed=3, recruitment=Recruitment())
    thresholds = patient.thresholds()
    assert thresholds.shape == (10,)
    shares = [recruited(a, thresholds).mean() for a in (0.0, 50.0, 100.0, 150.0, 300.0, 1000.0)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    np.testing.assert_array_equal(recruited(300.0, thresholds, 0.5), recruited(150.0, thresholds))
    assert recruited(0.1, Patient(seed=3).thresholds()).all()  # off: every cell feels every pulse


def test_thresholds_are_lognormal_around_their_median() -> None:
    thresholds = np.concatenate([Patient(seed=s, recruitment=Recruitment()).thresholds() for s in range(300)])
    assert np.median(thresholds) == pytest.approx(150.0, rel=0.05)
    assert np.log(thresholds).std() == pytest.approx(0.4, rel=0.05)
    assert (thresholds <= 300.0).mean() == pytest.approx(0.96, abs=0.01)


# -- drift ---------------------------------------------------------------------------------------------------------


def test_drift_follows_its_laws() -> None:
    impedance = Drift(impedance=Impedance(efficacy_end=0.2, tau_s=10.0))
    assert impedance.efficacy(0.0) == 1.0
    assert impedance.efficacy(10.0) == pytest.approx(0.2 + 0.8 / np.e)
    assert impedance.severity(0.8, 10.0) == 0.8
    disease = Drift(disease=Disease(change=-0.6, start_s=5.0, ramp_s=10.0))
    assert [disease.severity(1.0, t) for t in (0.0, 5.0, 10.0, 15.0, 99.0)] == pytest.approx([1.0, 1.0, 0.7, 0.4, 0.4])
    assert disease.severity(0.1, 99.0) == 0.0  # held inside 0..1
    sudden = Drift(disease=Disease(change=0.5, start_s=5.0, ramp_s=0.0))
    assert [sudden.severity(0.2, t) for t in (4.9, 5.0)] == pytest.approx([0.2, 0.7])
    day = Drift(circadian=Circadian(depth=0.4, period_s=20.0))
    assert [day.severity(1.0, t) for t in (0.0, 5.0, 10.0, 20.0)] == pytest.approx([1.0, 0.8, 0.6, 1.0])
    assert day.severity(1.0, 0.0, phase=0.5) == pytest.approx(0.6)
    fixed = Drift(circadian=Circadian(depth=0.4, phase=0.0))
    assert fixed.severity(1.0, 0.0, phase=0.5) == 1.0


@given(name=st.sampled_from(sorted(DRIFTS)), start=st.floats(0, 1), t_s=st.floats(0, 1e5), phase=st.floats(0, 1))
def test_scenarios_stay_inside_their_ranges(name: str, start: float, t_s: float, phase: float) -> None:
    assert 0.0 <= DRIFTS[name].severity(start, t_s, phase) <= 1.0
    assert 0.0 <= DRIFTS[name].efficacy(t_s) <= 1.0
