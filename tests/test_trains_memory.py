"""A policy over trains that is shown its own last duties: what it is shown, learns with, and is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_tools import MEANING, Compiled, smooth
from numpy.typing import NDArray

import envs
from envs.config import env_config
from envs.errors import UserError
from envs.registration import get_env_state, set_env_state
from envs.vector import BasalGangliaVectorEnv
from export import graph
from export.inputs import input_of
from export.integer import IntegerModel, c_source, quantise
from export.integer import run as run_integer
from export.precision import wrap
from export.quantise import to_int8
from sea_dbs import checkpoint
from sea_dbs.benchmark.play import play_job
from sea_dbs.benchmark.suites import Options, job_of
from sea_dbs.benchmark.world import make_world, play
from sea_dbs.closed_loop import BLIND, OPEN_LOOP, decisions_on, shown
from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import OnOff, TorchPolicy
from sea_dbs.evaluate import evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.learner import Learner
from sea_dbs.networks import StateActionNetwork, build_actor
from sea_dbs.pulse_trains import ONE_GROUP, TRAINS, definition
from sea_dbs.replay import Batch
from sea_dbs.trainer import Trainer, policy_spec
from sea_dbs.trains_actor import FlatTrainsActor, bank
from sea_dbs.trunk import averages
from sea_dbs.update import update

OWN = 3
SHORT: dict[str, Any] = {"slots": 5, "window_ms": 200.0, "stride_ms": 20.0, "n_obs": 6, "settle_ms": 320.0}


def _actions(n: int) -> NDArray[np.int8]:
    return np.random.default_rng(4).integers(0, 2, (n, 5)).astype(np.int8)


@pytest.mark.parametrize("more", [{}, {"delay_steps": 2, "noise_sd": 0.05}, {"obs": "lfp"}])
def test_own_duties_stand_before_what_is_sensed_and_are_neither_late_nor_noisy(more: dict[str, Any]) -> None:
    plain, own = envs.make_env(**SHORT, **more), envs.make_env(**SHORT, **more, own_duties=OWN)
    assert own.observation_space.shape == (OWN + 6,)
    duties = [0.0] * OWN
    for env_seed in (3, 5):  # a reset forgets
        sensed, seen = plain.reset(seed=env_seed)[0], own.reset(seed=env_seed)[0]
        np.testing.assert_array_equal(seen, np.concatenate([np.zeros(OWN, np.float32), sensed]))
        duties = [0.0] * OWN
        for action in _actions(5):
            sensed, reward, *_ = plain.step(action)
            step = own.step(action)
            duties.append(float(np.mean(action)))
            np.testing.assert_array_equal(step[0], np.concatenate([np.float32(duties[-OWN:]), sensed]))
            assert step[1] == reward
            assert step[0] in own.observation_space


def test_a_duty_counts_what_was_given_not_what_was_asked_for() -> None:
    env = envs.make_env(**{**SHORT, "stim_hz": 130.0, "gap_slots": 2, "slots": 13, "stride_ms": 10.0}, own_duties=OWN)
    env.reset(seed=3)
    observation, *_, info = env.step(np.ones(13, np.int8))
    assert observation[OWN - 1] == np.float32(info["duty"]) == np.float32(7 / 13)


def test_lanes_and_a_restored_environment_have_the_same_duties() -> None:
    make = {**SHORT, "own_duties": OWN, "delay_steps": 1}
    many, single = BasalGangliaVectorEnv(2, **make), [envs.make_env(**make) for _ in range(2)]
    first, _ = many.reset(seed=8)
    for lane, env in enumerate(single):
        np.testing.assert_array_equal(first[lane], env.reset(seed=8 + lane)[0])
    actions = _actions(8).reshape(4, 2, 5)
    for action in actions[:2]:
        many.step(action)
        for lane, env in enumerate(single):
            env.step(action[lane])
    fresh = envs.make_env(**make)
    fresh.reset(seed=1)
    set_env_state(fresh, get_env_state(single[0]))
    for action in actions[2:]:
        seen = many.step(action)[0]
        for lane, env in enumerate(single):
            np.testing.assert_array_equal(seen[lane], env.step(action[lane])[0])
        np.testing.assert_array_equal(seen[0], fresh.step(action[0])[0])


def test_an_environment_without_own_duties_is_described_as_before_there_were_any() -> None:
    assert "own_duties" not in env_config("paper").model_dump()
    assert env_config("paper", own_duties=4).model_dump()["own_duties"] == 4
    assert env_config(**env_config("paper", own_duties=4).model_dump()).n_seen == 1004
    for preset in ("pattern", "timing"):
        with pytest.raises(UserError, match=r"own_duties is 4: view '(slots|timing)' has none, allowed is 0"):
            env_config(preset, own_duties=4)


def test_a_controller_that_reads_the_newest_beta_still_does() -> None:
    seen = np.zeros((1, OWN + 6), np.float32)
    seen[0, -1] = 0.5
    controller = OnOff(5)
    controller.init_state(1)
    assert controller.act(seen).all()
    assert not controller.act(np.float32([[1.0] * OWN + [0.1] * 6])).any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 12), st.integers(1, 400))
def test_windows_are_averaged_in_order_and_duties_kept(own: int, windows: int) -> None:
    weights = averages(own + windows, own).numpy()
    pool = max(1, windows // 50)
    seen = np.random.default_rng(own).random(own + windows)
    means = seen[own : own + windows // pool * pool].reshape(-1, pool).mean(axis=1)
    np.testing.assert_allclose(weights @ seen, np.concatenate([seen[:own], means]), atol=1e-6)


def test_the_actor_and_the_critics_read_both_duties_and_beta() -> None:
    torch.manual_seed(0)
    actor = build_actor("trains-flat", 1008, 130, 8)
    assert isinstance(actor, FlatTrainsActor)
    critic = StateActionNetwork(1008, 130, 32, own=8)
    seen = torch.rand(2, 1008) * 0.2 + 0.3
    trains = actor.bank
    for place in (0, 7, 8, 1007):
        other = seen.clone()
        other[:, place] += 0.5
        assert (actor.scores(other) != actor.scores(seen)).all()
        assert (critic.of_each(other, trains) != critic.of_each(seen, trains)).all()
    assert not any("means" in name or "shift" in name for name in actor.state_dict())  # they are no weights


def test_an_update_with_own_duties_changes_actor_critic_and_reward_model() -> None:
    config = load_config("efficient-memory", ["n_obs=50", "hidden=16"])
    learner = Learner(config, 58, 130)
    before = {name: part.vector.clone() for name, part in vars(learner).items() if name.endswith("_descent")}
    actions = bank(130, ONE_GROUP)[torch.arange(16) % 5]
    batch = Batch(torch.rand(16, 58), actions, torch.rand(16), torch.rand(16, 58), torch.ones(16))
    update(learner, batch, 1.0, torch.Generator().manual_seed(1))
    assert all(not torch.equal(getattr(learner, name).vector, old) for name, old in before.items())


class Alternates:
    """No pulse after a pulse and a pulse after none: it reads its own newest duty alone."""

    name = "alternates"

    def init_state(self, n: int = 1) -> None:
        """It keeps nothing."""

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.int8]:
        return (observation[:, OWN - 1 : OWN] < 0.5).astype(np.int8)


class FollowsBeta(Alternates):
    """A pulse while the newest beta is high."""

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.int8]:
        return (observation[:, -1:] > 0.4).astype(np.int8)


@pytest.mark.parametrize("mode", ["zeros", "mean", "shuffled", "other"])
def test_a_blind_policy_keeps_its_memory_and_loses_only_what_it_sensed(mode: str) -> None:
    """So one that counts its own pulses decides the same whatever it is shown, and is no closed loop."""
    seen = np.random.default_rng(1).random((3, 12, OWN + 6)).astype(np.float32)
    blind = shown(mode, seen, OWN)
    assert not blind[..., :OWN].any()
    np.testing.assert_array_equal(blind[..., OWN:], shown(mode, seen[..., OWN:]))
    alone = decisions_on(Alternates(), blind, OWN)
    np.testing.assert_array_equal(alone[..., 0], np.tile([1, 0] * 6, (3, 1)))
    reading = decisions_on(FollowsBeta(), blind, OWN)
    np.testing.assert_array_equal(reading, (blind[..., -1:] > 0.4).astype(np.int8))


def test_the_ablation_without_memory_differs_in_one_switch() -> None:
    config = {name: load_config("efficient-memory", [f"variant={name}"]) for name in ("trains-memory", "trains-flat")}
    memory, flat = (one.model_dump() for one in config.values())
    assert memory.pop("own_duties") == 8
    assert memory == flat
    assert config["trains-memory"] == load_config("efficient-memory")
    assert {name: one.variant for name, one in config.items()} == {name: name for name in config}
    known = load_config("efficient-trains")
    assert known.sha256() == TrainConfig.model_validate(known.model_dump(exclude={"own_duties"})).sha256()
    assert len({one.sha256() for one in (known, *config.values())}) == 3


def test_own_duties_without_an_actor_that_reads_them_are_refused() -> None:
    with pytest.raises(UserError, match="own_duties=4 needs actor=trains-flat: actor=compact reads beta alone"):
        load_config("paper", ["own_duties=4"])
    with pytest.raises(UserError, match="'own_duties' takes a whole number from 0 up to 64"):
        load_config("efficient-trains", ["actor=trains-flat", "own_duties=65"])


def test_a_policy_with_memory_is_judged_with_it_on_the_plants_of_all_others() -> None:
    options = Options(1)
    memory, plain, never = (job_of("efficient-3", name, 0, options) for name in ("trains-memory", "trains", "never"))
    assert memory.spec["world"].pop("own_duties") == 8
    assert memory.spec["world"] == plain.spec["world"] == never.spec["world"]
    assert memory.spec["plants"] == never.spec["plants"]
    trained = [job_of("efficient-3", name, 0, options).needs[0].spec for name in ("trains-memory", "trains-flat")]
    assert [one["config"]["actor"] for one in trained] == ["trains-flat"] * 2
    assert [one["world"].get("own_duties", 0) for one in trained] == [8, 0]
    assert memory.needs[1].key == plain.needs[1].key == never.key
    assert "own_duties" not in plain.needs[0].spec["config"]


def _remembers(tmp_path: Path) -> tuple[Path, TrainConfig]:
    """A run folder whose policy reads its own duties alone, and answers to them."""
    config = load_config("efficient-memory", ["n_obs=50", "stride_ms=20", "episode_steps=4"])
    torch.manual_seed(5)
    actor = build_actor("trains-flat", 58, 130, 8)
    assert isinstance(actor, FlatTrainsActor)
    with torch.no_grad():
        first = actor.hidden[0].weight  # type: ignore[index]
        first[:, 8:] = 0.0
        first[:, :8] *= 8.0
    checkpoint.save_policy(tmp_path, actor, policy_spec(config, 58, 130, 0))
    return tmp_path, config


def test_a_policy_that_counts_its_own_pulses_is_open_loop_in_benchmarks_and_evaluations(tmp_path: Path) -> None:
    run, config = _remembers(tmp_path / "run")
    spec = job_of("efficient-3", "trains-memory", 0, Options(1, 2, 4)).spec
    spec = {**spec, "world": {**spec["world"], "n_obs": 50, "stride_ms": 20.0}}
    result, arrays = play_job(spec, run, [0.4, 0.4])
    assert len({tuple(row) for row in arrays["pulses"].tolist()}) == 1  # the same on both plants
    assert len(set(arrays["pulses"][0].tolist())) > 1  # it does answer to what it gave
    for mode in BLIND:
        assert result["rows"][mode]["measures"]["pulses"] == result["rows"]["own"]["measures"]["pulses"]
    assert result["label"] == OPEN_LOOP
    answer = evaluate(run, tmp_path / "out", Plan(("never", "policy"), 2, 4), quiet=True)
    own, *blind = (row for row in answer["rows"] if row["controller"].startswith("policy"))
    assert len(blind) == len(BLIND)
    assert [row["plants"]["pulses"] for row in blind] == [own["plants"]["pulses"]] * len(BLIND)
    assert own["label"] == OPEN_LOOP
    assert config.own_duties == 8


def test_its_own_decisions_come_out_again_of_what_it_saw(tmp_path: Path) -> None:
    run, config = _remembers(tmp_path)
    world = make_world(config.world(precision="float32"), 2)
    own = play(world.config, TorchPolicy.load(run), [1, 2], 4)
    np.testing.assert_array_equal(decisions_on(TorchPolicy.load(run), own.seen, 8), own.decisions)


def test_the_board_s_integers_are_the_same_bits_in_c_with_duties(tmp_path: Path) -> None:
    torch.manual_seed(1)
    actor = build_actor("trains-flat", 58, 130, 8).eval()
    rng = np.random.default_rng(0)
    duties = rng.choice([0.0, 16 / 130, 44 / 130, 0.5, 1.0], (200, 8)).astype(np.float32)
    seen = np.concatenate([duties, smooth(200, 50)], axis=1)
    plain = graph.to_onnx(wrap(actor, "fp32"), n_obs=58, slots=130, metadata={})
    model = IntegerModel.from_onnx(to_int8(plain, {"observation": seen}, {}), meaning=MEANING)
    rows = quantise(model, seen)
    wanted = run_integer(model, rows)
    assert (Compiled(c_source(model), tmp_path, "gcc", "-O3").run(rows, 130) == wanted).all()
    with torch.no_grad():
        decided = (lambda logits: logits[..., 1] > logits[..., 0])(actor(torch.from_numpy(seen)).numpy())
    assert ((wanted[..., 1] > wanted[..., 0]) == decided).mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"own_duties": 3}, "does not hold the weights that its own description names"),
        ({"own_duties": "8"}, "does not hold the weights that its own description names"),
        ({"actor": "compact"}, "reads no own duties: 8 were given, allowed is 0"),
        ({"trains": definition(TRAINS)}, "chooses among the trains .*65, 13.*: this version has .*130, 16"),
    ],
)
def test_a_policy_that_is_described_otherwise_is_not_taken(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    run, _ = _remembers(tmp_path)
    content = checkpoint.load(run / checkpoint.POLICY)
    content["spec"] |= changes
    checkpoint.save(run / checkpoint.POLICY, content)
    with pytest.raises(UserError, match=words):
        TorchPolicy.load(run)


def test_a_run_of_other_trains_is_not_gone_on_with() -> None:
    config = load_config("efficient-memory", ["n_obs=50", "hidden=16", "n_envs=1"])
    trainer = Trainer(config, lambda config, n: make_world(config.world(precision="float32"), n))
    state = trainer.state_dict()
    trainer.load_state_dict(state)
    with pytest.raises(UserError, match=r"chooses among the trains .*65, 13.*: this version has .*130, 16"):
        trainer.load_state_dict({**state, "trains": definition(TRAINS)})


def test_own_duties_go_with_pulses_that_are_given_as_asked() -> None:
    with pytest.raises(UserError, match="own_duties=8 with gap_slots=2"):
        load_config("efficient-memory", ["gap_slots=2"])


def test_a_manifest_says_what_comes_first() -> None:
    words, _ = input_of(load_config("efficient-memory"))
    assert words == "share of slots with a pulse in each of the last 8 decisions, then P_beta / 1000"
    assert input_of(load_config("paper"))[0] == "P_beta / 1000"
    assert "own_duties" not in load_config("paper").env_overrides()
