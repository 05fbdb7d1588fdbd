"""The summaries: SciPy's own figures where it has them, and what an interval has to do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sea_dbs.benchmark.learning import binned, samples_needed
from sea_dbs.benchmark.statistics import aggregate, curve, first_reached, improvement, paired
from sea_dbs.benchmark.tables import Row


def test_the_interquartile_mean_and_its_interval_are_scipys() -> None:
    values = np.random.default_rng(3).normal(size=24)
    own = aggregate(values)
    theirs = stats.bootstrap(
        (values,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", n_resamples=5000, rng=1
    ).confidence_interval
    assert own.value == pytest.approx(stats.trim_mean(values, 0.25))
    assert own.low == pytest.approx(theirs.low, abs=0.05)
    assert own.high == pytest.approx(theirs.high, abs=0.05)
    assert aggregate(values) == own  # drawn with a fixed seed


def test_runs_are_resampled_within_their_task() -> None:
    easy, hard = np.full(10, 100.0), np.full(10, 0.0)
    both = aggregate(np.stack([easy, hard], axis=1))
    assert (both.low, both.high) == (both.value, both.value)  # each task is constant: nothing varies


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1.0, 12), rng.normal(0.0, 1.0, 15)
    found = improvement(a, b)
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (12 * 15))
    assert found.low is not None
    assert found.low < found.value
    assert improvement(a, a).value == 0.5
    assert improvement([1.0], [0.0]).low is None


def test_a_paired_difference_sees_what_the_spread_of_plants_hides() -> None:
    plants = np.random.default_rng(1).normal(0.0, 100.0, 10)
    assert paired(plants + 1.0, plants).above_zero
    assert not paired(plants, plants).above_zero


def test_samples_to_the_baselines_end() -> None:
    def run(half: float) -> dict[str, np.ndarray]:
        steps = np.arange(1, 601, dtype=np.float32)
        beta = (300 + 150 * np.exp2(-steps / half)).astype(np.float32)
        return binned({"step": steps, "P_beta": beta, "reward": -beta, "duty": beta * 0})

    needed = samples_needed({"ddpg": {k: run(200.0) for k in range(4)}, "sea-dbs": {k: run(50.0) for k in range(4)}})
    assert needed["sea-dbs"]["never"] == 0
    assert needed["sea-dbs"]["ratio"].value == pytest.approx(0.27, abs=0.06)
    assert samples_needed({"sea-dbs": {0: run(50.0)}}) == {}
    assert first_reached(np.array([1.0, 2.0]), np.array([5.0, 4.0]), 3.0) == np.inf
    one = curve(np.array([1.0]), np.array([[2.0]]))
    assert (one.low[0], one.value[0], one.high[0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("labels", [("",), ("constant stimulation", "constant stimulation", "")])
def test_only_a_policy_that_was_made_blind_is_called_closed_loop(labels: tuple[str, ...]) -> None:
    """A classical controller reads beta by its making: no test was done that it could have passed."""
    loss = {"zeros": aggregate([0.1, 0.2])}
    classical, policy = (Row("paper", "x", (0,), {}, labels, 0, tests, {}, {}).word for tests in ({}, loss))
    assert "reads beta" in classical
    assert "closed-loop" in policy
    assert classical.replace("reads beta", "closed-loop") == policy
