"""The search of timing policies: its plants are the environment's, a stopped search repeats, what it finds is a run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs import make_env
from envs.config import env_config
from envs.errors import UserError
from envs.patients import Patient
from envs.registration import base_env
from export.policy import OnnxPolicy
from export.run import export_run
from firmware_bridge.plan import SessionPlan, prepare
from sea_dbs import checkpoint
from sea_dbs.config import TrainConfig, load_config
from sea_dbs.controllers import Pattern, Periodic, TorchPolicy
from sea_dbs.evaluate import evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.evaluation_rows import COMPARED
from sea_dbs.evolution.kernels import RATE_CENTRE, Candidates
from sea_dbs.evolution.plants import World
from sea_dbs.evolution.run import actor_of
from sea_dbs.evolution.search import BUDGET_PRICE, Evolution
from sea_dbs.files import write_json
from sea_dbs.networks import build_actor
from sea_dbs.rollout import begin, rollout
from sea_dbs.runlog import METRICS, RunLog, read_metrics
from sea_dbs.seeds import HELD_OUT, training_seed
from sea_dbs.train import make_env as run_env
from sea_dbs.train import train
from tests.session_tools import make_export

SEED = 11


def tiny(**more: Any) -> TrainConfig:
    """A search of three generations of four candidates."""
    small = {
        "pulse_budget_hz": 45.5,
        "group_pulses": 22,
        "generations": 3,
        "population": 4,
        "candidate_plants": 2,
        "candidate_s": 3.0,
        "healthy_plants": 1,
        **more,
    }
    return load_config("timing-26", [f"{key}={value}" for key, value in small.items()])


def candidate(hz: float = 45.0) -> tuple[Candidates, NDArray[np.float64]]:
    """A candidate that reads the GPi and its own pulses."""
    config = env_config("timing")
    found = Candidates(config.n_obs, config.slot_ms, gated=False)
    values = found.regular(hz) + np.random.default_rng(3).normal(0.0, 0.4, found.size)
    return found, found.weights(values)


@pytest.mark.parametrize("behind", [False, True])
def test_a_lane_of_the_search_is_the_environment(behind: bool) -> None:
    """The same policy on the same plant, through the environment and through the search: the same pulses and beta."""
    config = env_config("timing", episode_steps=1110)
    made, weights = candidate()
    gate = None
    if behind:  # one that closes now and then
        gate = made.gate()
        gate[-1] -= 1.0
    world = World(config, 3.0)
    found = world.play(np.stack([weights, 0.0 * weights]), [SEED, SEED + 1], gate)
    if gate is not None:
        free = world.play(weights[None], [SEED, SEED + 1])
        assert found.pulse_hz[0].sum() < 0.99 * free.pulse_hz[0].sum()
    policy = TorchPolicy(actor_of(weights, gate), {"n_obs": config.n_obs, "slots": 1})
    for plant in range(2):
        env = make_env("timing", episode_steps=1110)
        start = begin([env], [SEED + plant])
        policy.init_state(1)
        infos = [step.infos[0] for step in rollout([env], policy, 1110, start=start)]
        assert found.pulse_hz[0, plant] * 3.0 == pytest.approx(sum(info["pulses"] for info in infos))
        assert 20 < sum(info["pulses"] for info in infos) < 400
        every = [info["P_beta_last"] for info in infos][36::37]  # 100 ms are 37 slots
        assert found.beta[0, plant] == pytest.approx(np.mean(every[19:]), rel=1e-9)  # windows that begin at 1 s
    assert (found.pulse_hz[1] == 0.0).all()
    assert world.untreated([SEED, SEED + 1]) == pytest.approx(found.beta[1], rel=1e-12)


def test_a_plant_that_diverges_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that pulses as often as it can, with pulses too strong for the plant, beside one that never does."""
    config = env_config("timing", precision="float32", amplitude_uA_cm2=400.0)
    world = World(config.model_copy(update={"amplitude_uA_cm2": 5000.0}), 3.0)
    never, always = np.zeros(config.n_obs + 1), np.zeros(config.n_obs + 1)
    always[-1] = 1.0
    found = world.play(np.stack([always, never]), [SEED])
    assert np.isnan(found.beta[0, 0])
    assert np.isnan(found.pulse_hz[0, 0])
    alone = World(config, 3.0).play(never[None], [SEED])
    assert found.beta[1, 0] == alone.beta[0, 0]


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


def test_the_observation_is_the_rate_of_each_slot() -> None:
    env = base_env(make_env("timing"))
    observation, _ = env.reset(seed=SEED)
    half = env.config.n_obs // 2
    assert observation.shape == (480,)
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


