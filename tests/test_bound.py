"""The search that knows the future: its plants are the environment's, its trains keep to the rules, it repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.errors import UserError
from sea_dbs.bound.plants import WIDTH, Trials, mean_beta, newest_beta, samples, settled
from sea_dbs.bound.run import BOUND, PARTIAL, bound, summary
from sea_dbs.bound.search import MIN_GAP, BoundPlan, candidate, pulses_until

SMALL = BoundPlan(plants=2, seconds=3.0, segment_ms=500.0, candidates=4, beam=2)


def test_a_settled_plant_is_the_environments():
    env = envs.make_env(preset="paper", precision="float32")
    _, info = env.reset(seed=500_001)
    plant = settled(500_001, 1000.0)
    assert newest_beta(plant.spikes, 0) == pytest.approx(info["P_beta_last"], rel=1e-12)
    action = np.zeros(50, np.int8)
    action[10] = 1  # 200 ms after the start
    _, _, _, _, info = env.step(action)
    [spikes] = Trials([plant]).advance([np.array([samples(200.0)])], samples(1000.0))
    assert spikes is not None
    assert newest_beta(np.concatenate([plant.spikes, spikes]), samples(1000.0)) == pytest.approx(info["P_beta_last"])


def test_a_future_in_pieces_is_the_same_future():
    plant = settled(500_002, 600.0)
    pulses = np.arange(0, samples(600.0) - WIDTH, samples(22.0))
    [whole] = Trials([plant]).advance([pulses], samples(600.0))
    half, trials = samples(300.0), Trials([plant] * 3)
    first = trials.advance([pulses[pulses < half], np.zeros(0, np.int64), np.zeros(0, np.int64)], half)
    trials.put([trials.take(0)] * 3, half)  # the first one's future goes on in every lane
    second = trials.advance([pulses[pulses >= half] - half] * 3, half)
    assert whole is not None
    assert len(whole) > 50
    for rest in second:
        np.testing.assert_array_equal(whole, np.concatenate([first[0], rest]))


def test_a_regular_train_that_lowers_beta_is_seen_to():
    plant = settled(500_003, 4000.0)
    end = samples(4000.0)
    fast = np.arange(0, end - WIDTH, samples(7.7))
    ran = Trials([plant] * 2).advance([np.zeros(0, np.int64), fast], end)
    untreated, treated = (mean_beta(np.concatenate([plant.spikes, spikes]), 0, end, samples(100.0)) for spikes in ran)
    assert treated < 0.75 * untreated


@given(due=st.integers(0, 40), ms=st.floats(20.0, 500.0), last=st.integers(-5000, -1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_every_train_keeps_to_the_rate_and_to_the_envelope(due: int, ms: float, last: int, seed: int):
    length = samples(ms)
    train = candidate(due, length, last, np.random.default_rng(seed))
    assert len(train) <= due
    assert train.dtype == np.int64
    if len(train):
        assert train[0] >= max(0, last + MIN_GAP)
        assert train[-1] + WIDTH <= length
        assert (np.diff(train) >= MIN_GAP).all()


def test_pulses_are_given_out_at_the_rate():
    plan = BoundPlan(rate=45.5, segment_ms=100.0)
    assert pulses_until(plan, 0) == 0
    assert pulses_until(plan, 20) == 91
    each = np.diff([pulses_until(plan, k) for k in range(21)])
    assert set(each) == {4, 5}


def test_a_search_repeats_goes_on_and_keeps_its_budget(tmp_path: Path):
    result = bound(SMALL, tmp_path / "a", quiet=True)
    assert (tmp_path / "a" / "bound.png").stat().st_size > 5_000
    assert result["pulse_hz"] <= SMALL.rate
    (tmp_path / "b").mkdir()  # as a process leaves it that was killed in its second plant
    started = {"plan": result["plan"], "plants": result["plants"][:1]}
    (tmp_path / "b" / PARTIAL).write_text(json.dumps(started))
    again = bound(SMALL, tmp_path / "b", resume=True, quiet=True)
    assert again["plants"] == result["plants"]
    assert json.loads((tmp_path / "b" / BOUND).read_text())["difference"] == json.loads(
        json.dumps(result["difference"])
    )
    assert not (tmp_path / "b" / PARTIAL).exists()


def test_another_plan_does_not_go_on(tmp_path: Path):
    (tmp_path / PARTIAL).write_text(json.dumps({"plan": {"rate": 1.0}, "plants": []}))
    with pytest.raises(UserError, match="another plan"):
        bound(SMALL, tmp_path, resume=True, quiet=True)


def test_more_candidates_find_more():
    few = settled(500_000, 3000.0)
    from sea_dbs.bound.search import search

    plan = BoundPlan(plants=2, seconds=3.0, segment_ms=250.0, candidates=2, beam=1)
    many = BoundPlan(plants=2, seconds=3.0, segment_ms=250.0, candidates=32, beam=4)
    assert search(few, many).best < search(few, plan).best


def test_the_summary_is_of_paired_plants():
    rows = [
        {"untreated": 400.0, "regular": 300.0, "best": 200.0, "pulse_hz": 45.0},
        {"untreated": 500.0, "regular": 350.0, "best": 225.0, "pulse_hz": 46.0},
    ]
    found = summary(rows)
    assert found["regular"]["change"] == pytest.approx(-27.5)
    assert found["best"]["change"] == pytest.approx(-52.5)
    assert found["difference"]["ci95"] == pytest.approx((-25.0, -25.0))
    assert found["pulses_percent_of_130Hz"] == pytest.approx(35.0)
