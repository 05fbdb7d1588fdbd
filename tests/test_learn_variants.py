"""One configuration, one switch: every variant trains, resumes and gives a policy that any reader of runs takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn_toy import ToyEnv, toy_vector

from envs.errors import UserError
from sea_dbs import checkpoint
from sea_dbs.config import load_config
from sea_dbs.controllers import TorchPolicy
from sea_dbs.files import read_json, sha256_file
from sea_dbs.learner import Learner
from sea_dbs.networks import RecurrentActor, build_actor
from sea_dbs.replay import Batch, Replay
from sea_dbs.rollout import Transition
from sea_dbs.runlog import read_metrics
from sea_dbs.sequences import SequenceReplay, update_sequences
from sea_dbs.train import train
from sea_dbs.trunk import CompactTrunk
from sea_dbs.update import entropy_bonus, update

SMALL = [
    "n_obs=50",
    "slots=1",
    "stim_hz=50",
    "stride_ms=20",
    "episode_steps=30",
    "hidden=16",
    "batch_size=8",
    "episodes=10",
    "n_envs=4",
    "warmup_steps=40",
    "checkpoint_steps=100",
    "unroll=4",
    "burn_in=3",
]


@pytest.mark.parametrize("preset", ["paper", "paper-30", "pattern", "realtime", "efficient"])
def test_a_variant_differs_in_its_switches_alone(preset: str) -> None:
    whole = load_config(preset)
    switches = {"gs-only": ["critic_target"], "pm-only": ["exploration"], "ddpg": ["critic_target", "exploration"]}
    assert whole.variant == load_config(preset, ["variant=sea-dbs"]).variant == "sea-dbs"
    for word, keys in switches.items():
        config = load_config(preset, [f"variant={word}"])
        assert config.variant == word
        a, b = whole.model_dump(), config.model_dump()
        assert sorted(key for key in a if a[key] != b[key]) == keys


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["variant=sac"], "unknown variant 'sac': variants are sea-dbs"),
        (["variant=ddpg", "exploration=gumbel"], "variant=ddpg sets exploration itself"),
        (["variant=pm-only", "critic_target=none"], "critic_target must be printed or mean"),
        (["variant=dqn", "slots=50"], "needs slots=1, not 50"),
        (["variant=recurrent", "n_step=3"], "needs n_step=1"),
        (["variant=ppo", "actor=small"], "the network of actor=compact"),
        (["twin_critics=maybe"], "true or false"),
    ],
)
def test_a_wrong_variant_is_refused_in_one_sentence(settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config("paper", settings)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    "settings",
    [["n_step=3"], ["twin_critics=true", "priority=0.6"], ["variant=recurrent", "twin_critics=true"], ["entropy=0.1"]],
    ids=lambda settings: settings[0],
)
def test_an_interrupted_run_with_a_switch_goes_on_to_the_same_bytes(settings: list[str], tmp_path: Path) -> None:
    steps = 0

    class Stopping(ToyEnv):
        def step(self, action: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > 110:
                raise StoppedError
            return super().step(action)

    config = load_config("paper", [*SMALL, "episodes=5", "checkpoint_steps=60", *settings])
    train(config, tmp_path / "undisturbed", quiet=True, env_factory=toy_vector)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", quiet=True, env_factory=partial(toy_vector, kind=Stopping))
    train(config, tmp_path / "run", resume=True, quiet=True, env_factory=toy_vector)
    for name in (checkpoint.POLICY, "metrics.jsonl"):
        assert sha256_file(tmp_path / "run" / name) == sha256_file(tmp_path / "undisturbed" / name)
    weights = [checkpoint.load(tmp_path / run / checkpoint.CHECKPOINT) for run in ("run", "undisturbed")]
    assert all(
        torch.equal(weights[0]["learner"]["actor"][key], value) for key, value in weights[1]["learner"]["actor"].items()
    )
    assert any(line["loss_critic"] is not None for line in read_metrics(tmp_path / "run"))
    assert TorchPolicy.load(tmp_path / "run").slots == 1


@pytest.mark.parametrize("variant", ["ppo", "dqn", "qr-dqn"])
def test_an_outsider_trains_on_the_same_environments_and_is_read_as_any_policy(variant: str, tmp_path: Path) -> None:
    from sea_dbs.baselines import outsiders

    models = []

    def build(*arguments: Any) -> Any:
        models.append(real(*arguments))
        return models[-1]

    real = outsiders.build
    config = load_config("paper", [*SMALL, f"variant={variant}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outsiders, "build", build)
        result = train(config, tmp_path / "run", quiet=True, env_factory=toy_vector)
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, result.env_steps + 1))
    assert 300 <= result.env_steps < 300 + 4
    assert [line["episode_step"] for line in lines[::4]] == [k % 30 + 1 for k in range(75)]
    assert read_json(tmp_path / "run" / "manifest.json")["variant"] == variant
    again = train(config, tmp_path / "run", resume=True, quiet=True, env_factory=toy_vector)
    assert again == result
    train(config, tmp_path / "same", quiet=True, env_factory=toy_vector)
    assert sha256_file(tmp_path / "same" / checkpoint.POLICY) == sha256_file(tmp_path / "run" / checkpoint.POLICY)

    policy = TorchPolicy.load(tmp_path / "run")
    policy.init_state(200)
    seen = np.random.default_rng(0).uniform(0.2, 0.6, (200, 50)).astype(np.float32)
    theirs, _ = models[0].predict(seen, deterministic=True)
    logits = policy.logits(seen)[:, 0]
    clear = np.abs(logits[:, 1] - logits[:, 0]) > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(policy.act(seen)[clear, 0], np.asarray(theirs).reshape(-1)[clear])


@pytest.mark.parametrize("variant", ["dqn", "qr-dqn"])
@pytest.mark.parametrize("every", [1, 5])
def test_an_outsider_updates_as_often_as_ours(variant: str, every: int, tmp_path: Path) -> None:
    from sea_dbs.baselines import outsiders

    models = []
    real = outsiders.build
    config = load_config("paper", [*SMALL, f"variant={variant}", f"steps_per_update={every}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outsiders, "build", lambda *arguments: models.append(real(*arguments)) or models[-1])
        result = train(config, tmp_path / "run", quiet=True, env_factory=toy_vector)
    expected = (result.env_steps - config.warmup_steps) / every
    assert models[0]._n_updates == pytest.approx(
        expected, abs=2 * config.n_envs
    )  # they come a step of all lanes at once


def test_ppo_decides_on_many_slots(tmp_path: Path) -> None:
    config = load_config("paper", [*SMALL, "variant=ppo", "slots=10", "stim_hz=10"])
    train(config, tmp_path / "run", quiet=True, env_factory=toy_vector)
    policy = TorchPolicy.load(tmp_path / "run")
    policy.init_state(3)
    assert policy.act(np.full((3, 50), 0.4, np.float32)).shape == (3, 10)


def _transition(reward: float, truncated: bool, n: int = 2) -> Transition:
    value = np.full((n, 5), reward, np.float32)
    return Transition(1, value, np.ones((n, 1), np.int8), value[:, 0], value + 1, np.full(n, truncated), ())


def test_n_rewards_are_summed_and_an_episodes_end_cuts_them_short() -> None:
    replay = Replay(64, 5, 1, gamma=0.5, n_step=3)
    for k in range(1, 6):
        replay.add(_transition(float(k), truncated=k == 5))
    assert replay.size == 10
    assert replay.reward[:10:2].tolist() == [1, 2, 3, 4, 5]
    assert replay.later[:10:2].tolist() == [0.5 * 2 + 0.25 * 3, 0.5 * 3 + 0.25 * 4, 0.5 * 4 + 0.25 * 5, 0.5 * 5, 0]
    assert replay.discount[:10:2].tolist() == [0.125, 0.125, 0.125, 0.25, 0.5]
    assert replay.next_observation[:10:2, 0].tolist() == [4, 5, 6, 6, 6]
    assert not replay.waiting


def test_prioritised_replay_draws_what_surprised() -> None:
    replay = Replay(64, 5, 1, gamma=0.5, priority=1.0)
    for k in range(10):
        replay.add(_transition(float(k), truncated=False))
    generator = torch.Generator().manual_seed(0)
    whole = Batch(*[torch.zeros(20)] * 5, index=torch.arange(20))
    replay.learnt(whole, torch.where(torch.arange(20) == 7, 100.0, 1.0))
    batch = replay.sample(1000, generator)
    assert (batch.index == 7).float().mean() > 0.7
    assert isinstance(batch.weight, torch.Tensor)
    assert batch.weight[batch.index == 7].max() < 0.2 * batch.weight.max()


def test_the_smaller_critic_counts_in_the_target() -> None:
    learner = Learner(load_config("paper", [*SMALL, "twin_critics=true"]), 50, 1)
    with torch.no_grad():
        learner.target_critic.members[1].rest[-1].bias -= 50.0  # type: ignore[union-attr, index]
    g = torch.Generator().manual_seed(0)
    s = 0.3 + 0.2 * torch.rand(8, 50, generator=g)
    batch = Batch(s, torch.ones(8, 1), torch.zeros(8), s, torch.full((8,), 0.99))
    _, error = update(learner, batch, 0.5, g)
    assert error.min() > 40


def test_entropy_pulls_logits_together() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 8.0]]], requires_grad=True)
    assert entropy_bonus(1.0, logits[:, :1]).item() == pytest.approx(np.log(2))
    entropy_bonus(1.0, logits).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 1, 1] < 0 < logits.grad[0, 1, 0]


@pytest.mark.parametrize("n_obs", [1000, 50, 64])
def test_the_fast_way_through_a_trunk_gives_the_same(n_obs: int) -> None:
    torch.manual_seed(0)
    trunk = CompactTrunk(n_obs, 64)
    seen = torch.rand(7, n_obs)
    torch.testing.assert_close(trunk.train()(seen), trunk.eval()(seen), atol=1e-5, rtol=1e-5)


def test_a_recurrent_actor_unrolled_is_one_decision_after_another() -> None:
    torch.manual_seed(0)
    actor = build_actor("recurrent", 50, 2)
    assert isinstance(actor, RecurrentActor)
    seen, state = torch.rand(3, 6, 50), 0.1 * torch.rand(3, 32)
    logits, last = actor.unroll(seen, state)
    for k in range(6):
        one, state = actor(seen[:, k], state)
        torch.testing.assert_close(logits[:, k], one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, state, atol=1e-5, rtol=1e-5)


def test_sequences_stay_within_an_episode_and_carry_the_state_and_the_decision_before() -> None:
    config = load_config("paper", [*SMALL, "variant=recurrent", "buffer_size=200"])
    replay = SequenceReplay(config, 2, 5, 1, 3)
    for k in range(90):
        action = np.full((2, 1), k % 2, np.int8)
        value = np.full((2, 5), float(k), np.float32)
        end = np.full(2, k % 30 == 29)
        replay.add(Transition(1, value, action, value[:, 0], value + 0.5, end, ()), torch.full((2, 3), float(k)))
    batch = replay.sample(400, torch.Generator().manual_seed(0))
    assert batch is not None
    first = batch.observation[:, :-1, 0]
    assert (first[:, 1:] - first[:, :-1] == 1).all()
    assert ((first[:, 0] // 30) == (first[:, -1] // 30)).all()
    assert (batch.observation[:, 1:-1, 0] == first[:, 1:]).all()
    ended = first[:, -1] % 30 == 29
    assert ended.any()
    assert (batch.observation[ended, -1, 0] == first[ended, -1] + 0.5).all()
    assert (batch.state[:, 0] == first[:, 0]).all()
    assert (batch.reward == first).all()
    begins = first[:, 0] % 30 == 0
    assert (batch.before[begins, 0, 0] == 0).all()
    assert (batch.before[:, 1:-1] == batch.action[:, :-1]).all()


def test_memory_learns_what_a_single_observation_does_not_hold() -> None:
    """A pulse pays only where the observation a decision ago was high: the newest one says nothing of it."""
    rates = ["actor_lr=0.003", "critic_lr=0.003", "hidden=32"]
    config = load_config("paper", [*SMALL, "variant=recurrent", "gamma=0", "unroll=8", *rates])
    learner = Learner(config, 50, 1)
    g = torch.Generator().manual_seed(0)
    replay = SequenceReplay(config, 4, 50, 1, 32)
    for _ in range(20):
        seen = torch.where(torch.rand(31, 4, 1, generator=g) < 0.5, 0.2, 0.5).expand(-1, -1, 50)
        action = (torch.rand(30, 4, 1, generator=g) < 0.5).float()
        for k in range(30):
            high = (seen[k - 1, :, 0] > 0.35).float() if k else torch.zeros(4)
            reward = (2 * high - 1) * (2 * action[k, :, 0] - 1)
            parts = [seen[k].numpy().copy(), action[k].numpy().astype(np.int8), reward.numpy()]
            end = np.full(4, k == 29)
            replay.add(Transition(1, *parts, seen[k + 1].numpy().copy(), end, ()), torch.zeros(4, 32))
    for _ in range(250):
        batch = replay.sample(64, g)
        assert batch is not None
        update_sequences(learner, batch, 0.5, g)
    seen = torch.where(torch.rand(40, 12, 1, generator=g) < 0.5, 0.2, 0.5)
    with torch.no_grad():
        logits, _ = learner.actor.unroll(seen.expand(-1, -1, 50), torch.zeros(40, 32))  # type: ignore[operator]
    right = (logits[:, 1:, 0, 1] > logits[:, 1:, 0, 0]) == (seen[:, :-1, 0] > 0.35)
    assert right.float().mean() > 0.9
