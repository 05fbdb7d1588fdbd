"""Sessions on real boards with a key: released, not released, and in shadow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import UserError
from export.chain import Chain
from firmware_bridge.bench import Bench
from firmware_bridge.boards import start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Clamp, State
from firmware_bridge.links import SerialLink
from firmware_bridge.observation import Decided
from firmware_bridge.plan import SessionPlan, prepare
from firmware_bridge.release.check import Asked, check
from firmware_bridge.release.verdict import sign
from firmware_bridge.security.auth import release_tag
from firmware_bridge.security.keys import DeviceKey, new_key, read_key
from firmware_bridge.session import run_session
from firmware_bridge.trace import HELD, trace
from sea_dbs.files import read_json, write_json
from sea_dbs.report.build import build_report
from sea_dbs.report.session_data import read_session
from tests.release_tools import policy
from tests.session_tools import change_recording, run, table_of
from tests.test_release_gates import verdict_on

SPREAD = np.random.default_rng(0).permutation(np.linspace(0.28, 0.46, 50))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose policy answers to what it sees, and a key that has released it."""
    folder = tmp_path_factory.mktemp("release")
    export = policy(folder / "policy", SPREAD)
    sign(export, verdict_on(export), new_key(folder / "a.key"))
    return folder


def plan(folder: Path, out: Path, **changes: Any) -> SessionPlan:
    values = {"policy": folder / "policy" / "export", "key": folder / "a.key", "steps": 2, "seed": 4, "quiet": True}
    return SessionPlan(out=out, **{**values, **changes})


@pytest.mark.parametrize("decide_on", ["host", "board"])
def test_a_released_policy_drives_a_board_with_its_key(folder: Path, tmp_path: Path, decide_on: str) -> None:
    precision = "int8" if decide_on == "host" else None
    summary = run_session(plan(folder, tmp_path / "out", decide_on=decide_on, precision=precision))
    assert summary["pulses"] > 0
    assert summary["mode"].startswith("release mode: released on 2026-01-01 after 20 patients × 4 conditions × 60 s")
    assert summary["release"]["key"] == read_key(folder / "a.key").fingerprint
    assert [row["text"] for row in table_of(tmp_path / "out", "events") if row["kind"] == "armed"] == [summary["mode"]]
    (row,) = (row for row in trace(tmp_path / "out").rows if row.link == "release")
    assert (row.verdict, row.sha256) == (HELD, summary["release"]["verdict_sha256"])
    if decide_on == "board":
        change_recording(
            tmp_path / "out" / "session.sqlite", "UPDATE session SET release = replace(release, '60.0', '6.0')"
        )
        assert "verdict was changed" in str(trace(tmp_path / "out").broken)


