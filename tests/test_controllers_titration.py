"""Titration: a test, what it shows, and what follows from it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tune_toy import ToyVector

from envs.errors import UserError
from firmware_bridge.plan import SessionPlan, prepare
from sea_dbs.benchmark.suites import Options, controllers_of, entries, tuned
from sea_dbs.cli.benchmark import said
from sea_dbs.config import load_config
from sea_dbs.controllers import KINDS, Titration, build, make_controller
from sea_dbs.evaluation_plan import Plan
from sea_dbs.tune import TunePlan, points, tune

SECOND = Fraction(1_000_000, 130)  # µs of a slot, 130 a decision


def _trains(controller: Titration, beta: list[list[float]]) -> NDArray[np.int8]:
    """(n, all slots) of what is decided on these betas, a list a decision."""
    controller.init_state(len(beta[0]))
    return np.concatenate([controller.act(np.array(one, np.float32)[:, None]) for one in beta], axis=1)


def test_who_answers_to_the_test_keeps_it_and_who_does_not_gets_groups() -> None:
    controller = Titration(130, SECOND, test_s=2.0, keep_below=0.2, group_pulses=16, retest_s=4.0)
    # Only the beta after the test counts: the first plant's is low then, the second's before it and after it.
    beta = [[0.5, 0.1], [0.5, 0.1], [0.19, 0.3], [0.5, 0.1], [0.5, 0.1], [0.5, 0.1], [0.5, 0.1], [0.5, 0.1], [0.3, 0.1]]
    given = _trains(controller, beta).reshape(2, len(beta), 130)
    assert (given[0, :8] == 1).all()  # the test, 4 s of it kept, and the next test
    assert given[1, :, 16:].any(axis=1).tolist() == [True] * 2 + [False] * 4 + [True] * 3
    assert given[1, 2:6, :16].all()
    assert given[1, 8].all()  # the second test of 2 s turned it round,
    assert given[0, 8].tolist() == [1] * 16 + [0] * 114  # and the other
    controller.init_state(2)
    assert controller.act(np.array([[0.1], [0.1]], np.float32)).all()  # nothing is remembered


def test_the_newest_value_counts_and_the_threshold_itself_is_low_enough() -> None:
    controller = Titration(130, SECOND, test_s=1.0, keep_below=0.25, group_pulses=0)
    controller.init_state(3)
    controller.act(np.full((3, 2), 0.1, np.float32))
    given = controller.act(np.array([[0.9, 0.25], [0.1, 0.2501], [0.1, 0.9]], np.float32))
    assert given.mean(axis=1).tolist() == [1.0, 0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(
    slots=st.sampled_from([1, 2, 13, 26, 65, 130]),
    beta=st.floats(0.0, 0.5),
    group=st.integers(0, 130),
    test_s=st.integers(1, 3),
)
def test_the_train_is_the_same_however_decisions_are_cut(slots: int, beta: float, group: int, test_s: int) -> None:
    def given_with(cut: int) -> NDArray[np.int8]:
        controller = Titration(cut, SECOND, float(test_s), keep_below=0.25, group_pulses=group, retest_s=2.0)
        return _trains(controller, [[beta]] * (8 * 130 // cut))

    assert (given_with(slots) == given_with(130)).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"test_s": 0.0}, "test_s = 0 was asked for: above 0 to 86400 s"),
        ({"test_s": 1e308}, r"test_s = 1e\+308"),
        ({"retest_s": float("nan")}, "retest_s = nan"),
        ({"period_s": 0.5}, "period_s = 0.5 was asked for: above 0.5 to 86400 s"),
        ({"keep_below": float("inf")}, "keep_below = inf"),
        ({"keep_below": 250.0}, r"keep_below = 250 was asked for: from 0 to 2 \(P_beta/1000\)"),
        ({"group_pulses": 130.5}, "group_pulses = 130.5 was asked for: from 0 to the 130 slots of 1 s"),
        ({"group_pulses": -0.4}, "group_pulses = -0.4"),
        ({"group_pulses": 10**400}, "do not fit"),
        ({"group": 3.0}, "'titration' has no parameter 'group'"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_value(values: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build("titration", 130, SECOND, values)


class Answering(ToyVector):
    """Beta under a full train is low on every second plant; a pulse costs what the task says."""

    def _observed(self, beta: NDArray[np.float64]) -> NDArray[np.float32]:
        odd = np.array(self.seeds) % 2 == 1
        return super()._observed(np.where(odd & (beta < 200.0), 150.0, np.maximum(beta, 300.0)))


def test_the_tuner_finds_a_threshold_by_reward_and_a_session_takes_it(tmp_path: Path) -> None:
    plan = TunePlan("titration", task="efficient-3", trials=12, seeds=4, seconds=7.0, measure="reward")
    result = tune(plan, tmp_path / "out", quiet=True, make=Answering)
    means = [float(np.mean(row["reward"])) for row in result["trials"]]
    assert result["best"]["score"] == pytest.approx(-max(means))
    assert means == pytest.approx([row["mean_reward"] for row in result["trials"]])
    assert {row["parameters"]["test_s"] for row in result["trials"]} <= {float(k) for k in range(1, 7)}
    assert (tmp_path / "out" / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert set(result["parameters"]) == set(KINDS["titration"])
    made = make_controller(f"titration:{tmp_path / 'out'}", 130, SECOND)
    assert isinstance(made, Titration)
    assert made.keep_below == result["parameters"]["keep_below"]
    parts = prepare(
        SessionPlan(out=tmp_path / "session", controller=f"titration:{tmp_path / 'out'}", preset="paper", steps=5)
    )
    assert isinstance(parts.controller, Titration)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (TunePlan("titration", measure="reward", price=0.3), "--price is 0.3: the task's reward"),
        (TunePlan("titration", task="efficient-3-lfp"), "reads the GPi's beta, which the task 'efficient-3-lfp'"),
        (TunePlan("titration", seconds=6.0), "--seconds is 6.0: more than the longest test of 6 s"),
    ],
)
def test_a_search_that_means_nothing_is_refused(plan: TunePlan, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan.check()


def test_slow_slots_bound_the_groups_that_are_tried() -> None:
    plan = TunePlan("titration", task="paper-30", method="grid", trials=8)
    assert max(point["group_pulses"] for point in points(plan, 30.0)) == 30.0


def test_an_evaluation_without_beta_refuses_it() -> None:
    plan = Plan(controllers=("titration", "policy"))
    with pytest.raises(UserError, match="'titration' reads the newest beta, which the preset 'timing' does not show"):
        plan.check(load_config("timing"))
    plan.check(load_config("paper"))


def test_it_stands_where_a_pulse_has_a_price_with_what_was_tuned_there() -> None:
    found = tuned("titration", 130.0, 1000.0)
    assert found is not None
    assert "titration" in controllers_of("efficient-3")
    assert "titration" in {cell.controller for cell in entries("trains", Options(seeds=1))}
    assert not {"titration"} & {*controllers_of("paper"), *controllers_of("graded"), *controllers_of("pattern")}
    [cell] = [one for one in entries("trains", Options(1, tasks=("efficient-3",))) if one.controller == "titration"]
    assert {key: cell.job.spec["controller"][key] for key in found} == found


def test_more_plants_a_seed_are_other_plants_for_each_seed() -> None:
    def plants(number: int) -> list[int]:
        options = Options(seeds=2, plants=number, tasks=("efficient-3",), controllers=("always",))
        cells = [cell for cell in entries("trains", options) if cell.controller == "always"]
        return [plant for cell in cells for plant in cell.job.spec["plants"]]

    assert plants(8) == [500_000 + k for k in range(16)]
    assert plants(4) == [*range(500_000, 500_004), *range(500_008, 500_012)]  # as before there could be more
    assert plants(40) == [500_000 + k for k in range(80)]
    with pytest.raises(UserError, match="--plants is 65: from 2 to 64 are allowed"):
        plants(65)
    with pytest.raises(UserError, match="--seeds 200 with --plants 64 are 12800 plants: at most 10000"):
        entries("trains", Options(200, 64))
    with pytest.raises(UserError, match="--plants is 21: the task 'cohort' has 20 patients"):
        entries("robust", Options(1, 21))
    assert "--plants 24" in said("benchmark --suite trains", 2, "", "", None, None, 24)
    assert "--plants" not in said("benchmark --suite trains", 2, "", "", None, None, Options().plants)
