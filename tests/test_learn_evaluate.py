"""Evaluation: the numbers of the table, the words for what closes no loop, and plants that stay held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_toy import ToyEnv

from envs.errors import UserError
from envs.plant.batch import Failure, NetworkFailedError
from sea_dbs import checkpoint
from sea_dbs.cli.evaluate import print_table
from sea_dbs.closed_loop import BLIND, CONSTANT, OPEN_LOOP, Played, decisions_on, label, shown
from sea_dbs.config import load_config
from sea_dbs.controllers import OnOff
from sea_dbs.evaluate import PARTIAL, SEEN, evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.evaluation_rows import settle_steps
from sea_dbs.networks import CompactActor
from sea_dbs.seeds import HELD_OUT, SEARCH
from sea_dbs.statistics import interval, iqm, surely_greater

SMALL = ["n_obs=50", "slots=50", "stride_ms=20", "episode_steps=6", "checkpoint_steps=12"]


def _policy(run: Path, bias: np.ndarray | float, reads_above: float | None = None) -> Path:
    """A run folder whose actor gives each slot's pulse logit as ``bias``, or compares the observation with a level."""
    config = load_config("paper", SMALL)
    actor = CompactActor(50, 50)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        actor.head.bias[1::2] = torch.as_tensor(np.broadcast_to(bias, 50).copy(), dtype=torch.float32)
        if reads_above is not None:
            layers = [m for m in actor.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Linear)]
            layers[0].bias[:] = 10.0  # keeps the sum positive through every ReLU
            layers[0].weight[:, 0, 1] = 1.0
            layers[1].weight[:, :, 1] = 1.0 / 16
            layers[2].weight[:] = 1.0 / layers[2].in_features
            layers[3].weight[:] = 1.0 / 64
            layers[4].weight[1::2] = 1.0 / 64
            # Now a pulse's logit is 10 + (mean - centre) / scale, but for the borders of the convolutions.
            level = actor(torch.full((1, 50), reads_above))[0, 0, 1]
            layers[4].bias[1::2] -= level
    run.mkdir()
    spec = {
        "actor": "compact",
        "n_obs": 50,
        "slots": 50,
        "preset": "paper",
        "step": 0,
        "config": config.model_dump(mode="json"),
        "config_sha256": config.sha256(),
    }
    checkpoint.save_policy(run, actor, spec)
    return run


def _evaluate(run: Path, out: Path, *controllers: str, seeds: int = 6, **options: Any) -> dict[str, Any]:
    plan = Plan(controllers, seeds, None) if controllers else Plan(seeds=seeds)
    return evaluate(run, out, plan, quiet=True, env_factory=ToyEnv, **options)


def _rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["detail"]: row for row in result["rows"]}


def test_a_policy_that_always_stimulates_is_called_constant(tmp_path: Path) -> None:
    result = _evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out")
    rows = _rows(result)
    assert list(rows) == [
        "never",
        "always",
        "periodic 50 Hz",
        "random 1",
        "on-off",
        "policy",
        "policy, observation: zeros",
        "policy, observation: its mean",
        "policy, observation: shuffled in time",
        "policy, observation: of another plant",
    ]
    assert rows["policy"]["label"] == CONSTANT
    assert rows["policy"]["below_untreated"] is True
    assert rows["policy"]["P_beta_iqm"] == rows["always"]["P_beta_iqm"]
    assert rows["policy, observation: zeros"]["P_beta_iqm"] == rows["always"]["P_beta_iqm"]
    assert rows["always"]["charge_percent_of_130Hz"] == pytest.approx(100 * 50 / 130)
    assert rows["always"]["charge_nC_cm2"] == pytest.approx(6 * 50 * 90.0)
    assert rows["never"]["percent_of_untreated"] == 100.0
    assert rows["never"]["below_untreated"] is False
    assert rows["never"]["label"] == rows["periodic 50 Hz"]["label"].replace(CONSTANT, OPEN_LOOP) == OPEN_LOOP
    assert 60 < rows["always"]["percent_of_untreated"] < 75


def test_a_fixed_pattern_is_called_open_loop_and_met_by_random_and_periodic_at_its_pulses(tmp_path: Path) -> None:
    bias = np.where(np.arange(50) < 40, 1.0, -1.0)  # 40 of 50 slots, whatever it sees
    rows = _rows(_evaluate(_policy(tmp_path / "run", bias), tmp_path / "out", "never", "random", "periodic", "policy"))
    assert rows["policy"]["duty"] == pytest.approx(0.8)
    assert rows["policy"]["label"] == OPEN_LOOP
    assert rows["random 0.8"]["duty"] == pytest.approx(0.8, abs=0.05)
    periodic = next(row for name, row in rows.items() if name.startswith("periodic"))
    assert periodic["pulses"] <= rows["policy"]["pulses"]
    assert periodic["P_beta_iqm"] <= rows["random 0.8"]["P_beta_iqm"] + 30


