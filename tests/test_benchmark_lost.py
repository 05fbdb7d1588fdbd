"""A plant that diverges in a benchmark is left out, plant by plant, and the others' numbers do not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from envs.config import EnvConfig, env_config
from envs.errors import UserError
from sea_dbs.benchmark.measure import measures, series
from sea_dbs.benchmark.tables import _apart, relative
from sea_dbs.benchmark.world import Play, make_training_world, make_world, play
from sea_dbs.controllers import Always, Never
from sea_dbs.tasks import find_task

CONFIG = env_config("realtime", measures=True, episode_steps=150, precision="float32")
SEEDS, STEPS = (3, 4, 5), 130


class Spoils(Always):
    """Stimulates, and spoils the plants of some lanes at its 30th decision."""

    def __init__(self, lanes: Sequence[int]) -> None:
        super().__init__(1)
        self.lanes, self.count = lanes, 0
        self.env: Any = None

    def make(self, config: EnvConfig, lanes: int, people: Any) -> Any:
        self.env = make_world(config, lanes, people)
        return self.env

    def act(self, observation: Any) -> Any:
        self.count += 1
        if self.count == 30:
            for lane in self.lanes:
                self.env.lane(lane).ready().rows(0, "V0", 8)[1, 4] = np.nan
        return super().act(observation)


@pytest.fixture(scope="module")
def runs() -> tuple[Play, Play]:
    """The same plants, whole and with one lost."""
    spoils = Spoils([1])
    with pytest.warns(RuntimeWarning, match="environment 1 was stopped"):
        lost = play(CONFIG, spoils, SEEDS, STEPS, make=spoils.make)
    return play(CONFIG, Always(1), SEEDS, STEPS), lost


def test_the_others_are_as_if_nothing_had_happened(runs: tuple[Play, Play]) -> None:
    whole, lost = runs
    assert [bool(word) for word in lost.lost] == [False, True, False]
    assert "stn cell 4" in lost.lost[1]
    assert lost.violations == whole.violations == 0
    for name in ("P_beta", "reward", "pulses", "seen", "decisions"):
        a, b = getattr(whole, name), getattr(lost, name)
        assert (a[[0, 2]] == b[[0, 2]]).all()
    assert np.isnan(lost.P_beta[1]).all()
    mine, theirs = measures(whole, CONFIG), measures(lost, CONFIG)
    assert set(mine) == set(theirs)
    for name, values in theirs.items():
        assert np.isnan(values[1]), name
        assert (values[0], values[2]) == (mine[name][0], mine[name][2])
    assert (series(lost)["pulses"][1] == -1).all()


def test_tables_compare_the_plants_that_are_there(runs: tuple[Play, Play]) -> None:
    own = measures(runs[1], CONFIG)
    never = measures(play(CONFIG, Never(1), SEEDS, STEPS), CONFIG)
    share = 100.0 * np.array(own["P_beta"]) / np.array(never["P_beta"])
    assert relative("P_beta", own, never) == pytest.approx(np.mean(share[[0, 2]]))
    assert relative("pulse_hz", own, never) == pytest.approx(50.0)
    assert relative("error", own, never) == pytest.approx(
        100.0 * (own["error"][0] + own["error"][2]) / (never["error"][0] + never["error"][2])
    )
    whole = measures(runs[0], CONFIG)
    assert _apart("P_beta", whole, own, never) == 0.0  # and not the third plant's share
    assert np.isnan(relative("P_beta", {"P_beta": [np.nan] * 3}, never))


@pytest.mark.parametrize("task", ["realtime", "cohort"])
def test_a_training_goes_on_when_a_plant_diverges(task: str) -> None:
    """The environments of a training job: the lane gets a plant settled anew, of its own patient in a cohort."""
    people = find_task(task).patients("train")
    config = find_task(task).config(episode_steps=5, precision="float32")
    env = make_training_world(config, 3, people)
    env.reset(seed=[5, 6, 7])
    env.step(np.zeros((3, config.slots), np.int8))
    before = [lane.env.get_wrapper_attr("patient") for lane in env._lanes]
    env.lane(1).ready().rows(0, "V0", 8)[1, 4] = np.nan  # type: ignore[union-attr]
    with pytest.warns(RuntimeWarning, match="environment 1 was stopped"):
        *_, truncated, info = env.step(np.zeros((3, config.slots), np.int8))
    assert "stn cell 4" in info["redrawn"][1]
    assert not truncated.any()
    assert [lane.env.get_wrapper_attr("patient") for lane in env._lanes] == before
    assert (before[1] is None) == (task == "realtime")
    assert np.isfinite(env.step(np.zeros((3, config.slots), np.int8))[0]).all()


def test_when_no_plant_is_left_the_job_says_so() -> None:
    spoils = Spoils([0, 1, 2])
    with pytest.warns(RuntimeWarning), pytest.raises(UserError, match=r"every plant was lost, the first: .*stn cell 4"):
        play(CONFIG, spoils, SEEDS, STEPS, make=spoils.make)
