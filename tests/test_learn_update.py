"""The learning step: each of its four parts does what the paper's algorithm says."""

from __future__ import annotations

import copy

import pytest
import torch

from sea_dbs.config import load_config
from sea_dbs.learner import Learner
from sea_dbs.replay import Batch
from sea_dbs.update import critic_target, update

torch.set_num_threads(1)  # as in training: more threads wait for each other on such small networks

SMALL = ["n_obs=50", "slots=4", "stim_hz=4", "hidden=16", "stride_ms=20"]


def _learner(*settings: str) -> Learner:
    return Learner(load_config("paper", [*SMALL, *settings]), 50, 4)


def _batch(seed: int = 0, n: int = 32) -> Batch:
    g = torch.Generator().manual_seed(seed)
    action = torch.randint(0, 2, (n, 4), generator=g).float()
    state, following = 0.3 + 0.2 * torch.rand(2, n, 50, generator=g)
    return Batch(state, action, action.mean(dim=1) - 0.5, following, torch.full((n,), 0.99))


def _run(learner: Learner, updates: int, seed: int = 0) -> list[float]:
    g = torch.Generator().manual_seed(seed)
    return [update(learner, _batch(k), 0.5, g)[0].reward_model for k in range(updates)]


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_three_targets() -> None:
    r, r_hat, q = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0]), torch.tensor([10.0, 20.0])
    assert critic_target("printed", r, r_hat, 0.9, q).tolist() == pytest.approx([10.5, 20.0])
    assert critic_target("mean", r, r_hat, 0.9, q).tolist() == pytest.approx([9.75, 19.0])
    assert critic_target("none", r, r_hat, 0.9, q).tolist() == pytest.approx([10.0, 16.0])


def test_the_reward_model_is_trained() -> None:
    learner = _learner("critic_target=mean", "reward_model_lr=0.01")
    losses = _run(learner, 150)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


@pytest.mark.parametrize("option", ["printed", "mean"])
def test_the_predicted_reward_changes_the_actor(option: str) -> None:
    learners = [_learner(f"critic_target={option}") for _ in range(2)]
    with torch.no_grad():
        learners[1].reward_model.rest[-1].bias += 3.0  # predicts another reward, everything else equal
    assert torch.equal(_weights(learners[0].actor), _weights(learners[1].actor))
    for learner in learners:
        _run(learner, 5)
    assert not torch.equal(_weights(learners[0].actor), _weights(learners[1].actor))


def test_without_a_reward_model_the_prediction_changes_nothing() -> None:
    learners = [_learner("critic_target=none") for _ in range(2)]
    with torch.no_grad():
        learners[1].reward_model.rest[-1].bias += 3.0
    before = _weights(learners[1].reward_model)
    for learner in learners:
        _run(learner, 5)
    assert torch.equal(_weights(learners[0].actor), _weights(learners[1].actor))
    assert torch.equal(_weights(learners[1].reward_model), before)


def test_the_targets_follow_by_the_polyak_weight() -> None:
    learner = _learner("polyak=0.3")
    old = copy.deepcopy(learner.target_critic), copy.deepcopy(learner.target_actor)
    _run(learner, 1)
    for before, slow, fast in zip(
        old, (learner.target_critic, learner.target_actor), (learner.critic, learner.actor), strict=True
    ):
        torch.testing.assert_close(_weights(slow), 0.7 * _weights(before) + 0.3 * _weights(fast))


def test_the_actors_step_leaves_the_critic_alone() -> None:
    a, b = _learner("actor_lr=1e-6"), _learner("actor_lr=1e-3")
    _run(a, 1)
    _run(b, 1)
    assert torch.equal(_weights(a.critic), _weights(b.critic))
    assert not torch.equal(_weights(a.actor), _weights(b.actor))


@pytest.mark.parametrize("exploration", ["gumbel", "epsilon"])
@pytest.mark.parametrize("option", ["printed", "mean", "none"])
def test_every_variant_learns_that_pulses_pay(exploration: str, option: str) -> None:
    learner = _learner(f"exploration={exploration}", f"critic_target={option}", "gamma=0.5", "actor_lr=5e-3")
    _run(learner, 100)
    with torch.no_grad():
        logits = learner.actor(_batch(999).observation)
    assert (logits[..., 1] > logits[..., 0]).float().mean() > 0.95


def test_equal_seeds_give_equal_learners_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = _learner("seed=1"), _learner("seed=1")
    _run(a, 3)
    _run(b, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(_weights(a.actor), _weights(b.actor))
    assert not torch.equal(_weights(_learner("seed=2").actor), _weights(_learner("seed=1").actor))