def test_a_policy_that_reads_its_observation_is_not_called_open_loop(tmp_path: Path) -> None:
    class Moving(ToyEnv):
        """Beta is high in one half of the episode: on even plants the first, on odd ones the second."""

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.even = int(seed or 0) % 2 == 0
            return super().reset(seed=seed, options=options)

        def _info(self, action: Any) -> Any:
            self.offset = 0.12 if (self.count < 6) == self.even else -0.04
            return super()._info(action)

    run = _policy(tmp_path / "run", 0.0, reads_above=0.45)
    plan = Plan(("never", "policy"), 24, 12)
    rows = _rows(evaluate(run, tmp_path / "out", plan, quiet=True, env_factory=Moving))
    assert 0.2 < rows["policy"]["duty"] < 0.9
    assert rows["policy, observation: zeros"]["duty"] == 0.0
    assert rows["policy, observation: of another plant"]["reward_iqm"] < rows["policy"]["reward_iqm"]
    assert rows["policy"]["label"] == ""
    for name in (PARTIAL, SEEN):
        assert not (tmp_path / "out" / name).exists()


def test_what_beats_at_any_time_on_any_plant_is_open_loop(tmp_path: Path) -> None:
    """Plants that are alike: a policy that toggles by what it sees loses nothing when it is shown another's."""
    run = _policy(tmp_path / "run", 0.0, reads_above=0.40)
    rows = _rows(_evaluate(run, tmp_path / "out", "never", "policy", seeds=8))
    assert 0.2 < rows["policy"]["duty"] < 0.9
    assert rows["policy"]["label"] == OPEN_LOOP


