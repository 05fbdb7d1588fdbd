"""Training: it learns, it can be killed at any moment, and a run folder is never mixed up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn_toy import ToyEnv, toy_vector

from envs.errors import UserError
from sea_dbs import checkpoint
from sea_dbs.config import EVOLUTION_KEYS, TrainConfig, load_config
from sea_dbs.controllers import TorchPolicy
from sea_dbs.files import read_json, sha256_file, sha256_json
from sea_dbs.runlog import METRICS, drop_after, read_metrics
from sea_dbs.train import train
from sea_dbs.trainer import Trainer

TESTS = Path(__file__).parent
SMALL = [
    "n_obs=50",
    "slots=10",
    "stim_hz=10",
    "stride_ms=20",
    "episode_steps=6",
    "hidden=16",
    "batch_size=8",
    "episodes=10",
    "n_envs=4",
    "warmup_steps=16",
    "checkpoint_steps=12",
]


def _train(run: Path, *settings: str, **options: Any) -> None:
    train(load_config("paper", [*SMALL, *settings]), run, quiet=True, env_factory=toy_vector, **options)


def _content(run: Path) -> dict[str, Any]:
    """What two equal runs share; the manifest's wall time and TensorBoard's clock are not part of it."""
    return {
        "policy": sha256_file(run / checkpoint.POLICY),
        "metrics": (run / METRICS).read_text(),
        "config": (run / "config.yaml").read_text(),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    _train(run)
    return run


def test_a_run_folder_holds_what_its_readers_expect(undisturbed: Path) -> None:
    lines = read_metrics(undisturbed)
    assert [line["step"] for line in lines] == list(range(1, 61))
    # Ten episodes in four environments: rounds of 4, 4 and 2.
    assert {line["episode"] for line in lines} == set(range(10))
    assert all(line["env"] == line["episode"] % 4 for line in lines)
    assert all(
        sorted(one["episode_step"] for one in lines if one["episode"] == e) == list(range(1, 7)) for e in range(10)
    )
    assert {line["loss_critic"] is None for line in lines if line["step"] <= 16} == {True}
    assert {line["loss_critic"] is None for line in lines if line["step"] > 16} == {False}
    manifest = read_json(undisturbed / "manifest.json")
    assert manifest["finished"] is True
    assert manifest["env_steps"] == 60
    assert manifest["policy_sha256"] == sha256_file(undisturbed / checkpoint.POLICY)
    assert list((undisturbed / "tensorboard").iterdir())
    policy = TorchPolicy.load(undisturbed)
    assert (policy.n_obs, policy.slots, policy.spec["step"]) == (50, 10, 60)
    torch.load(undisturbed / checkpoint.CHECKPOINT, weights_only=True)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(undisturbed: Path, tmp_path: Path) -> None:
    _train(tmp_path / "same")
    _train(tmp_path / "other", "seed=1")
    assert _content(tmp_path / "same") == _content(undisturbed)
    assert _content(tmp_path / "other")["policy"] != _content(undisturbed)["policy"]


def test_how_often_a_checkpoint_is_written_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    _train(tmp_path / "run", "checkpoint_steps=1000")
    assert _content(tmp_path / "run")["metrics"] == _content(undisturbed)["metrics"]
    weights = [checkpoint.load(run / checkpoint.POLICY)["weights"] for run in (undisturbed, tmp_path / "run")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_updates_may_come_every_few_steps(tmp_path: Path) -> None:
    """Every fifth environment step, across lanes and rounds; a run that was stopped goes on as if it had not been."""
    _train(tmp_path / "run", "steps_per_update=5")
    lines = read_metrics(tmp_path / "run")
    lockstep = [
        {line["step"] for line in lines if (line["episode"] // 4, line["episode_step"]) == key}
        for key in sorted({(line["episode"] // 4, line["episode_step"]) for line in lines})
    ]
    updated = {line["step"] for line in lines if line["loss_critic"] is not None}
    assert updated == set().union(*(steps for steps in lockstep if any(s > 16 and s % 5 == 0 for s in steps)))
    assert 0 < len(updated) < 44

    class Stopping(ToyEnv):
        def step(self, action: Any) -> Any:
            if (tmp_path / "cut" / checkpoint.CHECKPOINT).exists():
                raise StoppedError
            return super().step(action)

    config = load_config("paper", [*SMALL, "steps_per_update=5"])
    with pytest.raises(StoppedError):
        train(config, tmp_path / "cut", quiet=True, env_factory=partial(toy_vector, kind=Stopping))
    _train(tmp_path / "cut", "steps_per_update=5", resume=True)
    assert _content(tmp_path / "cut") == _content(tmp_path / "run")


def test_a_key_of_today_leaves_runs_of_before_theirs() -> None:
    """`steps_per_update` at 1 and the straight-through gradient are what was always done: equal hash; else another."""
    config = load_config("paper")
    with_key = config.model_dump(mode="json")
    assert (with_key.pop("steps_per_update"), with_key.pop("gap_slots")) == (1, 1)
    assert with_key.pop("actor_gradient") == "straight-through"
    assert config.sha256() == sha256_json({key: value for key, value in with_key.items() if key not in EVOLUTION_KEYS})
    assert load_config("paper", ["steps_per_update=5"]).sha256() != config.sha256()
    ways = [load_config("efficient-trains", [f"variant={one}"]).sha256() for one in ("trains", "trains-st")]
    assert ways[0] != ways[1]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 12, 16, 17, 24, 30, 48, 59])
def test_an_interrupted_run_goes_on_to_the_same_bytes(undisturbed: Path, tmp_path: Path, stop_after: int) -> None:
    steps = 0

    class Stopping(ToyEnv):
        def step(self, action: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > stop_after:
                raise StoppedError
            return super().step(action)

    config = load_config("paper", SMALL)
    with pytest.raises(StoppedError):
        train(config, tmp_path, quiet=True, env_factory=partial(toy_vector, kind=Stopping))
    assert not (tmp_path / checkpoint.CHECKPOINT).exists() or stop_after >= 12
    _train(tmp_path, resume=True)
    assert _content(tmp_path) == _content(undisturbed)


def test_kill_9_at_any_moment_then_resume_gives_equal_weights(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, str(TESTS / "learn_toy.py"), str(run), "10", *SMALL]
    rng = np.random.default_rng(7)
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        before = _lines(run)
        wanted = before + int(rng.integers(10, 30))  # die within the next few rounds, wherever the process then is
        while process.poll() is None and _lines(run) <= wanted:
            time.sleep(0.002)
        if process.poll() is None:
            time.sleep(float(rng.uniform(0.0, 0.03)))
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
        if process.returncode == 0:
            break
    assert kills >= 2
    assert process.returncode == 0
    assert _content(run) == _content(undisturbed)
    assert not list(run.glob(".*.tmp"))


def test_a_failing_disk_is_said_and_nothing_written_is_lost(undisturbed: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands in for a full disk, which takes a file system of its own."""
    run = tmp_path / "run"
    script = (
        "import resource, runpy, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        f"runpy.run_path({str(TESTS / 'learn_toy.py')!r}, run_name='__main__')"
    )
    calls = 0

    class Stopping(ToyEnv):
        def step(self, action: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 26:
                raise StoppedError
            return super().step(action)

    with pytest.raises(StoppedError):
        train(load_config("paper", SMALL), run, quiet=True, env_factory=partial(toy_vector, kind=Stopping))
    before = sha256_file(run / checkpoint.CHECKPOINT)
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", script, str(run), "0", *SMALL]
    failed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "UserError: cannot write" in failed.stderr.splitlines()[-1], failed.stderr
    assert sha256_file(run / checkpoint.CHECKPOINT) == before
    assert not list(run.glob(".*.tmp"))
    _train(run, resume=True)
    assert _content(run) == _content(undisturbed)


def _lines(run: Path) -> int:
    try:
        return (run / METRICS).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_resuming_a_finished_run_leaves_it_as_it_is(undisturbed: Path) -> None:
    before = _content(undisturbed)
    _train(undisturbed, resume=True)
    assert _content(undisturbed) == before


@pytest.mark.parametrize("resume", [True, False])
def test_other_values_are_refused_by_name(undisturbed: Path, resume: bool) -> None:
    before = _content(undisturbed)
    with pytest.raises(UserError, match=r"other values, seed \(0 there, 3 now\); gamma \(0\.99 there, 0\.5 now\)"):
        _train(undisturbed, "gamma=0.5", "seed=3", resume=resume)
    assert _content(undisturbed) == before


def test_a_used_folder_needs_resume_or_overwrite(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already holds this run: pass --resume"):
        _train(undisturbed)
    with pytest.raises(UserError, match="give one of them"):
        _train(undisturbed, resume=True, overwrite=True)
    (tmp_path / "letter.txt").write_text("mine")
    for resume in (True, False):
        with pytest.raises(UserError, match="not empty"):
            _train(tmp_path, resume=resume)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_overwrite_starts_anew(tmp_path: Path, undisturbed: Path) -> None:
    _train(tmp_path / "run", "seed=5")
    _train(tmp_path / "run", overwrite=True)
    assert _content(tmp_path / "run") == _content(undisturbed)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_truncated_checkpoint_is_refused_and_kept(undisturbed: Path, tmp_path: Path, keep: int) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", METRICS):
        (run / name).write_bytes((undisturbed / name).read_bytes())
    torn = (undisturbed / checkpoint.CHECKPOINT).read_bytes()[:keep]
    (run / checkpoint.CHECKPOINT).write_bytes(torn)
    with pytest.raises(UserError, match=r"checkpoint\.pt is truncated or not a file of this toolkit"):
        _train(run, resume=True)
    assert (run / checkpoint.CHECKPOINT).read_bytes() == torn
    assert (run / METRICS).read_bytes() == (undisturbed / METRICS).read_bytes()


def test_a_checkpoint_of_other_shapes_is_refused_and_kept(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    state = checkpoint.load(run / checkpoint.CHECKPOINT)
    weights = state["learner"]["actor"]
    name = next(iter(weights))
    weights[name] = torch.zeros(3, 5)
    checkpoint.save(run / checkpoint.CHECKPOINT, state)
    before = (run / checkpoint.CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=r"checkpoint\.pt does not fit the networks"):
        _train(run, resume=True)
    assert (run / checkpoint.CHECKPOINT).read_bytes() == before


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"format": 1, "learner": Evil()}, tmp_path / checkpoint.CHECKPOINT)
    with pytest.raises(UserError, match="not a file of this toolkit"):
        checkpoint.load(tmp_path / checkpoint.CHECKPOINT)
    assert not (tmp_path / "evil").exists()


def test_arrays_in_a_checkpoint_come_back_to_the_bit(tmp_path: Path) -> None:
    value = {
        "empty": np.zeros((0, 2), np.int32),
        "half": np.array([[1.5, np.nan], [-0.0, np.inf]]),
        "flags": np.array([True, False]),
        "nested": [(np.int64(3), np.arange(4, dtype=np.uint64)), {"big": 2**127 + 1, "text": "x", "none": None}],
    }
    checkpoint.save(tmp_path / "file.pt", value)
    found = checkpoint.load(tmp_path / "file.pt")
    for key in ("empty", "half", "flags"):
        assert found[key].dtype == value[key].dtype  # type: ignore[union-attr]
        assert found[key].shape == value[key].shape  # type: ignore[union-attr]
        assert found[key].tobytes() == value[key].tobytes()  # type: ignore[union-attr]
    assert found["nested"][0][0] == 3
    assert found["nested"][0][1].tolist() == [0, 1, 2, 3]
    assert found["nested"][1] == {"big": 2**127 + 1, "text": "x", "none": None}


def test_metrics_after_a_checkpoint_and_torn_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_text("".join(json.dumps({"step": k}) + "\n" for k in range(1, 6)) + '{"st')
    drop_after(path, 5)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    drop_after(path, 3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    drop_after(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("actions", ["uniform-duty", "bernoulli"])
def test_the_warm_up_draws_as_configured(actions: str) -> None:
    config = load_config("paper", [f"warmup_actions={actions}", "warmup_hold_steps=3", "warmup_steps=1000"])
    explorer = Trainer(config, toy_vector).explorer
    explorer.init_state(200)
    duties = np.stack([explorer.act(np.full((200, 1000), 0.4, np.float32)).mean(axis=1) for _ in range(3)])
    if actions == "bernoulli":
        assert abs(duties.mean() - 0.5) < 0.01
        assert duties.std() < 0.1
    else:
        assert duties.min() < 0.1
        assert duties.max() > 0.9
        assert np.ptp(duties, axis=0).mean() < 0.2  # held for three decisions


def test_it_learns_to_lower_the_toys_beta(tmp_path: Path) -> None:
    train(load_config("demo", ["episodes=12"]), tmp_path, quiet=True, env_factory=toy_vector)
    lines = read_metrics(tmp_path)
    late = [line for line in lines if line["step"] > 300]
    assert np.mean([line["P_beta"] for line in lines[:160]]) > 390
    assert np.mean([line["P_beta"] for line in late]) < 340


def test_progress_without_a_terminal_is_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config: TrainConfig = load_config("paper", SMALL)
    train(config, tmp_path / "run", env_factory=toy_vector)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("training 60/60  P_beta ")
    assert "reward" in lines[-1]
    assert "duty" in lines[-1]
