"""Controllers: one interface, exact pulse counts, and wrong input that raises."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.controllers import (
    CLASSICAL,
    Controller,
    OnOff,
    Periodic,
    RandomDuty,
    TorchPolicy,
    decide,
    make_controller,
)
from sea_dbs.networks import build_actor

CALM = np.full((3, 10), 0.36, np.float32)


def _spec(n_obs: int = 10, slots: int = 4) -> dict[str, object]:
    return {"actor": "compact", "n_obs": n_obs, "slots": slots}


def _all(slots: int = 4) -> list[Controller]:
    classical = [make_controller(name, slots, 20_000, hz=10.0) for name in CLASSICAL]
    return [*classical, TorchPolicy(build_actor("compact", 10, slots), _spec())]


@pytest.mark.parametrize("controller", _all(), ids=lambda controller: controller.name)
def test_every_controller_keeps_the_interface(controller: Controller) -> None:
    assert isinstance(controller, Controller)
    first: list[NDArray[np.int8]] = []
    for _ in range(2):  # the second time after forgetting
        controller.init_state(3)
        actions = [controller.act(CALM) for _ in range(5)]
        assert all(action.shape == (3, 4) and action.dtype == np.int8 for action in actions)
        assert set(np.unique(actions)) <= {0, 1}
        first = first or actions
        np.testing.assert_array_equal(first, actions)


@pytest.mark.parametrize("controller", _all(), ids=lambda controller: controller.name)
@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.full((2, 10), 0.4, np.float32), "shape"),
        (np.full(10, 0.4, np.float32), "shape"),
        (np.full((3, 10), 1, np.int64), "type int64"),
        (np.full((3, 10), np.nan, np.float32), "nan"),
        (np.full((3, 10), np.inf, np.float32), "inf"),
    ],
)
def test_every_controller_refuses_a_wrong_observation(
    controller: Controller, observation: NDArray[np.float32], words: str
) -> None:
    controller.init_state(3)
    with pytest.raises(UserError, match=words):
        controller.act(observation)


def test_a_policy_refuses_another_length_of_observation() -> None:
    policy = TorchPolicy(build_actor("compact", 10, 4), _spec())
    policy.init_state(3)
    with pytest.raises(UserError, match=r"shape \(3, 11\)"):
        policy.act(np.full((3, 11), 0.4, np.float32))


def test_an_actor_with_a_wrong_shape_or_nan_raises() -> None:
    policy = TorchPolicy(build_actor("compact", 10, 5), _spec(slots=4))
    policy.init_state(3)
    with pytest.raises(UserError, match=r"the actor answered with shape \(3, 5, 2\)"):
        policy.act(CALM)
    broken = TorchPolicy(build_actor("compact", 10, 4), _spec())
    broken.module.head.bias.data[0] = float("nan")  # type: ignore[union-attr, operator, index]
    broken.init_state(3)
    with pytest.raises(UserError, match="finite: False"):
        broken.act(CALM)


def test_the_larger_logit_decides_and_a_tie_is_no_pulse() -> None:
    logits = np.array([[[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]], np.float32)
    assert decide(logits).tolist() == [[1, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(hz=st.floats(0.0, 50.0), phase=st.floats(0.0, 0.99), split=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_a_periodic_train_keeps_its_phase_however_the_slots_are_cut(hz: float, phase: float, split: list[int]) -> None:
    slot_s = 0.02
    cut = []
    whole = Periodic(sum(split), 20_000, hz, phase)
    for first, length in zip(np.cumsum([0, *split]), split, strict=False):
        part = Periodic(length, 20_000, hz, phase)
        part.slot = int(first)
        cut.append(part.act(CALM[:1])[0])
    train = whole.act(CALM[:1])[0]
    np.testing.assert_array_equal(np.concatenate(cut), train)
    times = np.flatnonzero(train) * slot_s
    assert abs(len(times) - len(train) * slot_s * hz) <= 1.0 + slot_s * hz + 1e-6
    if len(times) > 1:
        assert np.abs(np.diff(times) - 1 / hz).max() < slot_s + 1e-6
        assert abs(times[0] - phase / hz) <= slot_s + 1e-6


def test_a_periodic_train_does_not_drift_in_an_hour() -> None:
    train = Periodic(130 * 3600, Fraction(1_000_000, 130), 65.0)
    pulses = train.act(CALM[:1])[0]
    assert pulses.sum() == 65 * 3600
    assert (np.flatnonzero(pulses) == np.arange(65 * 3600) * 2).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Periodic(50, 20_000, 51.0), "51.0 Hz"),
        (lambda: Periodic(50, 20_000, -1.0), "-1.0 Hz"),
        (lambda: Periodic(50, 20_000, math.nan), "nan Hz"),
        (lambda: Periodic(50, 20_000, 10.0, 1.0), "phase 1.0"),
        (lambda: RandomDuty(50, 1.5), "duty 1.5"),
        (lambda: OnOff(50, 0.4, 0.3), "low=0.4, high=0.3"),
        (lambda: make_controller("sometimes", 50, 20_000), "'sometimes'"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_its_value(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


def test_random_stimulation_has_its_duty() -> None:
    random = RandomDuty(50, 0.3, seed=1)
    random.init_state(8)
    duty = np.mean([random.act(np.full((8, 10), 0.4, np.float32)) for _ in range(100)])
    assert abs(duty - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 40_000)


def test_on_off_has_hysteresis_for_each_environment_alone() -> None:
    controller = OnOff(2, low=0.33, high=0.40)
    controller.init_state(2)
    states = []
    for a, b in ((0.41, 0.30), (0.36, 0.36), (0.32, 0.45), (0.36, 0.36)):
        observation = np.full((2, 10), 0.36, np.float32)
        observation[:, -1] = (a, b)
        states.append(controller.act(observation)[:, 0].tolist())
    assert states == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_a_missing_or_broken_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*policy\.pt"):
        TorchPolicy.load(tmp_path)
    (tmp_path / "policy.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(UserError, match=r"policy\.pt is truncated or not a file of this toolkit"):
        TorchPolicy.load(tmp_path)