def test_the_table_rests_on_held_out_plants_alone(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(ToyEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            seen.append(int(seed or 0))
            return super().reset(seed=seed, options=options)

    plan = Plan(("never", "periodic", "policy"), 3)
    result = evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out", plan, quiet=True, env_factory=Watching)
    assert {one["seed"] for one in result["episodes"]} == {HELD_OUT, HELD_OUT + 1, HELD_OUT + 2}
    assert set(seen) == {HELD_OUT + k for k in range(3)} | {SEARCH + k for k in range(3)}


def test_the_files_say_what_the_result_says(tmp_path: Path) -> None:
    run = _policy(tmp_path / "run", 1.0)
    result = _evaluate(run, tmp_path / "out", "never", "policy", seeds=2)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert written["plan"]["steps"] == 6
    for name in ("comparison.png", "series.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / PARTIAL).exists()
    episode = written["episodes"][0]
    assert len(episode["P_beta"]) == 7
    assert len(episode["reward"]) == len(episode["duty"]) == len(episode["decisions"]) == 6


def test_a_stopped_evaluation_goes_on_with_what_it_had(tmp_path: Path) -> None:
    run = _policy(tmp_path / "run", 1.0)
    whole = _evaluate(run, tmp_path / "whole", "never", "on-off", "policy", seeds=3)
    resets = 0

    class Stopping(ToyEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            nonlocal resets
            resets += 1
            if resets == 8:  # in the third controller
                raise KeyboardInterrupt
            return super().reset(seed=seed, options=options)

    plan = Plan(("never", "on-off", "policy"), 3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, tmp_path / "out", plan, quiet=True, env_factory=Stopping)
    with pytest.raises(UserError, match="not empty"):
        _evaluate(run, tmp_path / "out", "never", "on-off", "policy", seeds=3)
    resets = 100
    result = evaluate(run, tmp_path / "out", plan, quiet=True, env_factory=Stopping, resume=True)
    assert resets == 103  # of the one controller that was missing
    assert result["rows"] == whole["rows"]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(("never", "sometimes")), "unknown controller 'sometimes'"),
        (Plan(seeds=0), "0 evaluation seeds"),
        (Plan(steps=2), "2 steps were asked for: from 3"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, plan: Plan, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out", plan, quiet=True, env_factory=ToyEnv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("blind_rewards", "blind_pulses", "word"),
    [
        ([0.1, 0.2, 0.1, 0.2], 10, ""),  # the reward falls
        ([1.0, 1.1, 1.0, 1.1], 10, OPEN_LOOP),  # nothing falls
        ([1.0, 1.1, 1.0, 1.1], 20, ""),  # the same reward, for twice the pulses
        ([0.9, 1.3, 0.7, 1.2], 10, OPEN_LOOP),  # a difference that the plants do not show
        ([2.0, 2.0, 2.0, 2.0], 10, OPEN_LOOP),  # better blind
    ],
)
def test_open_loop_is_what_loses_nothing_when_blind(blind_rewards: list[float], blind_pulses: int, word: str) -> None:
    seeing, pulses = [1.0, 1.1, 1.0, 1.1], [10.0] * 4
    lost = ([-5.0] * 4, pulses)
    assert label(0.5, seeing, pulses, [lost, (blind_rewards, [float(blind_pulses)] * 4)]) == word
    assert label(0.96, seeing, pulses, [lost]) == CONSTANT


def test_a_policy_is_shown_something_else_in_each_way() -> None:
    seen = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
    given = {mode: shown(mode, seen) for mode in BLIND}
    assert not given["zeros"].any()
    assert (given["mean"] == seen.mean(axis=(0, 1))).all()  # of each value: a rate is no pulse
    assert not np.array_equal(given["shuffled"], seen)
    assert np.array_equal(np.sort(given["shuffled"], axis=1), np.sort(seen, axis=1))  # whole decisions change places
    assert np.array_equal(given["other"][0], seen[1])
    with pytest.raises(UserError, match="two or more"):
        shown("other", seen[:1])


def test_what_a_policy_decides_blind_is_played_as_it_stands() -> None:
    above = OnOff(2, low=0.4, high=0.6)
    observations = np.repeat(np.array([[0.7, 0.5, 0.3], [0.5, 0.7, 0.7]], np.float32)[..., None], 4, axis=2)
    decisions = decisions_on(above, observations)
    assert decisions[..., 0].tolist() == [[1, 1, 0], [0, 1, 1]]  # its memory runs along
    played = Played("blind", decisions)
    played.init_state(2)
    assert [played.act(np.zeros((2, 4), np.float32)).tolist() for _ in range(3)] == decisions.swapaxes(0, 1).tolist()
    with pytest.raises(UserError, match="one each"):
        played.init_state(3)


@pytest.mark.parametrize(("preset", "steps"), [("paper", 2), ("realtime", 99)])
def test_settling_lasts_as_long_as_the_observation_looks_back(preset: str, steps: int) -> None:
    assert settle_steps(load_config(preset)) == steps


def test_the_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, -50.0, 4.0, 2.5, 2.5]) == pytest.approx(2.5)
    assert iqm([1.0, 2.0, 9.0]) == 4.0
    assert interval([1.0]) is None
    assert surely_greater([1.0], [0.0]) is False


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), shift=st.floats(-1e3, 1e3))
def test_the_interval_holds_the_mean_and_moves_with_the_values(values: list[float], shift: float) -> None:
    low, high = interval(values) or (0.0, 0.0)
    assert min(values) - 1e-6 <= low <= iqm(values) + 1e-6
    assert iqm(values) - 1e-6 <= high <= max(values) + 1e-6
    assert interval(np.array(values) + shift) == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_the_interval_covers_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    bounds = [interval(rng.normal(size=16)) or (0.0, 0.0) for _ in range(200)]
    covered = np.mean([low <= 0.0 <= high for low, high in bounds])
    assert 0.85 < covered <= 0.99


