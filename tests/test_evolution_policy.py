"""What a timing policy sees and may do, and what is done with one: evaluation beside others, other worlds, export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import make_env
from envs.config import env_config
from envs.errors import UserError
from envs.patients import Patient
from envs.registration import base_env
from export.policy import OnnxPolicy
from export.run import export_run
from firmware_bridge.plan import SessionPlan, prepare
from sea_dbs import checkpoint
from sea_dbs.config import TrainConfig
from sea_dbs.controllers import Pattern, Periodic, TorchPolicy
from sea_dbs.evaluate import evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.evaluation_rows import COMPARED
from sea_dbs.files import write_json
from sea_dbs.networks import build_actor
from sea_dbs.seeds import HELD_OUT
from sea_dbs.train import make_env as run_env
from sea_dbs.train import train
from tests.evolution_tools import SEED, tiny
from tests.session_tools import make_export


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search's run folder."""
    folder = tmp_path_factory.mktemp("timing") / "run"
    train(tiny(), folder, quiet=True)
    return folder


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_pulses_keep_their_distance(wanted: list[bool], gap: int) -> None:
    env = base_env(make_env("timing", gap_slots=max(gap, 2), settle_ms=1400.0, dt_ms=0.02))
    gap = env.config.gap_slots
    env.reset(seed=1)
    given_, due = [], 0
    for slot, bit in enumerate(wanted):
        observation, *_, info = env.step(np.array([bit], np.int8))
        assert info["pulses"] == int(bit and slot >= due)
        if info["pulses"]:
            due = slot + gap
        given_.append(info["pulses"])
    half = env.config.n_obs // 2
    assert observation[half:].tolist() == ([0.0] * half + given_)[-half:]


@pytest.mark.parametrize("n_obs", [480, 1478])
def test_the_observation_is_the_rate_of_each_slot(n_obs: int) -> None:
    """As far back as a reset allows, which is further than the window of beta."""
    env = base_env(make_env("timing", n_obs=n_obs))
    observation, _ = env.reset(seed=SEED)
    half = n_obs // 2
    assert observation.shape == (n_obs,)
    assert not observation[half:].any()
    counts = []
    for slot in range(half):
        before = env.ready().sample
        observation, *_ = env.step(np.array([slot % 9 == 0], np.int8))
        after = env.ready().sample
        at = env.spikes[:, 0]
        counts.append(((at >= before) & (at < after)).sum() / (10 * (after - before) * 0.02e-3) / 100.0)
    assert observation[:half] == pytest.approx(np.array(counts, np.float32))
    assert observation[half:].tolist() == [float(slot % 9 == 0) for slot in range(half)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gap_slots": 1}, "up to 370 Hz: at most 185 Hz"),
        ({"n_obs": 481}, "even n_obs"),
        ({"n_obs": 1480}, "settle_ms is 2000: the first observation of 1480 values needs over 2000 ms"),
        ({"noise_sd": 0.1}, "noise_sd 0"),
        ({"slots": 2}, "needs slots 1"),
        ({"reward_signal": "mean"}, "allowed is 'newest'"),
        ({"gap_slots": 100, "window_ms": 200.0}, "gap_slots 100 of 2.7027 ms each are longer than window_ms 200"),
    ],
)
def test_what_does_not_fit_the_view_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        env_config("timing", **change)


def test_a_random_train_asks_for_what_the_gap_takes() -> None:
    config = env_config("timing")
    asked = config.share_asked(0.2)
    mask = np.random.default_rng(0).random(400_000) < asked
    given_, due = 0, 0
    for slot in np.flatnonzero(mask):
        if slot >= due:
            given_, due = given_ + 1, slot + config.gap_slots
    assert given_ / len(mask) == pytest.approx(0.2, rel=0.01)
    assert config.share_asked(0.0) == 0.0
    assert config.share_asked(1.0 / 2.0) == pytest.approx(1.0)
    with pytest.raises(UserError, match="from 0 to 1/2 of the slots"):
        config.share_asked(0.6)
    assert env_config("paper").share_asked(0.7) == pytest.approx(0.7)


