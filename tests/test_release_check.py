"""The release check itself: real host boards, few and short runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import UserError
from envs.patients import sample_cohort
from export import manifest
from export.chain import Chain
from firmware_bridge.release import gates
from firmware_bridge.release.check import Asked, check
from firmware_bridge.release.plant import SEED, make, settings, without_artefact
from firmware_bridge.release.run import UNTREATED, Job, Work, run
from firmware_bridge.release.verdict import released, sign
from firmware_bridge.security.keys import new_key, read_key
from sea_dbs.files import read_json
from sea_dbs.seeds import BLOCK, HELD_OUT, SEARCH, TRAINING
from tests.release_tools import policy

ALWAYS, NEVER = -5.0, 5.0
SPREAD = np.random.default_rng(0).permutation(np.linspace(0.28, 0.46, 50))


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 Hz, whatever it observes: no therapy that adapts, but nothing that harms."""
    return policy(tmp_path_factory.mktemp("always") / "policy", ALWAYS)


def asked(export: Path, out: Path, **changes: Any) -> Asked:
    return Asked(export, out, **{"patients": 1, "seconds": 2.0, "quiet": True, **changes})


def command(*arguments: str | Path) -> list[str]:
    call = "from sea_dbs.cli import main; main()"
    return [sys.executable, "-c", call, "release", *map(str, arguments)]


def test_killed_it_goes_on_and_what_passes_is_released(
    always: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = tmp_path / "out", (always / "manifest.json").read_bytes()
    new_key(tmp_path / "a.key")
    values = (always, "--key", tmp_path / "a.key", "--out", out, "--patients", "1", "--seconds", "2")
    kept = killed_after_its_first_run(command(*values), out / "runs")
    with pytest.raises(UserError, match="not empty"):
        check(asked(always, out))
    with pytest.raises(UserError, match="made with another seconds"):
        check(asked(always, out, seconds=1.0, resume=True))
    done = subprocess.run(command(*values, "--resume"), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert {name: (out / "runs" / name).stat().st_mtime_ns for name in kept} == kept, "what was run is not run again"
    short = "NOT RELEASED: every gate is passed; 1 patients × 2 s are not enough for a release: 20 × 60 s are."
    assert short in done.stdout
    assert "What was checked is constant stimulation." in done.stdout
    assert (always / "manifest.json").read_bytes() == before, "nothing was signed"
    assert (out / "release.png").read_bytes().startswith(b"\x89PNG")
    report = read_json(out / "release.json")
    assert [gate["passed"] for gate in report["verdict"]["gates"]] == [True] * 5
    nominal, drift = (next(r for r in report["treated"] if r["condition"] == name) for name in ("nominal", "drift"))
    assert (nominal["pulses"], nominal["drift"], drift["drift"]) == (100, "none", "impedance")
    assert nominal["firmware"] == report["verdict"]["firmware"]
    assert len({one["P_beta"] for one in report["treated"]}) > 1, "the conditions are not all the same plant"
    monkeypatch.setattr(gates, "PATIENTS_MIN", 1)  # as if that were enough
    monkeypatch.setattr(gates, "SECONDS_MIN", 2.0)
    verdict = check(asked(always, out, resume=True))["verdict"]
    assert verdict["released"]
    sign(always, verdict, read_key(tmp_path / "a.key"))
    assert released(always, Chain.of_folder(always), read_key(tmp_path / "a.key")).verdict == verdict
    path = out / "runs" / "p000-nominal.json"
    mine, other = path.read_text(), path.with_name("p000-drift.json").read_text()
    for text, said in (
        ("{}", "is no outcome of the run p000-nominal: delete it"),
        ("[]", "is no outcome of the run"),
        (other, "is no outcome of the run"),
        (mine.replace('"toggles": 0', '"toggles": null'), "is no outcome of the run"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot read .*p000-nominal.json"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            check(asked(always, out, resume=True))


def killed_after_its_first_run(call: list[str], runs: Path) -> dict[str, int]:
    """Kill the command at once; the runs that it leaves, with their times. Its workers end by themselves."""
    process = subprocess.Popen(call, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 250
    while not list(runs.glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end, "a worker outlived the check"
        time.sleep(0.02)
    kept = {path.name: path.stat().st_mtime_ns for path in runs.glob("*.json")}
    assert 1 <= len(kept) < 6
    return kept


@pytest.mark.parametrize(
    ("thresholds", "environment", "gate", "condition", "seconds"),
    [
        (ALWAYS, {"slots": 30, "stim_hz": 30.0}, "beta", "nominal", 3.0),  # a regular 30 Hz raises beta
        (np.where(np.arange(50) < 5, ALWAYS, NEVER), {}, "limit cycle", "nominal", 3.0),  # a burst a second
        (SPREAD, {}, "artefact", "artefact", 5.0),  # it answers to what its own pulses leave in the recording
    ],
)
def test_a_policy_that_must_fail_fails(
    thresholds: Any, environment: dict[str, Any], gate: str, condition: str, seconds: float, tmp_path: Path
) -> None:
    work = Work(policy(tmp_path / "policy", thresholds, **environment), 1, seconds, SEED)
    treated, untreated = run(work, Job(0, condition)), run(work, Job(0, UNTREATED))
    judged = gates.judge([treated], {(0, UNTREATED): untreated["P_beta"]})
    assert gate in [one.name for one in judged if not one.passed], judged
    assert {one.name: one.passed for one in judged}["envelope"], "unwise, but the board kept it inside the envelope"


def test_a_run_repeats_itself(always: Path) -> None:
    work = Work(always, 3, 2.0, SEED)
    first, second = (run(work, Job(2, "delay")) for _ in range(2))
    assert {**first, "wall_s": 0} == {**second, "wall_s": 0}
    assert first["patient"] == sample_cohort(20, SEED).patients[2].name, "the same patients, however many are asked for"


def test_its_plants_are_nobody_elses() -> None:
    blocks = [(HELD_OUT, HELD_OUT + BLOCK), (SEARCH, SEARCH + BLOCK)]
    assert all(not low <= SEED < high for low, high in blocks)
    assert SEED + 20 < TRAINING


@pytest.mark.parametrize("obs", ["gpi", "lfp"])
def test_the_artefact_is_in_what_is_seen_and_not_in_what_it_is_compared_with(always: Path, obs: str) -> None:
    described = manifest.load(always)
    described = described.model_copy(update={"environment": {**described.environment, "obs": obs}})
    patient = sample_cohort(1, SEED).patients[0]
    seen, clean, plain = [], [], []
    for condition in ("artefact", "nominal"):
        env, plant = make(settings(described, condition, 0, 2), patient)
        env.reset(seed=1)
        for mask in (np.zeros(50, np.int8), np.tile([1, 0], 25).astype(np.int8)):
            observation = env.step(mask)[0]
        if condition == "artefact":
            seen, clean = observation, without_artefact(plant, patient)
        else:
            plain = without_artefact(plant, patient)
    np.testing.assert_allclose(clean, plain, rtol=1e-6)
    assert np.abs(np.asarray(seen) - clean).max() > 0.01


def test_wrong_input_is_one_sentence(always: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"patients": 0}, "at least 1 patient"),
        ({"seconds": float("nan")}, "nan s"),
        ({"toggles_a_minute": float("inf")}, "a finite rate of 0 or more"),
        ({"export": tmp_path}, "no export folder"),
    ):
        values = {"export": always, "out": tmp_path / "out", "quiet": True, **changes}
        with pytest.raises(UserError, match=said):
            check(Asked(**values))
    assert not os.path.lexists(tmp_path / "out"), "nothing is made before all is looked at"