def test_classical_controllers_tuned_ones_and_the_replayed_policy_stand_in_the_table(tmp_path: Path) -> None:
    tuned = {"kind": "tuned", "controller": "pi", "parameters": {"kp": 30.0, "ti": 2.0}}
    (tmp_path / "tuned.json").write_text(json.dumps(tuned))
    run = _policy(tmp_path / "run", 0.0, reads_above=0.40)
    names = ("never", "replayed", "dual-threshold", "proportional", "pi", f"pi:{tmp_path}", "policy")
    result = _evaluate(run, tmp_path / "out", *names, seeds=3)
    rows = _rows(result)
    assert [row["controller"] for row in result["rows"]][:6] == [*names[:5], "pi"]
    assert "PI 30 Hz, 2 s, target 0.34" in rows
    assert rows["replayed policy"]["label"] == OPEN_LOOP
    played = [one["decisions"] for one in result["episodes"] if one["controller"] == "replayed policy"]
    decided = [one["decisions"] for one in result["episodes"] if one["controller"] == "policy"]
    assert played == [*decided[1:], decided[0]]
    other = {"kind": "tuned", "controller": "pattern", "parameters": {"mask": "10", "slot_hz": 130.0}}
    (tmp_path / "tuned.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="slots of 130 Hz"):
        _evaluate(run, tmp_path / "other", "never", f"pattern:{tmp_path}", "policy", seeds=2)
    assert not (tmp_path / "other").exists()


def test_the_fields_measures_are_those_of_their_definitions(tmp_path: Path) -> None:
    rows = _rows(_evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out", "never", "always", seeds=3))
    never, always = rows["never"], rows["always"]
    assert never["tracking_error_percent"] == pytest.approx(100.0)
    assert never["time_above_target_percent"] == 100.0
    assert never["suppression_efficiency"] is None
    assert never["teed_uW"] == 0.0
    assert always["tracking_error_percent"] < 5.0
    assert always["time_above_target_percent"] < 20.0
    assert always["pulse_hz"] == pytest.approx(50.0)
    assert always["time_on_percent"] == 100.0
    assert always["teed_uW"] == pytest.approx(50 * 0.54)  # 3 mA × 60 µs into 1 kΩ: 0.54 µJ a pulse
    assert always["teed_percent_of_130Hz"] == pytest.approx(always["charge_percent_of_130Hz"])
    removed = 100.0 - always["percent_of_untreated"]
    assert always["suppression_efficiency"] == pytest.approx(removed / (100 * 50 / 130), rel=0.05)


def test_the_printed_table_shows_every_controller_and_its_tracking_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out", "never", "pi", "policy", seeds=2)
    print_table(result["rows"])
    said = capsys.readouterr().out
    assert "2 held-out plants" in said
    assert said.count("silenced") + said.count("observation") >= 2
    assert "PI 19.3 Hz" in said
    print_table([{**result["rows"][0], "tracking_error_percent": None}])  # a healthy plant has none
    assert "never" in capsys.readouterr().out


def test_a_plant_that_diverges_is_left_out_and_counted(tmp_path: Path) -> None:
    """It diverges on one plant under stimulation alone: the row stands on the others, and so do its comparisons."""

    class Fragile(ToyEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.fragile = seed == HELD_OUT + 2
            return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            if self.fragile and action.sum() > 45 and self.count == 5:
                raise NetworkFailedError({0: Failure(0, "stn", 3, 123.0)}, [])
            return super().step(action)

    plan = Plan(("never", "always", "policy"), 6, None)
    result = evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out", plan, quiet=True, env_factory=Fragile)
    rows = _rows(result)
    assert (rows["never"]["seeds"], rows["never"]["diverged"]) == (6, 0)
    assert (rows["policy"]["seeds"], rows["policy"]["diverged"]) == (5, 1)
    assert [k for k, one in enumerate(rows["policy"]["plants"]["pulses"]) if one is None] == [2]
    assert rows["policy"]["pulses"] == 6 * 50
    assert rows["policy"]["label"] == CONSTANT
    assert rows["always"]["policy_below_points"] == {"iqm": 0.0, "ci95": (0.0, 0.0)}
    plants = zip(rows["never"]["plants"]["percent_of_untreated"], rows["policy"]["plants"]["percent_of_untreated"],
                 strict=True)  # fmt: skip
    below = [a - b for a, b in plants if b is not None]
    assert rows["never"]["policy_below_points"]["iqm"] == pytest.approx(iqm(below))
    rewards = zip(rows["policy"]["plants"]["reward"], rows["never"]["plants"]["reward"], strict=True)
    above = [a - b for a, b in rewards if a is not None]
    assert rows["never"]["policy_reward_above"]["mean"] == pytest.approx(np.mean(above))
    assert rows["never"]["policy_reward_above"]["iqm"] == pytest.approx(iqm(above))
    assert "policy_reward_above" not in rows["policy"]
    lost = [one for one in result["episodes"] if one["diverged"]]
    own = [one for one in lost if not one["diverged"].startswith("its trains are another plant's")]
    assert {one["seed"] for one in own} == {HELD_OUT + 2}
    assert {one["seed"] for one in lost if one not in own} == {HELD_OUT + 1}
    assert "stn cell 3" in lost[0]["diverged"]


def test_plants_that_all_diverge_are_one_sentence(tmp_path: Path) -> None:
    class Broken(ToyEnv):
        def step(self, action: Any) -> Any:
            if action.sum() > 45:
                raise NetworkFailedError({0: Failure(0, "stn", None, 9.0)}, [])
            return super().step(action)

    plan = Plan(("never", "always"), 3, None)
    with pytest.raises(UserError, match="always: all 3 plants diverged"):
        evaluate(_policy(tmp_path / "run", 1.0), tmp_path / "out", plan, quiet=True, env_factory=Broken)