def test_what_is_found_is_evaluated_beside_its_own_pulses(run: Path, tmp_path: Path) -> None:
    result = evaluate(run, tmp_path / "out", Plan(seeds=2, steps=814, search_seeds=1), quiet=True)
    rows = {row["controller"]: row for row in result["rows"] if row["controller"] != "policy, silenced"}
    assert set(rows) == {"never", "always", "periodic", "random", "policy"}  # on-off reads beta, which is not shown
    assert rows["always"]["pulse_hz"] == pytest.approx(185.0, rel=0.01)
    assert rows["always"]["label"] == "constant stimulation"
    assert rows["random"]["pulses"] == pytest.approx(rows["policy"]["pulses"], rel=0.25)
    assert rows["periodic"]["pulses"] <= rows["policy"]["pulses"]
    below = rows["never"]["policy_below_points"]
    assert below["ci95"][0] <= below["iqm"] <= below["ci95"][1]
    own, never = (rows[name]["percent_of_untreated"] for name in ("policy", "never"))
    assert below["iqm"] == pytest.approx(never - own)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["rows"] == json.loads(json.dumps(result["rows"]))
    with pytest.raises(UserError, match=r"815 steps were asked for, .* multiples of 37 are allowed"):
        evaluate(run, tmp_path / "odd", Plan(("never",), 2, 815), quiet=True)
    with pytest.raises(UserError, match="'pi' reads the newest beta, which the preset 'timing' does not show"):
        evaluate(run, tmp_path / "pi", Plan(("never", "pi", "policy"), 2, 814), quiet=True)


def test_what_is_found_is_exported_and_decides_the_same(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "export", closed_loop_seeds=0, seconds=1.0, compare_other=False, quiet=True)
    torch_policy, onnx_policy = TorchPolicy.load(run), OnnxPolicy(tmp_path / "export", "fp32")
    seen = np.random.default_rng(1).random((500, 480)).astype(np.float32)
    for policy in (torch_policy, onnx_policy):
        policy.init_state(500)
    assert (torch_policy.act(seen) == onnx_policy.act(seen)).all()
    with pytest.raises(UserError, match=r"slots of 2703 µs: a board takes slots from 5406 µs"):
        prepare(SessionPlan(out=tmp_path / "session", policy=tmp_path / "export"))


def test_a_pattern_of_coarser_slots_keeps_its_times() -> None:
    """Patterns made for 130 Hz slots stand beside policies of finer slots."""
    from fractions import Fraction

    fine = Pattern(1, Fraction(1_000_000, 390), "0110", 130.0)
    fine.init_state(1)
    given_ = [int(fine.act(np.zeros((1, 1), np.float32))[0, 0]) for _ in range(24)]
    assert np.flatnonzero(given_).tolist() == [3, 6, 15, 18]
    with pytest.raises(UserError, match=r"made for slots of 130 Hz, these are slots of 200 Hz"):
        Pattern(1, Fraction(5_000), "0110", 130.0)
    every = Periodic(1, Fraction(1_000_000, 390), 130.0)
    every.init_state(1)
    assert [int(every.act(np.zeros((1, 1), np.float32))[0, 0]) for _ in range(6)] == [1, 0, 0, 1, 0, 0]


def test_a_session_that_would_leave_samples_out_is_refused(tmp_path: Path) -> None:
    short = {"slots": 50, "window_ms": 200.0, "stride_ms": 20.0, "n_obs": 10, "settle_ms": 400.0, "episode_steps": 5}
    export = make_export(tmp_path / "export", short)
    with pytest.raises(UserError, match=r"holds 10 samples and a decision lasts 50.*let n_obs be 50 or more"):
        prepare(SessionPlan(out=tmp_path / "session", policy=export))


