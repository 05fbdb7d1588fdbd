"""The search that knows the future: its plants are the environment's, its trains keep to the rules, it repeats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.errors import UserError
from firmware_bridge.limits import LIMITS
from sea_dbs.foresight.plants import DT_MS, MIN_GAP, WIDTH, Trials, mean_beta, newest_beta, samples, settled
from sea_dbs.foresight.run import PARTIAL, PICTURE, RESULT, foresight, summary
from sea_dbs.foresight.search import EVERY_MS, SETTLE_MS, ForesightPlan, candidate, regular_onsets, search

SMALL = ForesightPlan(plants=2, seconds=3.0, segment_ms=250.0, candidates=16, beam=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("foresight") / "out"
    return out, foresight(SMALL, out, quiet=True)


def test_a_settled_plant_is_the_environments():
    env = envs.make_env(preset="paper", precision="float32")
    _, info = env.reset(seed=500_001)
    plant = settled(500_001, samples(1000.0))
    assert newest_beta(plant.spikes, 0) == pytest.approx(info["P_beta_last"], rel=1e-12)
    action = np.zeros(50, np.int8)
    action[10] = 1  # 200 ms after the start
    _, _, _, _, info = env.step(action)
    [spikes] = Trials(plant, 1).advance([np.array([samples(200.0)])], samples(1000.0))
    assert spikes is not None
    assert newest_beta(np.concatenate([plant.spikes, spikes]), samples(1000.0)) == pytest.approx(info["P_beta_last"])


def test_a_future_in_pieces_is_the_same_future():
    plant = settled(500_002, samples(600.0))
    pulses = np.arange(0, samples(600.0) - WIDTH, samples(22.0))
    [whole] = Trials(plant, 1).advance([pulses], samples(600.0))
    half, trials, none = samples(300.0), Trials(plant, 3), np.zeros(0, np.int64)
    first = trials.advance([pulses[pulses < half], none, none], half)
    trials.put([trials.take(0)] * 3, half)  # the first one's future goes on in every lane
    second = trials.advance([pulses[pulses >= half] - half] * 3, half)
    assert whole is not None
    assert len(whole) > 50
    for rest in second:
        np.testing.assert_array_equal(whole, np.concatenate([first[0], rest]))


@pytest.mark.parametrize("train", [[-1], [990], [0, 5]])
def test_a_pulse_that_would_be_cut_is_refused(train: list[int]):
    trials = Trials(settled(500_002, 1000), 2)
    with pytest.raises(UserError, match="pulse train of lane 1 does not fit"):
        trials.advance([np.zeros(0, np.int64), np.array(train)], 1000)
    with pytest.raises(UserError, match="1 pulse trains were given for 2 lanes"):
        trials.advance([np.zeros(0, np.int64)], 1000)


@given(due=st.integers(0, 40), ms=st.floats(20.0, 500.0), last=st.integers(-5000, -1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_every_train_keeps_to_its_number_and_to_the_envelope(due: int, ms: float, last: int, seed: int):
    length = samples(ms)
    train = candidate(due, length, last, np.random.default_rng(seed))
    assert len(train) <= due
    assert train.dtype == np.int64
    if len(train):
        assert train[0] >= max(0, last + MIN_GAP)
        assert train[-1] + WIDTH <= length
        assert (np.diff(train) * DT_MS * 1000.0 >= LIMITS["SLOT_PERIOD_MIN_US"].value).all()


@given(rate=st.floats(2.0, 130.0), segment=st.sampled_from([20.0, 100.0, 250.0, 1000.0]))
@settings(max_examples=100, deadline=None)
def test_the_regular_train_has_its_number_and_no_pulse_across_a_segments_end(rate: float, segment: float):
    plan = ForesightPlan(rate=rate, segment_ms=segment)
    onsets, length = regular_onsets(plan), samples(segment)
    assert len(onsets) == plan.allowed(plan.segments)
    assert (onsets % length <= length - WIDTH).all()
    assert onsets[-1] <= plan.samples - WIDTH
    assert np.abs(np.diff(onsets) * DT_MS - 1000.0 / rate).max(initial=0.0) < 0.4  # ms


def test_the_result_can_be_played_again_and_keeps_to_the_rate(small: tuple[Path, dict[str, Any]]):
    out, result = small
    assert (out / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert not (out / PARTIAL).exists()
    for row in result["plants"]:
        onsets = np.rint(np.array(row["onsets_ms"]) / DT_MS).astype(np.int64)
        for k in range(1, SMALL.segments + 1):
            assert (onsets < k * samples(SMALL.segment_ms)).sum() <= SMALL.allowed(k) + 1  # a pulse at time 0
        assert len(onsets) <= SMALL.allowed(SMALL.segments)
        assert all(b - a >= MIN_GAP for a, b in pairwise(onsets))
        plant = settled(row["seed"], SMALL.samples)
        [spikes] = Trials(plant, 1).advance([onsets], SMALL.samples)
        assert spikes is not None
        together = np.concatenate([plant.spikes, spikes])
        again = mean_beta(together, samples(SETTLE_MS), SMALL.samples, samples(EVERY_MS))
        assert again == pytest.approx(row["best"], rel=1e-12)
        assert row["best"] <= row["regular"] < row["untreated"]


def test_foresight_finds_more_than_the_regular_train(small: tuple[Path, dict[str, Any]]):
    assert small[1]["difference"]["change"] < -1.0
    assert small[1]["best"]["pulse_hz"] > 0.8 * SMALL.rate


def test_at_a_rate_that_raises_beta_the_search_groups_or_spares(tmp_path: Path):
    plan = ForesightPlan(rate=26.0, plants=2, seconds=3.0, segment_ms=100.0, candidates=32, beam=4)
    found = search(settled(500_000, plan.samples), plan)
    assert found.regular > found.untreated
    assert found.best < found.untreated


def test_a_killed_search_goes_on_and_ends_as_the_whole_one(small: tuple[Path, dict[str, Any]], tmp_path: Path):
    out = tmp_path / "out"
    words = ["foresight", "--plants", "2", "--seconds", "3", "--segment-ms", "250", "--candidates", "16", "--beam", "3"]
    command = [sys.executable, "-m", "sea_dbs.cli", *words, "--out", str(out)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (out / PARTIAL).exists() and not (out / RESULT).exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((out / PARTIAL).read_text())["plants"] == small[1]["plants"][:1]
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "with foresight: P_beta" in done.stdout
    assert json.loads((out / RESULT).read_text())["plants"] == small[1]["plants"]
    with pytest.raises(UserError, match="another plan"):
        foresight(ForesightPlan(plants=3), out, resume=True, quiet=True)


def test_an_unfinished_search_of_another_plan_does_not_go_on(tmp_path: Path):
    (tmp_path / PARTIAL).write_text(json.dumps({"plan": {"rate": 1.0}, "plants": []}))
    with pytest.raises(UserError, match="another plan"):
        foresight(SMALL, tmp_path, resume=True, quiet=True)
    (tmp_path / PARTIAL).write_text("[1]")
    with pytest.raises(UserError, match="not left by a search"):
        foresight(SMALL, tmp_path, resume=True, quiet=True)


def test_the_summary_is_of_paired_plants():
    rows = [
        {"untreated": 400.0, "regular": 300.0, "best": 200.0, "regular_hz": 45.5, "best_hz": 45.0},
        {"untreated": 500.0, "regular": 350.0, "best": 225.0, "regular_hz": 45.5, "best_hz": 46.0},
    ]
    found = summary(rows)
    assert found["regular"]["change"] == pytest.approx(-27.5)
    assert found["best"]["change"] == pytest.approx(-52.5)
    assert found["difference"]["ci95"] == pytest.approx((-25.0, -25.0))
    assert found["pulses_percent_of_130Hz"] == pytest.approx(35.0)