def test_without_its_release_a_policy_drives_no_board_with_a_key(folder: Path, tmp_path: Path) -> None:
    export = folder / "policy" / "export"
    good = read_json(export / "manifest.json")
    new_key(tmp_path / "other.key")
    try:
        write_json(export / "manifest.json", {key: good[key] for key in good if key != "release"})
        done = run("--policy", export, "--key", folder / "a.key", "--out", tmp_path / "out", "--decide-on", "board")
        assert done.returncode == 2
        assert "has no release verdict, so it may not drive a board with a key: run 'sea-dbs release" in done.stderr
        assert done.stderr.count("\n") == 1
        write_json(export / "manifest.json", {**good, "release": {**good["release"], "tag": "00" * 32}})
        with pytest.raises(UserError, match="its tag is not one of the key"):
            prepare(plan(folder, tmp_path / "out", precision="int8"))
    finally:
        write_json(export / "manifest.json", good)
    for changes, said in (
        ({"key": tmp_path / "other.key", "precision": "int8"}, "the key .* signed it, this board's is"),
        ({}, "one of its int8 policy, not of fp16"),
    ):
        with pytest.raises(UserError, match=said):
            prepare(plan(folder, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_the_board_itself_takes_only_the_verdict_that_its_key_signed(folder: Path, tmp_path: Path) -> None:
    export, key = folder / "policy" / "export", read_key(folder / "a.key")
    model, verdict = Chain.of_folder(export).model_hash, bytes(range(32))
    good = release_tag(key, model, verdict)
    other = release_tag(DeviceKey(bytes(32)), model, verdict)
    wrong = (
        (bytes(32), bytes(32)),
        (verdict, other),
        (bytes(32), good),
        (verdict, release_tag(key, bytes(32), verdict)),
        (verdict, good[:31] + bytes([good[31] ^ 1])),
    )
    with (
        start_board("host", policy_dir=export, key_file=folder / "a.key") as board,
        Bench(board.electrode) as bench,
        BoardClient(SerialLink(board.port), key=key) as client,
    ):
        for verdict_hash, tag in wrong:
            client.hello(model)
            with pytest.raises(UserError, match="no release verdict for this model, signed with this board's key"):
                client.arm(verdict_hash, tag)
            bench.advance(bench.now_us + 1000)
            assert bench.state is State.IDLE
        client.hello(model)
        client.arm(verdict, good)
        bench.advance(bench.now_us + 1000)
        assert bench.state is State.ARMED


def test_the_same_policy_in_another_format_is_not_what_was_released(tmp_path: Path) -> None:
    export, key_file = policy(tmp_path / "policy", SPREAD), tmp_path / "a.key"
    sign(export, verdict_on(export), new_key(key_file))
    with start_board("host", policy_dir=export, format="fp32", key_file=key_file) as board:
        asked = SessionPlan(
            tmp_path / "out", export, port=board.port, key=key_file, decide_on="board", steps=3, seed=4, quiet=True
        )
        with pytest.raises(UserError, match=r"refused ARM: no release verdict for this model"):
            run_session(asked)
    assert table_of(tmp_path / "out", "pulses") == []


def test_on_an_emulated_board_the_host_decides_in_the_precision_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    parts = prepare(plan(folder, tmp_path / "out", board="qemu-m4f", precision="int8"))
    assert parts.controller.name == "policy-int8"
    assert parts.permit.mode.startswith("release mode")
    assert parts.board_format == "int8"


def test_no_folder_that_is_read_is_emptied(folder: Path, tmp_path: Path) -> None:
    export = folder / "policy" / "export"
    for out in (export, folder / "policy"):
        with pytest.raises(UserError, match=r"--overwrite would delete .*export, which is read"):
            run_session(plan(folder, out, shadow="on-off", overwrite=True))
        with pytest.raises(UserError, match=r"--overwrite would delete .*export, which is read"):
            check(Asked(export, out, patients=1, seconds=1.0, overwrite=True, quiet=True))
    with pytest.raises(UserError, match=r"--overwrite would delete .*a\.key, which is read"):
        run_session(SessionPlan(folder, controller="never", key=folder / "a.key", overwrite=True, quiet=True))
    assert (export / "manifest.json").is_file()


def test_in_shadow_the_board_applies_nothing_that_its_policy_says(folder: Path) -> None:
    export, key = folder / "policy" / "export", read_key(folder / "a.key")
    with (
        start_board("host", policy_dir=export, key_file=folder / "a.key") as board,
        Bench(board.electrode) as bench,
        BoardClient(SerialLink(board.port), key=key) as client,
    ):
        client.hello(Chain.of_folder(export).model_hash, shadow=True)
        client.arm()  # no release is asked for
        values = np.linspace(90, 120, 1000).astype(np.int8)
        for number in range(1, 4):
            answer = client.observe(number, values, 0)
            assert isinstance(answer, Decided)
            assert answer.nack is None
            assert answer.decision.clamp & Clamp.SHADOW
            assert sum(answer.mask) > 0, "it would stimulate"
            assert bench.advance(bench.now_us + 1_000_000) == []
        assert bench.state is State.ARMED


@pytest.mark.parametrize("decide_on", ["host", "board"])
def test_in_shadow_only_the_controller_moves_the_electrode(folder: Path, tmp_path: Path, decide_on: str) -> None:
    shadow, alone = tmp_path / "shadow", tmp_path / "alone"
    summary = run_session(plan(folder, shadow, shadow="on-off", decide_on=decide_on, steps=3))
    run_session(plan(folder, alone, controller="on-off", steps=3))
    assert table_of(shadow, "pulses") == table_of(alone, "pulses"), "as if the policy were not there"
    rows = table_of(shadow, "decisions")
    assert summary["mode"].startswith("shadow mode, signed session: on-off drives, the policy decides and nothing")
    assert summary["safety"]["violations"] == 0
    found = summary["shadow"]
    assert [row["shadow_reason"] for row in rows] == [f"decided by the {decide_on}, not applied"] * 3
    both = [(a, b) for row in rows for a, b in zip(row["mask"], row["shadow_mask"], strict=True)]
    assert found["agreement"] == pytest.approx(sum(a == b for a, b in both) / len(both))
    assert found["duty_of_the_policy"] == pytest.approx(sum(b == "1" for _, b in both) / len(both))
    assert 0.0 < found["agreement"] < 1.0
    assert found["pulses_of_the_policy"] > 0
    if decide_on == "board":
        assert found["logits_that_differ"] == 0, "recorded is what the board decided, bit by bit as the reference"
        assert all(len(row["shadow_logits_int32"]) == 50 * 2 * 4 for row in rows)


def test_without_a_key_everything_says_bench_mode(folder: Path, tmp_path: Path) -> None:
    plain = plan(folder, tmp_path / "out", key=None, shadow="pi", steps=2)
    summary = run_session(plain)
    assert summary["mode"].startswith("shadow mode, bench mode: simulated electrode only: pi drives")
    assert read_session(tmp_path / "out" / "session.sqlite").session["shadow"] == "policy-onnx-fp16"
    page = build_report(tmp_path, simulate_missing=False).read_text()
    assert "in shadow: policy-onnx-fp16 would have given" in page
    assert "bench mode: simulated electrode only" in page
    without = prepare(plan(folder, tmp_path / "other", key=None))
    assert without.permit.mode == "bench mode: simulated electrode only; research use only"
    assert without.permit.release is None


def test_options_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"policy": None}, "--shadow on-off needs --policy"),
        ({"controller": "pi"}, "names the controller that drives, so --controller pi cannot be given"),
    ):
        with pytest.raises(UserError, match=said):
            prepare(plan(folder, tmp_path / "out", shadow="on-off", **changes))
    with pytest.raises(UserError, match="unknown controller 'policy'"):
        prepare(plan(folder, tmp_path / "out", shadow="policy"))