def test_another_world_is_evaluated_by_what_differs(run: Path, tmp_path: Path) -> None:
    plan = Plan(("never", "policy"), 2, 814, world=("pd=0", "drift=none"))
    result = evaluate(run, tmp_path / "healthy", plan, quiet=True)
    healthy = {row["controller"]: row["P_beta_mean"] for row in result["rows"]}
    assert result["config"]["pd"] == 0.0
    drifting = evaluate(run, tmp_path / "drift", Plan(("never",), 2, 814, world=("drift=circadian",)), quiet=True)
    assert drifting["config"]["drift"] == "circadian"
    plan = Plan(("never", "policy"), 2, 814, cohort=True)
    people = evaluate(run, tmp_path / "people", plan, quiet=True)
    same = evaluate(run, tmp_path / "same", Plan(("never", "policy"), 2, 814), quiet=True)
    untreated = [rows[0]["P_beta_mean"] for rows in (people["rows"], same["rows"])]
    assert healthy["never"] < 0.85 * untreated[1]
    assert untreated[0] != untreated[1]
    with pytest.raises(UserError, match="1 to 20 patients"):
        evaluate(run, tmp_path / "wrong", Plan(("never", "policy"), 21, 814, cohort=True), quiet=True)
    with pytest.raises(UserError, match="each patient has a severity of its own"):
        evaluate(run, tmp_path / "wrong", Plan(("never",), 2, 814, cohort=True, world=("pd=0",)), quiet=True)
    with pytest.raises(UserError, match="--set pd= names no value"):
        evaluate(run, tmp_path / "wrong", Plan(("never",), 2, 814, world=("pd=",)), quiet=True)
    with pytest.raises(UserError, match=r"--set n_obs=3: KEY=VALUE with one of pd, drift"):
        evaluate(run, tmp_path / "wrong", Plan(("never", "policy"), 2, 814, world=("n_obs=3",)), quiet=True)
    with pytest.raises(UserError, match=r"pd=7 in the evaluation is not allowed"):
        evaluate(run, tmp_path / "wrong", Plan(("never", "policy"), 2, 814, world=("pd=7",)), quiet=True)


def test_a_gain_of_the_electrode_changes_no_count_of_spikes() -> None:
    gains = [Patient(name="loud", electrode_gain=gain, seed=3) for gain in (1.0, 2.0)]
    seen = [make_env("timing", patient=patient).reset(seed=SEED)[0] for patient in gains]
    assert (seen[0] == seen[1]).all()
    lfp = [make_env("timing", patient=patient, obs="lfp").reset(seed=SEED)[0] for patient in gains]
    assert lfp[1][:240] == pytest.approx(lfp[0][:240] * np.sqrt(2.0), rel=1e-6)


def test_a_real_plant_that_diverges_is_left_out(run: Path, tmp_path: Path) -> None:
    """Its voltage is spoiled amid an episode; what others would have played from it is left out too."""

    class Spoiled(gymnasium.Wrapper[Any, Any, Any, Any]):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.at = 600 if seed == HELD_OUT + 1 else -1
            return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            self.at -= 1
            if self.at == 0:
                base_env(self.env).ready().rows(0, "V0", 8)[0, 4] = np.nan  # type: ignore[union-attr]
            return super().step(action)

    def factory(config: TrainConfig) -> Any:
        return Spoiled(run_env(config))

    names = ("never", "replayed", "policy")
    whole = evaluate(run, tmp_path / "whole", Plan(names, 3, 851), quiet=True)
    lost = evaluate(run, tmp_path / "lost", Plan(names, 3, 851), quiet=True, env_factory=factory)
    for before, after in zip(whole["rows"], lost["rows"], strict=True):
        gone = {"replayed": [0, 1]}.get(after["controller"], [0, 1] if "another" in after["detail"] else [1])
        values = after["plants"]["percent_of_untreated"]
        assert [k for k, value in enumerate(values) if value is None] == gone, after["detail"]
        if "mean" not in after["detail"]:  # which is the mean of fewer plants now
            kept = [k for k in range(3) if k not in gone]
            assert [values[k] for k in kept] == [before["plants"]["percent_of_untreated"][k] for k in kept]
    assert "is not finite" in next(one["diverged"] for one in lost["episodes"] if one["diverged"])


