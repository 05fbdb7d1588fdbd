"""The command line as a whole: help, lazy imports, exit codes; and the package as it is shipped."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sea_dbs.cli.app import COMMANDS, app

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "numpy", "numba", "gymnasium", "scipy", "onnx", "onnxruntime", "matplotlib", "pydantic", "serial")


def _run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from sea_dbs.cli import main; main()", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, sea_dbs.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [name.replace("_", "-") for name in COMMANDS])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    text = " ".join(result.output.split()).replace("Examples:", "Example:")
    assert f"Example: sea-dbs {command}" in text


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"`sea-dbs {name.replace('_', '-')}" in readme for name in COMMANDS)
    for line in ("make demo", "make test", "Research use only"):
        assert line in readme


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("simulate", "--condition", "pk", "--out", "x"), "unknown condition 'pk'"),
        (("simulate", "--stim-hz", "300", "--out", "x"), "300 Hz: allowed are 0 (none) to 185 Hz"),
        (("simulate", "--seconds", "-1", "--out", "x"), "--seconds is -1"),
        (("simulate", "--seconds", "nan", "--out", "x"), "--seconds is nan"),
        (
            ("session", "--controller", "never", "--realtime", "--latency-ms", "nan", "--out", "x"),
            "--latency-ms is nan",
        ),
        (("simulate", "--dt-ms", "0.5", "--out", "x"), "dt_ms"),
        (("verify-plant", "nowhere"), "there is no folder nowhere"),
        (("train", "--config", "nowhere.yaml", "--out", "x"), "nowhere.yaml"),
        (("train", "--config", "demo", "gama=0.9", "--out", "x"), "nearest valid key is 'gamma'"),
        (("train", "--config", "demo", "gamma=1.5", "--out", "x"), "gamma"),
        (("evaluate", "nowhere", "--out", "x"), "nowhere"),
        (("export", "nowhere", "--out", "x"), "nowhere"),
        (("session", "--policy", "nowhere", "--port", "/dev/nowhere", "--out", "x"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("board", "host", "--policy", "nowhere"), "nowhere"),
        (("demo", "--config", "demo", "episodes=-1", "--out", "x"), "episodes"),
        (("evaluate", "nowhere", "--controllers", ",", "--out", "x"), "--controllers names none"),
        (("foresight", "--rate", "200", "--out", "x"), "--rate is 200: from 2 to 130 are allowed"),
        (("foresight", "--segment-ms", "20.13", "--out", "x"), "--segment-ms is 20.13: a multiple of 0.02"),
        (("session",), "missing option '--out': see 'sea-dbs session --help'"),
        (("session", "--out", "x", "--steps", "a"), "invalid value for '--steps'"),
        (("train", "--nope"), "no such option: --nope: see 'sea-dbs train --help'"),
        (("trian",), "no such command 'trian'"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = _run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "x").exists()


def test_simulate_writes_what_it_says_and_refuses_to_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "sim"
    arguments = ("simulate", "--condition", "pd", "--stim-hz", "130", "--seconds", "0.5", "--out", str(out))
    assert _run(*arguments).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"simulation.npz", "summary.json", "simulation.png"}
    summary = json.loads(before["summary.json"])
    assert summary["rates_hz"]["stn"] == pytest.approx(130.0, abs=4.0)
    with np.load(out / "simulation.npz") as data:
        assert len(data["spk_stn"]) == round(summary["rates_hz"]["stn"] * 10 * 0.5)
    refused = _run(*arguments)
    assert refused.returncode == 2
    assert "not empty" in refused.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert _run(*arguments, "--overwrite").returncode == 0
    assert (out / "summary.json").read_bytes() == before["summary.json"]  # the same seed, the same run


def test_doctor_finds_what_it_needs_here() -> None:
    done = _run("doctor")
    assert done.returncode == 0, done.stdout
    for part in ("Python", "C compiler", "pseudo-terminals", "serial ports", "torch"):
        assert part in done.stdout


def test_doctor_says_what_to_do_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "apt-get install gcc libc6-dev" in result.output


def test_the_import_names_are_this_distribution() -> None:
    """A package of the same name elsewhere on the path would be imported in place of ours."""
    for name in ("envs", "sea_dbs", "export", "firmware_bridge"):
        module = __import__(name)
        assert Path(str(module.__file__)).is_relative_to(ROOT)
        assert set(packages_distributions().get(name, ["sea-dbs"])) == {"sea-dbs"}


def test_the_wheel_ships_presets_firmware_and_types(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "sea_dbs/presets/paper.yaml",
        "sea_dbs/report/report.html.j2",
        "firmware_bridge/firmware/core/sea_core.c",
        "firmware_bridge/firmware/core/sea_messages.h",
        "firmware_bridge/firmware/ports/host/main.c",
        *(f"{package}/py.typed" for package in ("envs", "sea_dbs", "export", "firmware_bridge")),
    ):
        assert wanted in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "out/"))]


def test_locked_versions_hold_no_address_and_pin_torch() -> None:
    lock = (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in lock
    assert "://" not in lock
    assert all("==" in line for line in lock.splitlines() if line and not line.startswith("#"))
