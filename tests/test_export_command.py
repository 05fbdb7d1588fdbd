"""``sea-dbs export`` as a user runs it, on the real network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.policy import OnnxPolicy
from sea_dbs.cli import main
from sea_dbs.config import load_config
from sea_dbs.rollout import rollout
from sea_dbs.train import make_env, train

CONFIG = load_config("realtime", ["episodes=1", "n_envs=1", "episode_steps=40", "warmup_steps=40"])


def sea_dbs(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sea_dbs.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(CONFIG, folder, quiet=True)
    return folder


def test_export_of_a_real_run_closes_the_loop(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = sea_dbs("export", run, "--out", out, "--seconds", 0.2)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "fp16" in done.stdout
    table = json.loads((out / "parity.json").read_text())
    assert table["observations"]["count"] == 80  # 8 plants × 10 decisions of 20 ms
    assert {row["observations"] for row in table["rows"]} == {80}
    observations = np.load(out / "observations.npz")["observation"]
    assert observations.shape == (80, 50)
    assert 0.1 < observations.mean() < 0.9
    policy = OnnxPolicy(out)
    step = next(rollout([make_env(CONFIG)], policy, 1, [7]))
    assert step.action.shape == (1, 1)
    # The folder is in use now: refused, and nothing in it lost.
    before = (out / "manifest.json").read_bytes()
    again = sea_dbs("export", run, "--out", out)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "--overwrite" in again.stderr
    assert (out / "manifest.json").read_bytes() == before


def test_a_wrong_run_is_one_sentence(run: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "run"
    truncated.mkdir()
    (truncated / "policy.pt").write_bytes((run / "policy.pt").read_bytes()[:3000])
    for folder in (truncated, tmp_path / "nowhere"):
        done = sea_dbs("export", folder, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert done.stderr.startswith("sea-dbs: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precisions", "fp32,int4"], "unknown precision 'int4'"),
        (["--targets", "c,m3"], "unknown target 'm3'"),
        (["--precisions", "fp32", "--targets", "c"], "needs the precision int8"),
        (["--onnx", "policy.onnx"], "--onnx FILE with --manifest FILE"),
        (["--closed-loop-seeds", "-1"], "--closed-loop-seeds is -1"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sea-dbs", "export", str(tmp_path), "--out", str(tmp_path / "out"), *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