TRAINS = [(1, 26.0), (1, 45.5), (1, 78.0), (8, 26.0), (14, 26.0), (22, 45.5), (45, 78.0)]


@pytest.mark.parametrize(("size", "hz"), TRAINS)
def test_a_search_begins_at_a_train_of_its_budget(size: int, hz: float) -> None:
    """In groups of so many pulses at 185 Hz, or regular, whatever is observed."""
    config = env_config("timing", precision="float32")
    found = Candidates(config.n_obs, config.slot_ms, gated=False)
    weights = found.weights(found.groups(size, hz, config.gap_slots))
    half = config.n_obs // 2
    assert not weights[:half].any()
    pulses = np.zeros(half + 12 * 370)
    for t in range(half, len(pulses)):
        free = not pulses[t - config.gap_slots + 1 : t].any()
        pulses[t] = free and pulses[t - half : t] @ weights[half:-1] + weights[-1] > 0.0
    onsets = np.flatnonzero(pulses)[150:]
    firsts = np.flatnonzero(np.diff(onsets) > config.gap_slots) + 1  # of each group, or each pulse
    given_hz = 370.0 * (firsts[-1] - firsts[0]) / (onsets[firsts[-1]] - onsets[firsts[0]])
    low, high = (0.85, 1.0) if size == 1 else (0.97, 1.07)
    assert low * hz < given_hz < high * hz
    assert np.diff(firsts) == pytest.approx(size, rel=0.15)


def test_a_gated_start_is_silent_on_healthy_plants_alone() -> None:
    """From the GPi's mean rate, which pulses raise on both: P_beta of the two overlaps, the rate does not."""
    config = env_config("timing", precision="float32")
    found, seeds = Candidates(config.n_obs, config.slot_ms), [training_seed(3, k) for k in range(4)]
    weights = found.weights(found.groups(22, 45.5, config.gap_slots))[None]
    ill = World(config, 4.0).play(weights, seeds)
    healthy = World(env_config("timing", precision="float32", pd=0.0), 4.0).play(weights, seeds)
    assert (ill.pulse_hz > 35.0).all()
    assert healthy.pulse_hz.mean() < 6.5  # 5 % of 130 Hz


def test_a_gate_tells_healthy_plants_from_others_and_leaves_these_alone() -> None:
    """What an earlier search had found, with and without it."""
    config = env_config("timing", precision="float32", stim_hz=390.0, gap_slots=3, episode_steps=1560)
    found, seeds = Candidates(config.n_obs, config.slot_ms, gated=False), [training_seed(3, k) for k in range(4)]
    weights = found.weights(found.earlier())[None]
    ill, healthy = World(config, 4.0), World(config.model_copy(update={"pd": 0.0}), 4.0)
    free, gated = (ill.play(weights, seeds, gate) for gate in (None, found.gate()))
    assert free.pulse_hz.mean() == pytest.approx(45.0, abs=2.0)
    assert gated.pulse_hz == pytest.approx(free.pulse_hz, rel=0.1)
    assert healthy.play(weights, seeds).pulse_hz.mean() > 35.0
    assert healthy.play(weights, seeds, found.gate()).pulse_hz.mean() < 6.5  # 5 % of 130 Hz


