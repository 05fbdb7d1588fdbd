"""Training goes on when a plant diverges, and says so; evaluation does not hide it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from envs.errors import UserError
from envs.plant.batch import Failure
from envs.vector import BasalGangliaVectorEnv
from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import Always
from sea_dbs.redrawn import RedrawnVectorEnv
from sea_dbs.rollout import rollout
from sea_dbs.train import make_vector, train

MAKE = {"precision": "float32", "autoreset_mode": "Disabled"}
SMALL = ["episodes=3", "n_envs=3", "episode_steps=12", "warmup_steps=6", "batch_size=4", "checkpoint_steps=1000"]


def spoil(env: RedrawnVectorEnv, lane: int) -> None:
    env.lane(lane).ready().rows(0, "V0", 8)[1, 4] = np.nan  # type: ignore[union-attr]


@pytest.mark.parametrize("preset", ["realtime", "pattern"])
def test_a_lane_that_diverges_goes_on_with_a_new_plant_to_the_same_end(preset: str):
    env, whole, copy = (RedrawnVectorEnv(3, preset, episode_steps=13, **MAKE) for _ in range(3))
    for each in (env, whole):
        each.reset(seed=5)
    one = np.ones((3, 1), np.int8)
    seen = before = env.step(one)
    whole.step(one)
    for step in range(2, 14):
        if step == 3:
            before = seen
            spoil(env, 1)
            with pytest.warns(RuntimeWarning, match="environment 1 was stopped: .*stn cell 4"):
                seen = env.step(one)
            assert "stn cell 4 of network 1" in seen[4]["redrawn"][1]
            assert "failure" not in seen[4]
            assert seen[1][1] == before[1][1], "the reward of the step before"
            copy.set_state(env.get_state())
        else:
            seen = env.step(one)
            assert "redrawn" not in seen[4]
            if step > 3:
                for mine, other in zip(copy.step(one)[:4], seen[:4], strict=True):
                    np.testing.assert_array_equal(mine, other)
        expected = whole.step(one)
        assert seen[0][[0, 2]].tobytes() == expected[0][[0, 2]].tobytes(), "the other lanes are not touched"
        assert np.isfinite(seen[0]).all()
        assert seen[3].tolist() == [step == 13] * 3, "all lanes end together"
        assert seen[4]["step"].tolist() == [step] * 3
    assert not np.array_equal(seen[0][1], expected[0][1])


def test_without_a_divergence_it_is_the_plain_environment():
    plain = load_config("realtime", SMALL)
    env, other = make_vector(plain, 2), BasalGangliaVectorEnv(2, "realtime", episode_steps=12, **MAKE)
    for each in (env, other):
        each.reset(seed=9)
    for _ in range(12):
        mine, theirs = (each.step(np.ones((2, 1), np.int8)) for each in (env, other))
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_training_goes_on_after_a_divergence(tmp_path: Path):
    class Spoiled(RedrawnVectorEnv):
        def _step(self, lanes, actions):  # type: ignore[no-untyped-def]
            if self._count[0] == 5:
                spoil(self, 2)
            return super()._step(lanes, actions)

    def make(config: TrainConfig, n: int) -> Spoiled:
        return Spoiled(n, config.preset, **MAKE, **config.env_overrides())

    with pytest.warns(RuntimeWarning, match="environment 2 was stopped"):
        done = train(load_config("realtime", SMALL), tmp_path / "run", quiet=True, env_factory=make)
    assert done.env_steps == 36
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 36
    assert [(line["env"], line["episode_step"]) for line in lines if line["redrawn"]] == [(2, 6)]


def test_a_network_that_diverges_while_it_settles_is_drawn_again(monkeypatch: pytest.MonkeyPatch):
    env = RedrawnVectorEnv(2, "realtime", episode_steps=8, **MAKE)
    env.reset(seed=5)
    plain, failing = BasalGangliaVectorEnv._reset, iter([True, False])

    def reset(self, lanes, seeds, options):  # type: ignore[no-untyped-def]
        infos = plain(self, lanes, seeds, options)
        if next(failing):
            self._failures[lanes[0]] = Failure(lanes[0], "stn", 1, 2.0)
            return {lanes[0]: {"failure": "it diverged"}}
        return infos

    spoil(env, 1)
    monkeypatch.setattr(BasalGangliaVectorEnv, "_reset", reset)
    with pytest.warns(RuntimeWarning, match="environment 1 was stopped"):
        *_, info = env.step(np.ones((2, 1), np.int8))
    assert "stn cell 4" in info["redrawn"][1]
    assert "failure" not in info


def test_an_evaluation_stops_with_the_plants_name():
    env = BasalGangliaVectorEnv(2, "realtime", episode_steps=8, **MAKE)
    steps = rollout(env, Always(1), 8, [5, 6])
    next(steps)
    env.lane(1).ready().rows(0, "V0", 8)[1, 4] = np.nan  # type: ignore[union-attr]
    with pytest.warns(RuntimeWarning), pytest.raises(UserError, match=r"a plant failed: .*stn cell 4 of network 1"):
        next(steps)
