"""Training and evaluation on the real network, through the commands that a user types."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from envs.plant import batch
from envs.registration import get_env_state, set_env_state
from sea_dbs import checkpoint
from sea_dbs.cli import main
from sea_dbs.config import load_config
from sea_dbs.controllers import Always, Never, OnOff
from sea_dbs.files import sha256_file
from sea_dbs.rollout import Start, begin, rollout
from sea_dbs.runlog import read_metrics
from sea_dbs.train import make_env, train

ROOT = Path(__file__).parents[1]
SHORT = [
    "episodes=3",
    "n_envs=2",
    "episode_steps=2",
    "warmup_steps=4",
    "batch_size=4",
    "hidden=16",
    "checkpoint_steps=2",
]


def _sea_dbs(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from sea_dbs.cli import main; main()", *map(str, arguments)]


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The command's entry point in this process: its exit code. (A process of its own costs 5 s of imports.)"""
    monkeypatch.setattr(sys, "argv", ["sea-dbs", *map(str, arguments)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, undisturbed."""
    folder = tmp_path_factory.mktemp("real") / "run"
    train(load_config(ROOT / "configs" / "paper.yaml", SHORT), folder, quiet=True)
    return folder


def test_sigkill_then_resume_gives_the_undisturbed_weights(run: Path, tmp_path: Path) -> None:
    command = _sea_dbs("train", "--config", "configs/paper.yaml", *SHORT, "--out", tmp_path / "run", "--resume")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "run" / checkpoint.CHECKPOINT).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)  # after the first checkpoint, in the middle of the first episodes
    process.wait()
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in (checkpoint.POLICY, "metrics.jsonl", "config.yaml"):
        assert sha256_file(tmp_path / "run" / name) == sha256_file(run / name), name
    learnt = [checkpoint.load(folder / checkpoint.CHECKPOINT)["learner"] for folder in (run, tmp_path / "run")]
    for part in ("actor", "critic", "reward_model", "target_actor", "target_critic"):
        assert all((learnt[0][part][key] == learnt[1][part][key]).all() for key in learnt[0][part])


def test_the_run_recorded_plausible_physiology(run: Path) -> None:
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(250 < line["P_beta"] < 700 for line in lines)
    assert all(line["charge_nC_cm2"] == pytest.approx(90.0 * line["pulses"]) for line in lines)
    assert all(line["duty"] == pytest.approx(line["pulses"] / 50) for line in lines)


def test_environments_made_in_threads_share_one_kernel() -> None:
    barrier = threading.Barrier(8)

    def build(_: int) -> object:
        barrier.wait()
        return batch._kernel(3, 10, 10)  # a size that nobody else builds

    with ThreadPoolExecutor(8) as pool:
        assert len({id(kernel) for kernel in pool.map(build, range(8))}) == 1


def test_continuous_stimulation_lowers_beta_on_the_real_network() -> None:
    config = load_config("paper", ["episode_steps=4"])
    environments = [make_env(config) for _ in range(2)]
    beta = {}
    for controller in (Never(50), Always(50)):
        last = list(rollout(environments, controller, 4, [600_001, 600_002]))[-1]
        beta[controller.name] = [info["P_beta"] for info in last.infos]
    assert all(0.5 < always / never < 0.85 for never, always in zip(beta["never"], beta["always"], strict=True))


def test_a_saved_environment_with_its_wrappers_goes_on_bit_for_bit() -> None:
    config = load_config("realtime", ["noise_sd=0.01", "delay_steps=2", "episode_steps=50"])
    one, other = make_env(config), make_env(config)
    start = begin([one], [600_003])
    controller = OnOff(1)
    controller.init_state(1)
    first = list(rollout([one], controller, 5, start=start))[-1]
    begin([other], [600_004])
    set_env_state(other, checkpoint.unpack(checkpoint.pack(get_env_state(one))))
    goes_on = Start(first.next_observation, first.infos)
    rest = [list(rollout([env], Always(1), 5, start=goes_on)) for env in (one, other)]
    for a, b in zip(*rest, strict=True):
        np.testing.assert_array_equal(a.next_observation, b.next_observation)
        assert a.infos == b.infos


def test_the_commands_train_and_evaluate(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "train", "--config", "configs/paper.yaml", *SHORT, "--out", run, "--resume") == 0
    assert f"sea-dbs evaluate {run}" in capsys.readouterr().out
    out = tmp_path / "out"
    names = "never,policy"
    assert _main(monkeypatch, "evaluate", run, "--controllers", names, "--seeds", 2, "--steps", 3, "--out", out) == 0
    assert "policy" in capsys.readouterr().out
    result = json.loads((out / "evaluation.json").read_text())
    assert [row["controller"] for row in result["rows"]] == ["never", "policy", *["policy, silenced"] * 4]
    assert 380 < result["rows"][0]["P_beta_iqm"] < 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "gama=0.9", "--out", "OUT"], "unknown key 'gama'"),
        (["train", "--config", "nowhere.yaml", "--out", "OUT"], "no config file nowhere.yaml"),
        (["train", "episodes=4", "--out", "RUN"], "other values"),
        (["evaluate", "OUT", "--out", "OUT2"], "there is no file"),
        (["evaluate", "RUN", "--controllers", "sometimes", "--out", "OUT"], "unknown controller 'sometimes'"),
        (["evaluate", "RUN", "--out", "RUN"], "not empty"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    places = {"RUN": str(run), "OUT": str(tmp_path / "out"), "OUT2": str(tmp_path / "out2")}
    assert _main(monkeypatch, *(places.get(argument, argument) for argument in arguments)) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert len(errors.strip().splitlines()) == 1