def test_groups_that_the_policy_could_not_remember_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"group_pulses=20 at pulse_budget_hz=26 .* 649 ms .*: 1, and 2 to 19, fits"):
        train(tiny(group_pulses=20, pulse_budget_hz=26), tmp_path / "run", quiet=True)
    close = {"stim_hz": 390, "gap_slots": 3, "episode_steps": 3900}
    with pytest.raises(UserError, match="group_pulses=2 at pulse_budget_hz=130 makes pauses that are no pauses"):
        train(tiny(group_pulses=2, pulse_budget_hz=130, **close), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_stopped_search_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    whole = train(config, tmp_path / "whole", quiet=True)
    assert whole.env_steps == 3 * 4 * (2 + 1) * 1110
    assert (tmp_path / "whole" / "search.png").read_bytes().startswith(b"\x89PNG")

    write = RunLog.write

    def stop(log: RunLog, lines: Any, steps: int = 0) -> None:
        write(log, lines, steps)
        if lines[-1]["episode"] == 1:  # its line stands, its checkpoint does not
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", quiet=True)
    monkeypatch.setattr(RunLog, "write", write)
    assert not (tmp_path / "cut" / "policy.pt").exists()
    train(config, tmp_path / "cut", resume=True, quiet=True)
    assert (tmp_path / "cut" / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
    for name in ("head.weight", "head.bias"):
        a, b = (checkpoint.read_policy(tmp_path / run)[0].state_dict()[name] for run in ("cut", "whole"))
        assert (a == b).all()


def test_a_killed_search_loses_a_generation_at_most(tmp_path: Path) -> None:
    """kill -9 of the command, as soon as a first generation is kept."""
    settings_ = ["generations=4", "population=4", "candidate_plants=2", "candidate_s=3", "healthy_plants=1"]
    settings_ += ["pulse_budget_hz=45.5", "group_pulses=22"]
    arguments = ["train", "--config", "timing-26", *settings_, "--out", str(tmp_path / "killed")]
    command = [sys.executable, "-c", "from sea_dbs.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 150.0
    while not (tmp_path / "killed" / "checkpoint.pt").exists() and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = len(checkpoint.load(tmp_path / "killed" / "checkpoint.pt")["costs"])
    assert 1 <= kept <= 4
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    train(tiny(generations=4), tmp_path / "whole", quiet=True)
    for name in ("head.weight", "head.bias"):
        a, b = (checkpoint.read_policy(tmp_path / run)[0].state_dict()[name] for run in ("killed", "whole"))
        assert (a == b).all()


def test_costs_count_pulses_above_the_budget_and_on_healthy_plants() -> None:
    chosen = tiny(pulse_budget_hz=20, start="earlier")  # it begins without a gate
    first = next(Evolution(chosen).generations())
    over = np.maximum(0.0, first.pulse_hz - 20.0)
    assert over.any()
    assert first.cost == pytest.approx(first.beta_percent + BUDGET_PRICE * over + 0.5 * first.healthy_hz)
    seeds = [training_seed(0, k) for k in range(3)]
    again = Evolution(chosen)
    weights = again.candidates.weights(np.stack(again._ask()))
    played = again.world.play(weights, seeds[:2])
    assert 100.0 * (played.beta / again.world.untreated(seeds[:2])).mean(axis=1) == pytest.approx(first.beta_percent)
    healthy = World(chosen.world(pd=0.0, precision="float32"), 3.0).play(weights, seeds[2:])
    assert (first.healthy_hz > 0.0).any()
    assert healthy.pulse_hz[:, 0] == pytest.approx(first.healthy_hz)
    free = next(Evolution(tiny(pulse_budget_hz=20, start="earlier", healthy_plants=0)).generations())
    assert not free.healthy_hz.any()


def test_a_weight_on_the_rate_leaves_the_untreated_mean_alone() -> None:
    found = Candidates(480, 1000.0 / 370.0)
    candidate = np.zeros(found.size)
    candidate[:5], candidate[-1] = 1.0, 0.25
    weights = found.weights(candidate)
    seen = np.r_[np.full(240, RATE_CENTRE), np.zeros(240)]
    assert seen @ weights[:-1] + weights[-1] == pytest.approx(0.25)
    seen[:240] = 0.24  # healthy
    assert seen @ weights[:-1] + weights[-1] < -1.0


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    config = tiny(generations=1)
    train(config, tmp_path / "run", quiet=True)
    state = {"config_sha256": config.sha256(), "costs": np.zeros((1, 7)), "wall_s": 0.0}
    checkpoint.save(tmp_path / "run" / checkpoint.CHECKPOINT, state)
    with pytest.raises(UserError, match="population 4"):
        train(config, tmp_path / "run", resume=True, quiet=True)
    checkpoint.save(tmp_path / "run" / checkpoint.CHECKPOINT, {**state, "config_sha256": "0"})
    with pytest.raises(UserError, match="other values"):
        train(config, tmp_path / "run", resume=True, quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timing") / "run"
    train(tiny(), folder, quiet=True)
    return folder


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


def test_metrics_say_what_a_generation_did(run: Path) -> None:
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [13320, 26640, 39960]
    assert all(line["best_cost"] <= line["cost"] == -line["reward"] for line in lines)


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        (["preset=paper"], "searches actor=linear or gated of preset=timing, not linear of paper"),
        (["actor=compact"], "not compact of timing"),
        (["population=3"], "from 4 up to 1024"),
        (["candidate_s=2"], "from 3 up to 600"),
        (["generations=1300"], "of 8 plants .* would meet plants twice: at most 10000"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(given_: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_config("timing-26", given_)


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ("obs=lfp", "searches with obs=gpi alone, not with lfp"),
        ("drift=disease", "searches with drift=none alone, not with disease"),
        ("delay_steps=3", "searches with delay_steps=0 alone, not with 3"),
    ],
)
def test_a_world_that_a_search_does_not_simulate_is_refused(given_: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        train(load_config("timing-26", [given_]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


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
    assert row["plants"] == other["rows"][1]["plants"]
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
