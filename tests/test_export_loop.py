"""Closed loop by precision, on policies that react; a recurrent policy from run folder to decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn_toy import ToyEnv

from envs.errors import UserError
from export import closed_loop, graph, witness
from export.plants import lockstep
from export.policy import OnnxPolicy
from export.precision import wrap
from export.run import Settings, export_source
from export.source import read_run
from sea_dbs.closed_loop import CONSTANT, OPEN_LOOP
from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import Policy, TorchPolicy, make_controller
from sea_dbs.networks import build_actor
from sea_dbs.rollout import Start, begin, rollout
from sea_dbs.statistics import mean_interval
from sea_dbs.train import make_env

CONFIG = load_config("paper", [])
SETTINGS = Settings(closed_loop_seeds=10, quiet=True, env_factory=ToyEnv, compare_other=False)


@pytest.fixture(scope="module", params=["compact", "recurrent"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A witness's run folder and its export."""
    folder = tmp_path_factory.mktemp(request.param)
    witness.write(folder / "run", actor=request.param, quiet=True, env_factory=ToyEnv)
    export_source(read_run(folder / "run"), folder / "out", SETTINGS)
    return folder / "run", folder / "out"


def test_a_policy_that_reacts_reaches_the_same_in_every_precision(exported: tuple[Path, Path]) -> None:
    outcome = json.loads((exported[1] / "parity.json").read_text())["closed_loop"]
    assert (outcome["what"], outcome["reference"], len(outcome["seeds"])) == ("reacts", "fp32", 10)
    assert 0.05 < outcome["rows"]["fp32"]["duty"] < 0.95
    assert np.ptp(outcome["by_seed"]["fp32"]["duty"]) > 0.01  # from plant to plant it decides otherwise
    for name in ("fp16", "int8"):
        low, high = outcome["rows"][name]["difference"]["P_beta_percent_ci95"]
        assert -3.0 < low <= high < 3.0
        assert abs(outcome["rows"][name]["difference"]["duty"]) < 0.02
    low, high = outcome["rows"]["fp16"]["difference"]["P_beta_percent_ci95"]
    assert low <= 0.0 <= high
    text = (exported[1] / "parity.md").read_text()
    assert "10 held-out plants" in text


def test_the_exported_policy_decides_as_torch_step_after_step(exported: tuple[Path, Path]) -> None:
    run, out = exported
    reference = TorchPolicy.load(run)
    seen = np.load(out / "observations.npz")["observation"][:12].reshape(3, 4, -1)
    for precision, tolerance in (("fp32", 1e-6), ("fp16", 3e-3), ("int8", 0.15)):
        policy = OnnxPolicy(out, precision)
        assert isinstance(policy, Policy)
        answers = []
        for _ in range(2):  # init_state forgets: the second time gives the same
            for one in (policy, reference):
                one.init_state(3)
            series = [(policy.logits(seen[:, t]), reference.logits(seen[:, t])) for t in range(4)]
            for got, wanted in series:
                assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()
            answers.append(np.stack([got for got, _ in series]))
        np.testing.assert_array_equal(answers[0], answers[1])


def test_a_recurrent_policy_remembers_and_needs_its_number_of_plants(exported: tuple[Path, Path]) -> None:
    policy = OnnxPolicy(exported[1], "int8")
    seen = np.load(exported[1] / "observations.npz")["observation"][:2]
    policy.init_state(2)
    first, second = policy.logits(seen), policy.logits(seen)
    if policy.manifest.state_in is None:
        np.testing.assert_array_equal(first, second)
        return
    assert np.abs(first - second).max() > 0.01
    assert policy.manifest.state_in.shape == ("batch", 32)
    with pytest.raises(UserError, match="takes"):
        policy.logits(seen[:1])


# -- the closed loop's own claims --------------------------------------------------------------------------------------


def constant(margin: float) -> bytes:
    """A policy with the same margin in every slot, whatever it sees."""
    actor = build_actor("compact", 1000, 50)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        actor.get_parameter("head.bias").view(50, 2)[:, 1] = margin
    return graph.to_onnx(wrap(actor, "fp32"), n_obs=1000, slots=50, metadata={})


