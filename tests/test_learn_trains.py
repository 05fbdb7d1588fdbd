"""SEA-DBS over whole pulse trains: what is chosen is what is given, drawn as often as its score says, and learnt."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_toy import ToyEnv, toy_vector
from torch import Tensor, nn

from envs.errors import UserError
from sea_dbs import checkpoint
from sea_dbs.benchmark.play import play_job
from sea_dbs.benchmark.suites import Options, job_of
from sea_dbs.closed_loop import OPEN_LOOP
from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import TorchPolicy, build
from sea_dbs.evaluate import evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.explorer import Explorer
from sea_dbs.learner import Learner
from sea_dbs.networks import build_actor
from sea_dbs.pulse_trains import ONE_GROUP, TRAINS
from sea_dbs.replay import Batch
from sea_dbs.runlog import read_metrics
from sea_dbs.train import train
from sea_dbs.trains_actor import TrainsActor, bank, draw_train, selection
from sea_dbs.update import actor_value, update

SLOTS = 130
SMALL = ["n_obs=50", "slots=130", "episode_steps=10", "hidden=16", "batch_size=8", "episodes=8", "n_envs=4"]
SMALL += ["warmup_steps=20", "checkpoint_steps=40"]


def config_of(*settings: str) -> TrainConfig:
    return load_config("efficient-trains", [*SMALL, *settings])


def test_the_bank_is_regular_trains_and_groups_of_whole_periods() -> None:
    given_hz = bank(SLOTS).sum(dim=1).tolist()
    assert given_hz == [0, 130, 65, 44, 26]
    groups = "".join("1" if pulse else "0" for pulse in bank(SLOTS)[4].tolist())
    assert groups == ("1" * 13 + "0" * 52) * 2
    with pytest.raises(UserError, match="slots=50 of a decision are too few"):
        build_actor("trains", 1000, 50)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 40))
def test_the_slots_of_the_best_train_are_what_the_logits_say(seed: int, trains: int, slots: int) -> None:
    """For any bank with a train without and one with a pulse in each slot."""
    rng = np.random.default_rng(seed)
    has_pulse = np.vstack([rng.random((trains - 2, slots)) < 0.5, np.zeros((1, slots)), np.ones((1, slots))]) > 0.5
    x = scores = rng.normal(0.0, 3.0, (20, trains))
    *hidden, last = selection(has_pulse)
    for weight in hidden:
        x = np.maximum(x @ weight.T, 0.0)
    logits = (x @ last.T).reshape(20, slots, 2)
    np.testing.assert_array_equal(logits[..., 1] > logits[..., 0], has_pulse[scores.argmax(axis=1)])
    np.testing.assert_allclose(logits.max(axis=2), np.broadcast_to(scores.max(axis=1)[:, None], (20, slots)))


def test_an_actor_gives_the_train_of_its_greatest_score() -> None:
    torch.manual_seed(0)
    actor = build_actor("trains", 1000, SLOTS).eval()
    assert isinstance(actor, TrainsActor)
    seen = torch.rand(64, 1) * 0.4 + 0.1 + 0.02 * torch.randn(64, 1000)
    actor.head.bias.data -= actor.scores(seen).mean(dim=0).detach()  # else one train is best for every trace
    with torch.no_grad():
        best, decided = actor.scores(seen).argmax(dim=1), TorchPolicy(actor, {"n_obs": 1000, "slots": SLOTS})
        decided.init_state(64)
        assert len(set(best.tolist())) > 1
        np.testing.assert_array_equal(decided.act(seen.numpy()), actor.bank[best].numpy())
    assert not any(name.startswith(("fixed", "bank")) for name in actor.state_dict())  # they are no weights


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_a_train_is_drawn_as_often_as_its_score_says_at_any_temperature(tau: float) -> None:
    scores = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5])
    drawn = draw_train(scores.repeat(40_000, 1), tau, torch.Generator().manual_seed(3))
    assert set(drawn.sum(dim=1).round(decimals=4).tolist()) == {1.0}
    np.testing.assert_allclose(drawn.mean(dim=0), torch.softmax(scores, dim=0), atol=0.01)


class Table(nn.Module):
    """Q of each train, whatever is observed."""

    def __init__(self, q: Tensor) -> None:
        super().__init__()
        self.q = q

    def of_each(self, observation: Tensor, actions: Tensor) -> Tensor:
        torch.testing.assert_close(actions, bank(SLOTS))
        return self.q.repeat(len(observation), 1)


def test_the_expected_gradient_is_that_of_the_mean_over_all_trains() -> None:
    learner = Learner(config_of(), 50, SLOTS)
    learner.critic = Table(q := torch.tensor([-0.8, -0.9, -0.7, -0.9, -0.6]))  # type: ignore[assignment]
    value, scores = actor_value(learner, torch.rand(8, 50), 1.0, torch.Generator())
    scores.retain_grad()
    value.sum().backward()  # type: ignore[no-untyped-call]
    p = torch.softmax(scores.detach(), dim=1)
    torch.testing.assert_close(value, p @ q)
    torch.testing.assert_close(scores.grad, p * (q - (p @ q).unsqueeze(1)))


def test_all_trains_at_once_are_worth_what_each_is_alone() -> None:
    critic, seen = Learner(config_of(), 50, SLOTS).critic, torch.rand(7, 50)
    alone = [critic(seen, train.expand(7, SLOTS))[0] for train in bank(SLOTS)]
    torch.testing.assert_close(critic.of_each(seen, bank(SLOTS)), torch.stack(alone, dim=1))


@pytest.mark.parametrize("best", range(len(TRAINS)))
def test_the_expected_gradient_finds_the_best_train_wherever_it_is(best: int) -> None:
    learner = Learner(config_of("entropy=0", "actor_lr=0.005"), 50, SLOTS)
    q = torch.full((len(TRAINS),), -0.8)
    q[best] = -0.6
    learner.critic = Table(q)  # type: ignore[assignment]
    generator, seen = torch.Generator().manual_seed(0), torch.rand(64, 50) * 0.4
    for _ in range(200):
        value, _ = actor_value(learner, seen, 1.0, generator)
        learner.actor_descent.step(-value.mean())
    with torch.no_grad():
        assert set(learner.actor.scores(seen).argmax(dim=1).tolist()) == {best}  # type: ignore[operator]


@pytest.mark.parametrize("name", ["train-65-hz", "train-43-hz", "train-groups-26-hz", "train-group-16-hz"])
def test_a_train_alone_is_what_the_actor_would_give(name: str) -> None:
    chosen = job_of("efficient-3", name, 0, Options()).spec["controller"]
    alone = build(chosen.pop("kind"), 130, Fraction(1_000_000, 130), chosen)
    alone.init_state(1)
    trains = ONE_GROUP if name == "train-group-16-hz" else TRAINS
    train = [one.name for one in trains].index(name.removeprefix("train-"))
    for _ in range(2):
        np.testing.assert_array_equal(alone.act(np.zeros((1, 1), np.float32))[0], bank(130, trains)[train].numpy())


@pytest.mark.parametrize("gradient", ["expected", "straight-through"])
def test_an_update_changes_actor_critic_and_reward_model(gradient: str) -> None:
    learner = Learner(config_of(f"actor_gradient={gradient}"), 50, SLOTS)
    before = {name: part.vector.clone() for name, part in vars(learner).items() if name.endswith("_descent")}
    n = 16
    batch = Batch(
        torch.rand(n, 50), bank(SLOTS)[torch.arange(n) % len(TRAINS)], torch.rand(n), torch.rand(n, 50), torch.ones(n)
    )
    losses, error = update(learner, batch, 1.0, torch.Generator().manual_seed(1))
    assert all(not torch.equal(getattr(learner, name).vector, old) for name, old in before.items())
    assert error.shape == (n,)
    assert np.isfinite([losses.actor, losses.critic, losses.reward_model]).all()


def test_the_warm_up_holds_a_drawn_train_and_draws_them_all_alike() -> None:
    config = config_of("warmup_steps=10000", "warmup_hold_steps=4")
    explorer = Explorer(config, build_actor("trains", 50, SLOTS), SLOTS)
    explorer.init_state(8)
    seen = np.full((8, 50), 0.4, np.float32)
    given = np.array([explorer.act(seen) for _ in range(800)])  # (decisions, environments, slots)
    pulses = given.sum(axis=2)
    assert (pulses.reshape(200, 4, 8) == pulses.reshape(200, 4, 8)[:, :1]).all()
    rates, counts = np.unique(pulses[::4], return_counts=True)
    assert rates.tolist() == [0, 26, 44, 65, 130]
    assert counts.min() > 0.15 * counts.sum()


def test_a_run_over_trains_goes_on_after_a_stop_and_ends_at_the_same_weights(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stopping(config: TrainConfig, n: int) -> object:
        world = toy_vector(config, n)
        step, count = world.step, 0

        def counted(action: object) -> object:
            nonlocal count
            count += 1
            if count > 15:  # of 20: after the warm-up and a checkpoint at step 40
                raise StoppedError
            return step(action)

        world.step = counted  # type: ignore[method-assign, assignment]
        return world

    config = config_of()
    train(config, tmp_path / "whole", quiet=True, env_factory=toy_vector)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", quiet=True, env_factory=stopping)  # type: ignore[arg-type]
    assert checkpoint.load(tmp_path / "run" / checkpoint.CHECKPOINT)["t"] == 40
    train(config, tmp_path / "run", resume=True, quiet=True, env_factory=toy_vector)
    lines = [read_metrics(tmp_path / run) for run in ("whole", "run")]
    assert lines[0] == lines[1]
    assert (tmp_path / "whole" / "policy.pt").read_bytes() == (tmp_path / "run" / "policy.pt").read_bytes()
    assert {line["pulses"] for line in lines[0]} <= {0, 26, 44, 65, 130}


@pytest.mark.parametrize(
    ("preset", "overrides", "words"),
    [
        ("paper", ["actor_gradient=expected"], "sums over the trains of actor=trains"),
        ("efficient-trains", ["exploration=epsilon"], "needs exploration=gumbel"),
        ("efficient-trains", ["warmup_actions=bernoulli"], "needs exploration=gumbel"),
        ("efficient-trains", ["variant=trains", "actor=compact"], "variant=trains sets actor itself"),
        ("paper", ["variant=trains"], "needs slots from there on, not 50"),
        ("efficient-trains", ["actor=compact"], "with actor=compact it has to be straight-through"),
        ("efficient-trains", ["actor_gradient=exact"], "takes one of straight-through, expected"),
    ],
)
def test_what_does_not_fit_trains_is_refused_in_one_sentence(preset: str, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(preset, overrides)


def test_trains_by_chance_are_open_loop_and_others_on_each_plant(tmp_path: Path) -> None:
    train(config_of("episodes=4"), tmp_path / "run", quiet=True, env_factory=toy_vector)
    plan = Plan(("never", "random-trains"), 12)
    result = evaluate(tmp_path / "run", tmp_path / "out", plan, quiet=True, env_factory=ToyEnv)
    row = result["rows"][1]
    assert (row["controller"], row["label"]) == ("random-trains", OPEN_LOOP)
    given = [one["decisions"] for one in result["episodes"] if one["controller"] == "random trains"]
    assert len(given) == 12  # a group of eight, and one of four
    assert len({tuple(one) for one in given}) == 12


def test_a_benchmark_draws_other_trains_for_another_seeds_plants() -> None:
    options = Options(2, 2, 3)
    jobs = [job_of("efficient-3", "random-trains", seed, options) for seed in range(2)]
    played = [play_job(job.spec, None, [0.4, 0.4]) for job in jobs]
    assert [result["label"] for result, _ in played] == [OPEN_LOOP] * 2
    pulses = [series["pulses"].tolist() for _, series in played]
    assert pulses[0] != pulses[1]
    assert {count for plants in pulses for plant in plants for count in plant} <= {0, 26, 44, 65, 130}


def test_a_policy_of_other_trains_is_not_taken(tmp_path: Path) -> None:
    train(config_of("episodes=4"), tmp_path / "run", quiet=True, env_factory=toy_vector)
    content = checkpoint.load(tmp_path / "run" / checkpoint.POLICY)
    assert TorchPolicy.load(tmp_path / "run").spec["trains"] == [[1, 0], [1, 1], [2, 1], [3, 1], [65, 13]]
    content["spec"]["trains"][3] = [4, 1]
    checkpoint.save(tmp_path / "run" / checkpoint.POLICY, content)
    with pytest.raises(UserError, match=r"chooses among the trains .*\[4, 1\].*: this version has"):
        TorchPolicy.load(tmp_path / "run")


def test_the_ablations_differ_in_their_switch_alone() -> None:
    whole = load_config("efficient-trains").model_dump()
    for word, keys in (
        ("trains", []),
        ("trains-st", ["actor_gradient"]),
        ("trains-slots", ["actor", "actor_gradient"]),
    ):
        other = load_config("efficient-trains", [f"variant={word}"])
        assert sorted(key for key, value in other.model_dump().items() if whole[key] != value) == keys
        assert other.variant == {"trains-slots": "sea-dbs"}.get(word, word)
