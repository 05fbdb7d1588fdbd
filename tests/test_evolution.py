"""The search of timing policies: its plants are the environment's, it begins where it says, a stopped one repeats."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs import make_env
from envs.config import env_config
from envs.errors import UserError
from sea_dbs import checkpoint
from sea_dbs.config import load_config
from sea_dbs.controllers import TorchPolicy
from sea_dbs.evolution.actors import actor_of, relative_actor_of
from sea_dbs.evolution.kernels import RATE_CENTRE, Candidates
from sea_dbs.evolution.plants import World
from sea_dbs.evolution.search import BUDGET_PRICE, Evolution
from sea_dbs.rollout import begin, rollout
from sea_dbs.runlog import METRICS, RunLog, read_metrics
from sea_dbs.seeds import training_seed
from sea_dbs.train import train
from tests.evolution_tools import SEED, small, tiny


def candidate(hz: float = 45.0) -> tuple[Candidates, NDArray[np.float64]]:
    """A candidate that reads the GPi and its own pulses."""
    config = env_config("timing")
    found = Candidates(config.n_obs, config.slot_ms, gated=False)
    values = found.regular(hz) + np.random.default_rng(3).normal(0.0, 0.4, found.size)
    return found, found.weights(values)


def test_a_lane_of_the_search_is_the_environment_for_a_policy_that_reads_relative_to_a_long_mean() -> None:
    """Its network, which takes the mean off in its second layer, decides as the two maps that are searched."""
    config = env_config("timing", n_obs=1140, episode_steps=1110)
    made = Candidates(config.n_obs, config.slot_ms, gated=False, relative=True)
    values = made.groups(14, 26.0, config.gap_slots) + np.random.default_rng(3).normal(0.0, 0.3, made.size)
    gate_hz = 39.0  # closes now and then
    world = World(config, 3.0)
    found, free = (world.play(made.weights(values)[None], [SEED], gate) for gate in (made.above(gate_hz), None))
    assert 0.0 < found.pulse_hz[0, 0] < 0.95 * free.pulse_hz[0, 0]
    policy = TorchPolicy(relative_actor_of(made, values, gate_hz), {"n_obs": config.n_obs, "slots": 1})
    env = make_env("timing", n_obs=1140, episode_steps=1110)
    start = begin([env], [SEED])
    policy.init_state(1)
    pulses = sum(step.infos[0]["pulses"] for step in rollout([env], policy, 1110, start=start))
    assert pulses == pytest.approx(3.0 * found.pulse_hz[0, 0])


@given(shift=st.floats(-0.3, 0.3), seed=st.integers(0, 1000))
def test_a_plants_own_mean_tells_a_relative_policy_nothing_of_the_moment(shift: float, seed: int) -> None:
    """But it does tell whether to pulse at all."""
    made = Candidates(1140, 1000.0 / 370.0, gated=False, relative=True)
    rng = np.random.default_rng(seed)
    weights = made.weights(rng.normal(0.0, 1.0, made.size))
    seen = np.concatenate([rng.uniform(0.2, 0.5, 570), rng.random(570) < 0.07])
    moved = seen + np.r_[np.full(570, shift), np.zeros(570)]
    assert moved @ weights[:-1] == pytest.approx(seen @ weights[:-1], abs=1e-9)
    gate = made.above(25.0)
    assert (moved - seen) @ gate[:-1] == pytest.approx(shift)
    still = np.r_[np.full(570, 0.26), np.zeros(570)]
    assert still @ gate[:-1] + gate[-1] == pytest.approx(0.01)


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
    settings_ = {"generations": 4, "actor": "relative", "n_obs": 1140, "milder_plants": 1, "healthy_plants": 0}
    arguments = ["train", "--config", "timing-relative", *small(**settings_), "--out", str(tmp_path / "killed")]
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
    train(tiny(**settings_), tmp_path / "whole", quiet=True)
    for name in ("hidden.0.weight", "hidden.2.weight", "hidden.2.bias"):
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


def test_plants_of_a_milder_disease_count_as_the_others_do() -> None:
    """And the gate of actor=relative, which here would be shut, is open in a search."""
    chosen = tiny(actor="relative", n_obs=1140, gate_hz=100, milder_plants=1, healthy_plants=0, pulse_budget_hz=20)
    first, again = next(Evolution(chosen).generations()), Evolution(chosen)
    weights = again.candidates.weights(np.stack(again._ask()))
    plants = [training_seed(0, k) for k in range(3)]
    cost = np.zeros(4)
    for pd, seeds in ((1.0, plants[:2]), (0.1, plants[2:])):
        world = World(chosen.world(pd=pd, precision="float32"), 3.0)
        done = world.play(weights, seeds)
        percent = 100.0 * (done.beta / world.untreated(seeds)).mean(axis=1)
        assert (first.beta_percent if pd == 1.0 else first.milder_percent) == pytest.approx(percent)
        cost += len(seeds) / 3.0 * (percent + BUDGET_PRICE * np.maximum(0.0, done.pulse_hz.mean(axis=1) - 20.0))
    assert first.cost == pytest.approx(cost)
    assert chosen.sha256() != chosen.model_copy(update={"milder_pd": 0.2}).sha256()
    assert chosen.sha256() != chosen.model_copy(update={"gate_hz": 30.0}).sha256()
    plain = tiny()
    assert plain.sha256() == plain.model_copy(update={"milder_pd": 0.2, "gate_hz": 30.0}).sha256()


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
    """A search's run folder."""
    folder = tmp_path_factory.mktemp("timing") / "run"
    train(tiny(), folder, quiet=True)
    return folder


def test_metrics_say_what_a_generation_did(run: Path) -> None:
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [13320, 26640, 39960]
    assert all(line["best_cost"] <= line["cost"] == -line["reward"] for line in lines)


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        (["preset=paper"], "searches actor=linear, gated or relative of preset=timing, not relative of paper"),
        (["actor=compact"], "not compact of timing"),
        (["population=3"], "from 4 up to 1024"),
        (["candidate_s=2"], "from 3 up to 600"),
        (["gate_hz=-1"], "from 0 up to 100"),
        (
            ["healthy_plants=1"],
            "searched with its gate open: healthy_plants=1 .* it needs healthy_plants=0",
        ),
        (["generations=1430"], "of 7 plants .* would meet plants twice: at most 10000"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(given_: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_config("timing-relative", given_)


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
        train(load_config("timing-relative", [given_]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
