"""The one rollout loop, the replay memory that it fills, and the seeds that it is given."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from learn_toy import ToyEnv

from envs.errors import UserError
from sea_dbs.config import load_config
from sea_dbs.controllers import Always, RandomDuty
from sea_dbs.replay import Replay
from sea_dbs.rollout import Start, Transition, begin, rollout
from sea_dbs.seeds import BLOCK, HELD_OUT, SEARCH, held_out_seeds, search_seeds, stream, training_seed

CONFIG = load_config("paper", ["n_obs=20", "slots=4", "stim_hz=4", "episode_steps=5"])


def _envs(n: int) -> list[Any]:
    return [ToyEnv(CONFIG) for _ in range(n)]


def test_a_rollout_chains_its_observations_and_stops_at_the_episodes_end() -> None:
    transitions = list(rollout(_envs(3), Always(4), 99, [1, 2, 3]))
    assert [one.step for one in transitions] == [1, 2, 3, 4, 5]
    assert [one.truncated.all() for one in transitions] == [False] * 4 + [True]
    for before, after in pairwise(transitions):
        np.testing.assert_array_equal(before.next_observation, after.observation)
    assert transitions[0].observation.shape == (3, 20)
    assert transitions[0].action.shape == (3, 4)


def test_lockstep_equals_one_at_a_time_on_any_number_of_threads() -> None:
    together = list(rollout(_envs(3), Always(4), 5, [1, 2, 3], threads=3))
    alone = [list(rollout(_envs(1), Always(4), 5, [seed])) for seed in (1, 2, 3)]
    for k in range(3):
        for a, b in zip(together, alone[k], strict=True):
            np.testing.assert_array_equal(a.next_observation[k], b.next_observation[0])
            assert a.reward[k] == b.reward[0]


def test_a_rollout_goes_on_from_where_another_stopped() -> None:
    whole = list(rollout(_envs(2), RandomDuty(4, 0.5, seed=3), 5, [1, 2]))
    environments, controller = _envs(2), RandomDuty(4, 0.5, seed=3)
    controller.init_state(2)
    first = list(rollout(environments, controller, 2, start=begin(environments, [1, 2])))
    rest = list(rollout(environments, controller, 3, start=Start(first[-1].next_observation, first[-1].infos)))
    for a, b in zip(whole, first + rest, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(a.next_observation, b.next_observation)


class _Answers(Always):
    def __init__(self, answer: Any) -> None:
        super().__init__(4)
        self.answer = answer

    def act(self, observation: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((2, 5), np.int8),
        np.zeros((1, 4), np.int8),
        np.zeros(4, np.int8),
        np.zeros((2, 4), np.float32),
        np.full((2, 4), 2, np.int8),
        [[0, 0, 0, 0], [0, 0, 0, 0]],
        None,
    ],
)
def test_a_wrong_action_raises_and_is_never_replaced(answer: Any) -> None:
    with pytest.raises(UserError, match="the controller 'always' answered with"):
        next(rollout(_envs(2), _Answers(answer), 1, [1, 2]))


def test_each_environment_needs_its_seed() -> None:
    with pytest.raises(UserError, match="1 seeds were given for 2 environments"):
        next(rollout(_envs(2), Always(4), 1, [1]))


def _transition(value: float, n: int = 3) -> Transition:
    numbers = value + np.arange(n, dtype=np.float32)
    observation = np.repeat(numbers[:, None], 20, axis=1)
    action = np.ones((n, 4), np.int8)
    return Transition(1, observation, action, numbers, observation + 0.5, np.zeros(n, np.bool_), ())


def test_replay_keeps_the_newest_and_samples_whole_transitions() -> None:
    replay = Replay(8, 20, 4, 0.9)
    for k in range(4):
        replay.add(_transition(10.0 * k))
    assert replay.size == 8
    batch = replay.sample(500, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) == {11.0, 12.0, 20.0, 21.0, 22.0, 30.0, 31.0, 32.0}
    assert (batch.observation[:, 0] == batch.reward).all()
    assert (batch.next_observation[:, 0] == batch.reward + 0.5).all()


def test_replay_continues_from_its_state() -> None:
    a, b = Replay(8, 20, 4, 0.9), Replay(8, 20, 4, 0.9)
    a.add(_transition(0.0))
    a.add(_transition(10.0))
    b.load_state_dict(a.state_dict())
    for replay in (a, b):
        replay.add(_transition(20.0))
    batches = [replay.sample(64, torch.Generator().manual_seed(1)) for replay in (a, b)]
    assert torch.equal(batches[0].reward, batches[1].reward)
    assert torch.equal(batches[0].next_observation, batches[1].next_observation)


def test_training_never_meets_a_held_out_or_search_plant() -> None:
    last = {*held_out_seeds(BLOCK), *search_seeds(BLOCK)}
    assert max(last) < training_seed(0, 0)
    assert HELD_OUT + BLOCK <= SEARCH
    assert len({training_seed(run, episode) for run in (0, 1, 99_999) for episode in (0, 1, BLOCK - 1)}) == 9
    assert training_seed(99_999, BLOCK - 1) < 2**31


def test_a_runs_generators_are_independent() -> None:
    assert len({stream(seed, purpose) for seed in range(50) for purpose in ("exploration", "update")}) == 100