def test_a_planted_difference_is_found_and_constants_are_named() -> None:
    always, never = constant(1.0), constant(-1.0)
    found = closed_loop.run(CONFIG, {"fp32": always, "int8": never}, ToyEnv, seeds=6, quiet=True)
    assert found["what"] == CONSTANT
    row = found["rows"]["int8"]
    low, high = row["difference"]["P_beta_percent_ci95"]
    assert low > 40.0  # 0.436 untreated, 0.293 at every slot
    assert high < 60.0
    assert not row["equal"]
    assert (row["plants_that_differ"], row["difference"]["duty"]) == (6, -1.0)
    alike = closed_loop.run(CONFIG, {"fp32": never, "int8": constant(-2.0)}, ToyEnv, seeds=6, quiet=True)
    assert alike["what"] == OPEN_LOOP
    assert alike["rows"]["int8"]["equal"]
    assert alike["rows"]["int8"]["plants_that_differ"] == 0


def test_a_plant_that_is_not_run_again_would_have_given_the_same() -> None:
    """The shortcut for equal decisions against running both, on the real plant."""
    config = load_config("realtime", ["episode_steps=20"])
    with torch.random.fork_rng():
        torch.manual_seed(3)
        actor = build_actor("compact", 50, 1)
    data = graph.to_onnx(wrap(actor, "fp32"), n_obs=50, slots=1, metadata={})
    short = closed_loop.run(config, {"fp32": data, "fp16": data}, make_env, seeds=2, seconds=0.1, quiet=True)
    assert short["rows"]["fp16"]["plants_that_differ"] == 0
    again = closed_loop.run(config, {"fp16": data}, make_env, seeds=2, seconds=0.1, quiet=True)
    assert again["by_seed"]["fp16"] == short["by_seed"]["fp16"]


def test_all_plants_together_are_the_single_ones() -> None:
    config = load_config("realtime", ["episode_steps=20"])
    seeds, slot_us = [600_300, 600_301], 20_000
    controller = make_controller("random", 1, slot_us)
    together = list(lockstep(config, controller, seeds, 5))
    single = [make_env(config) for _ in seeds]
    start = begin(single, seeds)
    controller.init_state(2)
    assert isinstance(together[0], Start)
    np.testing.assert_array_equal(together[0].observation, start.observation)
    for ours, theirs in zip(together[1:], rollout(single, controller, 5, start=start), strict=True):
        assert not isinstance(ours, Start)
        np.testing.assert_array_equal(ours.next_observation, theirs.next_observation)
        np.testing.assert_array_equal(ours.reward, theirs.reward)
        for mine, other in zip(ours.infos, theirs.infos, strict=True):
            assert mine == {key: other[key] for key in mine}


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    low, high = mean_interval(values) or (0.0, 0.0)
    half = 1.96 * values.std(ddof=1) / 20.0
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)
    assert mean_interval(values[:1]) is None


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precisions": ("int4",)}, "unknown precision 'int4'"),
        ({"precisions": ()}, "names none"),
        ({"precisions": ("fp16", "fp16")}, "twice"),
        ({"targets": ("m3",)}, "unknown target 'm3'"),
        ({"targets": ("c",), "precisions": ("fp32",)}, "needs the precision int8"),
        ({"closed_loop_seeds": -1}, "--closed-loop-seeds is -1"),
        ({"seconds": float("nan")}, "--seconds is nan"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config: TrainConfig = CONFIG
    from sea_dbs.checkpoint import save_policy

    spec = {"actor": "compact", "n_obs": 1000, "slots": 50, "preset": "paper", "step": 0}
    run.mkdir()
    save_policy(run, build_actor("compact", 1000, 50), spec | {"config": config.model_dump(mode="json")})
    chosen: dict[str, Any] = {"quiet": True, "env_factory": ToyEnv} | settings
    with pytest.raises(UserError) as caught:
        export_source(read_run(run), tmp_path / "out", Settings(**chosen))
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
