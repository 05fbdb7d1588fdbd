"""The classical controllers: their laws, their parameters' table, and the files that change them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs.config import PRESETS, env_config
from envs.errors import UserError
from firmware_bridge.plan import SessionPlan, prepare
from sea_dbs.controllers import (
    CLASSICAL,
    HEALTHY_P75,
    KINDS,
    Controller,
    DualThreshold,
    OnOff,
    Pattern,
    PIAmplitude,
    PIFrequency,
    Proportional,
    Replayed,
    SetsAmplitude,
    build,
    make_controller,
)


def _seen(*beta: float) -> NDArray[np.float32]:
    return np.array(beta, np.float32)[:, None]


def _pulses(controller: Controller, *beta: float) -> list[int]:
    return [int(action.sum()) for action in controller.act(_seen(*beta))]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CLASSICAL)
def test_every_classical_controller_runs_on_every_preset(preset: str, name: str) -> None:
    config = env_config(preset)
    hz = min(20.0, config.stim_hz)
    controller = make_controller(name, config.slots, Fraction(1_000_000) / Fraction(config.stim_hz), hz=hz)
    controller.init_state(2)
    action = controller.act(np.full((2, config.n_obs), 0.44, np.float32))
    assert action.shape == (2, config.slots)
    assert action.dtype == np.int8


def test_random_trains_give_each_train_alike_to_each_plant_by_itself() -> None:
    controller = make_controller("random-trains", 130, Fraction(1_000_000, 130), seed=3)
    controller.init_state(4)
    given = np.array([_pulses(controller, 0.4, 0.4, 0.4, 0.4) for _ in range(600)])
    assert dict(zip(*np.unique(given, return_counts=True), strict=True)) == pytest.approx(
        dict.fromkeys((0, 26, 44, 65, 130), 480), rel=0.2
    )
    assert not (given == given[:, :1]).all()
    controller.init_state(4)
    assert [_pulses(controller, 0.4, 0.4, 0.4, 0.4) for _ in range(3)] == given[:3].tolist()
    with pytest.raises(UserError, match="slots=50 of a decision are too few"):
        make_controller("random-trains", 50, 20_000)


def test_each_parameter_lies_in_its_range_and_names_its_source() -> None:
    for kind, parameters in KINDS.items():
        for key, own in parameters.items():
            assert own.low <= own.value <= own.high, (kind, key)
            assert own.source
            assert own.unit
            assert not own.log or own.low > 0


def test_literature_parameters_are_those_of_fleming_2020() -> None:
    assert KINDS["pi"]["kp"].value == 19.3
    assert KINDS["pi"]["ti"].value == 0.2
    assert KINDS["proportional"]["kp"].value == 416.7
    assert KINDS["dual-threshold"]["ramp_s"].value == 0.25
    assert KINDS["pi"]["target"].value == HEALTHY_P75 == 0.34


@settings(max_examples=40, deadline=None)
@given(error=st.floats(0.0, 0.11), slots=st.integers(1, 60))
def test_a_rate_becomes_that_many_pulses_however_decisions_are_cut(error: float, slots: int) -> None:
    controller = Proportional(slots, 20_000, target=0.4, kp=416.7)
    controller.init_state(1)
    decisions = 600 // slots
    given = sum(_pulses(controller, 0.4 * (1 + error))[0] for _ in range(decisions))
    hz = min(416.7 * (np.float32(0.4 * (1 + error)) / 0.4 - 1), 50.0)
    assert abs(given - max(hz, 0.0) * decisions * slots * 0.02) <= 1.01


def test_proportional_is_silent_below_its_target_and_full_far_above() -> None:
    controller = Proportional(50, 20_000, target=0.34, kp=416.7)
    controller.init_state(3)
    assert _pulses(controller, 0.30, 0.374, 0.60) == [0, pytest.approx(41, abs=1), 50]
    slow = Proportional(50, 20_000, target=0.34, kp=416.7, most_hz=10.0)
    slow.init_state(1)
    assert _pulses(slow, 0.60) == [10]


def test_pi_integrates_the_error_and_lets_go_when_beta_is_below() -> None:
    controller = PIFrequency(1, 20_000, target=0.4, kp=10.0, ti=0.5)
    controller.init_state(1)
    rates = []
    for _ in range(100):  # 2 s of an error of 0.1
        controller.act(_seen(0.44))
        rates.append(10.0 * (0.1 + controller.integral[0] / 0.5))
    assert rates[-1] == pytest.approx(10.0 * (0.1 + 0.1 * 2.0 / 0.5), rel=1e-5)
    assert sum(int(controller.act(_seen(0.30)).sum()) for _ in range(300)) < 10
    assert controller.integral[0] > -0.02  # at zero the integral stands still


def test_pi_on_the_amplitude_gives_a_train_of_a_strength_and_none_below_zero() -> None:
    controller = PIAmplitude(130, Fraction(1_000_000, 130), target=0.4, kp=1.0, ti=2.0)
    assert isinstance(controller, SetsAmplitude)
    controller.init_state(3)
    beta = np.array([0.44, 0.30, 2.0])  # errors of 0.1, -0.25 and 4; a decision is a second
    action = controller.act(np.tile(beta[:, None], (1, 4)).astype(np.float32))
    assert list(action.sum(axis=1)) == [130, 0, 130]
    assert controller.amplitude_uA_cm2[0] == pytest.approx(100.0 * (0.1 + 0.1 / 2.0), rel=1e-5)  # 0.15 mA
    assert controller.amplitude_uA_cm2[2] == 300.0  # 6 mA would be due: bounded at 3, and no windup
    assert list(controller.integral) == [pytest.approx(0.1, rel=1e-5), 0.0, 0.0]
    slow = PIAmplitude(50, 20_000, target=0.4, kp=1.0, ti=2.0)
    slow.init_state(1)
    assert _pulses(slow, 0.5) == [50]  # a pulse a slot where slots are slower than the train


def test_pi_does_not_wind_up_at_its_bound() -> None:
    controller = PIFrequency(50, 20_000, target=0.34, kp=19.3, ti=0.2)
    controller.init_state(1)
    for _ in range(100):
        assert _pulses(controller, 0.60)[0] <= 50
    held = float(controller.integral[0])
    assert 19.3 * (0.6 / 0.34 - 1 + held / 0.2) <= 50.0
    assert _pulses(controller, 0.20)[0] == 0  # at once, not after 100 decisions


def test_dual_threshold_ramps_holds_and_lets_go() -> None:
    controller = DualThreshold(1, 20_000, low=0.26, high=0.34, ramp_s=0.1)
    controller.init_state(2)
    levels = []
    for a, b in [(0.4, 0.2)] * 3 + [(0.3, 0.3)] * 2 + [(0.2, 0.4)] * 2:
        controller.act(_seen(a, b))
        levels.append(controller.level.round(3).tolist())
    assert levels == [[0.2, 0.0], [0.4, 0.0], [0.6, 0.0], [0.6, 0.0], [0.6, 0.0], [0.4, 0.2], [0.2, 0.4]]


def test_a_pattern_repeats_across_decisions() -> None:
    pattern = Pattern(4, 20_000, "10010")
    pattern.init_state(2)
    flat = np.concatenate([pattern.act(_seen(0.4, 0.4)) for _ in range(5)], axis=1)
    assert flat.tolist() == [[1, 0, 0, 1, 0] * 4] * 2
    pattern.init_state(1)
    assert pattern.act(_seen(0.4)).tolist() == [[1, 0, 0, 1]]
    assert Pattern(4, 20_000, [1, 0]).name != Pattern(4, 20_000, [0, 1]).name


def test_replayed_gives_each_plant_another_ones_decisions() -> None:
    replayed = Replayed(2, [["10", "10"], ["01", "11"], ["00", "00"]])
    replayed.init_state(3)
    assert replayed.act(_seen(0.4, 0.4, 0.4)).tolist() == [[0, 1], [0, 0], [1, 0]]
    assert replayed.act(_seen(0.4, 0.4, 0.4)).tolist() == [[1, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pattern(4, 20_000, ""), "is no mask"),
        (lambda: Pattern(4, 20_000, "0120"), "'0120' is no mask"),
        (lambda: Pattern(4, 20_000, "01", 130.0), "130 Hz, these are slots of 50 Hz"),
        (lambda: Replayed(2, [["10"]]), "1 action sequences"),
        (lambda: Replayed(2, [["10"], ["101"]]), "'101': a mask of 2 slots"),
        (lambda: DualThreshold(1, 20_000, 0.4, 0.3, 0.1), "low=0.4, high=0.3"),
        (lambda: DualThreshold(1, 20_000, 0.2, 0.3, 0.0), "ramp_s = 0.0"),
        (lambda: PIFrequency(1, 20_000, 0.3, 1.0, float("nan")), "ti = nan"),
        (lambda: Proportional(1, 20_000, 0.3, -1.0), "kp = -1.0"),
        (lambda: build("pi", 1, 20_000, {"gain": 2.0}), "'pi' has no parameter 'gain'"),
        (lambda: build("pi", 1, 20_000, {"kp": "high"}), "do not fit"),
        (lambda: make_controller("pattern", 1, 20_000), "'pattern' needs its mask"),
        (lambda: make_controller("replayed", 1, 20_000), "'replayed' needs"),
        (lambda: make_controller("pi:", 1, 20_000), "names no file"),
        (lambda: make_controller("pi:/nowhere.json", 1, 20_000), "there is no file"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_value(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


def test_a_name_with_a_file_takes_its_parameters(tmp_path: Path) -> None:
    def write(kind: str, **parameters: object) -> Path:
        path = tmp_path / "tuned.json"
        path.write_text(json.dumps({"kind": "tuned", "controller": kind, "parameters": parameters}))
        return path

    pi = make_controller(f"pi:{write('pi', kp=30.0, ti=2.0)}", 50, 20_000)
    assert isinstance(pi, PIFrequency)
    assert (pi.kp, pi.ti, pi.target) == (30.0, 2.0, HEALTHY_P75)
    with pytest.raises(UserError, match="holds a tuned 'pi', not a 'on-off'"):
        make_controller(f"on-off:{tmp_path}", 50, 20_000)
    write("on-off", low=0.3, high=0.35)
    own = make_controller(f"on-off:{tmp_path}", 50, 20_000)
    assert isinstance(own, OnOff)
    assert own.name == "on-off 0.3-0.35"
    write("pattern", mask="1100", slot_hz=50.0)
    assert make_controller(f"pattern:{tmp_path}", 4, 20_000).act(_seen(0.4)).tolist() == [[1, 1, 0, 0]]
    write("periodic", hz=10.0)
    assert make_controller(f"periodic:{tmp_path}", 50, 20_000).name == "periodic 10 Hz"
    (tmp_path / "evaluation.json").write_text(
        json.dumps({"episodes": [{"controller": "policy", "decisions": [mask]} for mask in ("10", "01")]})
    )
    replayed = make_controller(f"replayed:{tmp_path / 'evaluation.json'}", 2, 20_000)
    assert replayed.act(_seen(0.4)).tolist() == [[0, 1]]


def test_a_session_takes_them_by_name_and_by_file(tmp_path: Path) -> None:
    parts = prepare(SessionPlan(out=tmp_path / "out", controller="pi", preset="realtime", steps=5))
    assert isinstance(parts.controller, PIFrequency)
    assert parts.controller.decision_s == pytest.approx(0.02)
    tuned = {"kind": "tuned", "controller": "pattern", "parameters": {"mask": "10", "slot_hz": 50.0}}
    (tmp_path / "tuned.json").write_text(json.dumps(tuned))
    parts = prepare(SessionPlan(out=tmp_path / "out", controller=f"pattern:{tmp_path}", preset="realtime", steps=5))
    assert isinstance(parts.controller, Pattern)