def test_rows_of_other_slots_stand_beside(run: Path, tmp_path: Path) -> None:
    """A controller that reads beta decides in its own slots: its evaluation is compared plant by plant."""
    coarse = {"preset": "paper", "slots": 10, "window_ms": 1000.0, "stride_ms": 20.0, "n_obs": 10}
    config = TrainConfig.model_validate(coarse | {"episode_steps": 11})
    actor = build_actor("tiny", 10, 10)
    (tmp_path / "carrier").mkdir()
    spec = {"actor": "tiny", "n_obs": 10, "slots": 10, "preset": "paper", "step": 0, "config": config.model_dump()}
    checkpoint.save_policy(tmp_path / "carrier", actor, spec)
    other = evaluate(tmp_path / "carrier", tmp_path / "other", Plan(("never", "on-off"), 2, 11), quiet=True)
    own = Plan(("never", "policy"), 2, 814, beside=tmp_path / "other")
    result = evaluate(run, tmp_path / "out", own, quiet=True)
    row = next(row for row in result["rows"] if row["controller"] == "on-off")
    policy = next(row for row in result["rows"] if row["controller"] == "policy")
    assert row["detail"] == "on-off, decisions of 200 ms"
    below = np.subtract(row["plants"]["percent_of_untreated"], policy["plants"]["percent_of_untreated"])
    assert row["policy_below_points"]["iqm"] == pytest.approx(below.mean())
    for key, column in COMPARED.items():
        apart = np.subtract(row["plants"][column], policy["plants"][column])
        assert row[key]["iqm"] == pytest.approx(apart.mean())
    theirs = dict(other["rows"][1]["plants"])
    assert theirs.pop("reward")  # of another reward: it does not come along
    assert row["plants"] == theirs
    assert "policy_reward_above" not in row
    assert len(result["episodes"][0]["P_beta"]) == 273  # 814 decisions, three a value, and the reset's
    own_episodes = [one for one in result["episodes"] if one["controller"] == "policy"]
    assert [sum(one["pulses"]) for one in own_episodes] == policy["plants"]["pulses"]
    with pytest.raises(UserError, match=r"seconds on each 2.2 there, 2.3 here"):
        evaluate(run, tmp_path / "longer", Plan(("policy",), 2, 851, beside=tmp_path / "other"), quiet=True)
    command = [sys.executable, "-c", "from sea_dbs.cli import main; main()", "evaluate", str(run)]
    command += ["--seeds", "2", "--steps", "814", "--out", str(tmp_path / "cli"), "--beside", str(tmp_path / "nowhere")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, "there is no file" in told.stderr) == (2, True)
    before = json.loads((tmp_path / "other" / "evaluation.json").read_text())  # of a version without tracking errors
    for row in before["rows"]:
        row["plants"].pop("tracking_error_percent", None)
    write_json(tmp_path / "evaluation.json", before)
    with pytest.raises(UserError, match="holds no evaluation of this version"):
        evaluate(run, tmp_path / "none", Plan(("policy",), 2, 814, beside=tmp_path), quiet=True)
    write_json(tmp_path / "evaluation.json", {"kind": "evaluation"})
    with pytest.raises(UserError, match="holds no evaluation of this version"):
        evaluate(run, tmp_path / "none", Plan(("policy",), 2, 814, beside=tmp_path), quiet=True)
    healthy = Plan(("policy",), 2, 814, beside=tmp_path / "other", world=("pd=0",))
    with pytest.raises(UserError, match=r"pd 1.0 there, 0.0 here"):
        evaluate(run, tmp_path / "none", healthy, quiet=True)
    with pytest.raises(UserError, match="there is no file"):
        evaluate(run, tmp_path / "none", Plan(("policy",), 2, 814, beside=tmp_path / "nowhere"), quiet=True)
