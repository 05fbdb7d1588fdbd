"""Whole sessions: equal records, STOP whatever happens, every bad input one sentence."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from session_tools import LONG, command, electrode_log, make_export, repeatable, run, table_of

from envs.errors import UserError
from export.chain import Chain
from firmware_bridge.audit import audit
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import State
from firmware_bridge.links import SerialLink
from firmware_bridge.plan import SessionPlan, prepare
from firmware_bridge.session import run_parts, run_session
from firmware_bridge.summary import summarise
from sea_dbs.controllers import RandomDuty
from sea_dbs.report.session_data import read_session

START_S = 150.0  # s in which a process has compiled the plant, on a busy machine
BENCH = "bench mode: simulated electrode only; research use only"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("policy") / "export")


@pytest.fixture(scope="module")
def finished(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of five decisions with the exported policy, on a board of its own."""
    out = tmp_path_factory.mktemp("session") / "out"
    run_session(SessionPlan(out=out, policy=export, steps=5, seed=4, quiet=True))
    return out


def state_of(board: HostBoard) -> State:
    """The board's state, as a stranger sees it."""
    with Bench(board.electrode, stepped=False) as bench:
        bench.advance(bench.now_us + 1)
        return bench.state


# -- what a session leaves -----------------------------------------------------------------------------------------


def test_every_decision_says_why(finished: Path, export: Path) -> None:
    session = table_of(finished, "session")[0]
    decisions = table_of(finished, "decisions")
    assert session["outcome"] == "finished"
    assert session["mode"] == BENCH
    assert len(decisions) == 5
    weights = json.loads((export / "manifest.json").read_text())["hashes"]
    hashes = json.loads(session["hashes"])
    assert {name: hashes[name] for name in weights} == weights
    assert hashes["board_model"] == hashes["model"] == Chain.of_folder(export).model_hash.hex()
    assert {"schema", "limits", "firmware", "env"} <= set(hashes)
    for row in decisions:
        logits = np.frombuffer(row["logits"], "<f4").reshape(10, 2)
        assert row["mask"] == "".join("1" if b > a else "0" for a, b in logits)
        assert row["applied_mask"] == row["mask"]
        assert (row["applied_amplitude_uA"], row["applied_width_us"]) == (3000, 60)
        assert row["reason"] == "as decided"
        assert row["pulses"] == row["mask"].count("1")
        assert row["sample_us"] == row["plant_us"] + session["offset_us"] == row["start_us"]
    assert 0 < sum(row["pulses"] for row in decisions) < 50


def test_summary_is_what_the_record_says(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    decisions, pulses = table_of(finished, "decisions"), table_of(finished, "pulses")
    assert summary == summarise(finished / "session.sqlite")
    assert summary["mode"] == BENCH
    assert summary["P_beta"]["last"] == decisions[-1]["P_beta"]
    assert summary["P_beta"]["first"] == pytest.approx(
        1000 * np.frombuffer(decisions[0]["observation"], "<f4").mean(), rel=1e-5
    )
    assert summary["pulses"] == len(pulses)
    assert summary["duty"] == pytest.approx(len(pulses) / 50)
    assert summary["charge_uC"] == pytest.approx(0.18 * len(pulses))
    assert summary["charge_nC_cm2"] == pytest.approx(90.0 * len(pulses))
    assert summary["charge_percent_of_continuous_130_Hz"] == pytest.approx(100 * len(pulses) / 130)  # 1 s
    assert summary["safety"]["violations"] == 0
    assert summary["safety"]["largest_residual_pC"] == 0
    assert summary["latency_us"]["sample_to_pulse"]["max"] == 0  # lockstep
    assert summary["latency_us"]["host_decision"]["p99"] > 0
    picture = (finished / "session.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_beta_trace_is_gapless(finished: Path) -> None:
    times, beta = read_session(finished / "session.sqlite").beta_trace()
    assert len(times) == 10 + 5 * 10  # first observation, then ten windows a decision
    assert np.allclose(np.diff(times), 0.02)
    assert times[-1] == pytest.approx(1.0)
    assert np.isfinite(beta).all()


def test_two_sessions_record_the_same(finished: Path, export: Path, tmp_path: Path) -> None:
    """Another process, its own board, the same seed: equal to the byte, but for wall-clock times."""
    done = run("--policy", export, "--steps", "5", "--seed", "4", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert BENCH in done.stdout
    assert BENCH in done.stderr
    assert repeatable(tmp_path / "again") == repeatable(finished)
    other = SessionPlan(out=tmp_path / "other", policy=export, steps=5, seed=5, quiet=True)
    run_session(other)
    assert repeatable(tmp_path / "other")["decisions"] != repeatable(finished)["decisions"]


def test_a_baseline_needs_no_policy(tmp_path: Path) -> None:
    plan = SessionPlan(out=tmp_path / "out", controller="periodic", hz=10.0, preset="realtime", steps=20, quiet=True)
    assert run_session(plan)["pulses"] == 4
    assert all(row["logits"] is None for row in table_of(tmp_path / "out", "decisions"))


def test_a_board_is_used_again(export: Path, tmp_path: Path) -> None:
    with HostBoard(model_hash=Chain.of_folder(export).model_hash) as board:
        for name in ("one", "two"):
            plan = SessionPlan(out=tmp_path / name, policy=export, port=board.port, steps=2, seed=4, quiet=True)
            assert run_session(plan)["outcome"] == "finished"
        assert state_of(board) is State.IDLE
    first, second = table_of(tmp_path / "one", "decisions"), table_of(tmp_path / "two", "decisions")
    assert [row["observation"] for row in first] == [row["observation"] for row in second]
    assert table_of(tmp_path / "two", "session")[0]["offset_us"] > 400_000  # another device time, the same plant


# -- however it ends, STOP -----------------------------------------------------------------------------------------


class Breaks:
    """A controller that does something at its third decision."""

    name = "breaks"

    def __init__(self, what: Any) -> None:
        self.what, self.count = what, 0

    def init_state(self, n: int = 1) -> None:
        del n

    def act(self, observation: Any) -> Any:
        del observation
        self.count += 1
        if self.count == 3:
            self.what()
        return np.ones((1, 10), np.int8)


class Blind(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Sensing that fails after two steps."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.count = 0

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        self.count += 1
        return (observation * np.float32(np.nan) if self.count == 2 else observation), *rest


@contextmanager
def broken_session(tmp_path: Path, export: Path) -> Iterator[tuple[HostBoard, SessionPlan]]:
    with HostBoard(electrode_log=tmp_path / "electrode.log") as board:
        yield board, SessionPlan(out=tmp_path / "out", policy=export, port=board.port, steps=5, quiet=True)
        ends = [line for line in electrode_log(tmp_path / "electrode.log") if line.get("state") == "IDLE"]
        assert ends[-1]["cause"] == "STOPPED"
        assert state_of(board) is State.IDLE


def test_nan_is_never_decided_on(export: Path, tmp_path: Path) -> None:
    with broken_session(tmp_path, export) as (_, plan):
        parts = prepare(plan)
        with pytest.raises(UserError, match=r"nan .*finite"):
            run_parts(plan, replace(parts, env=Blind(parts.env)))
    assert len(table_of(tmp_path / "out", "decisions")) == 2
    assert "finite" in table_of(tmp_path / "out", "session")[0]["outcome"]
    assert summarise(tmp_path / "out" / "session.sqlite")["decisions"] == 2


def test_a_program_error_stops_too(export: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    with broken_session(tmp_path, export) as (_, plan), pytest.raises(ZeroDivisionError):
        run_parts(plan, replace(prepare(plan), controller=Breaks(fail)))
    assert table_of(tmp_path / "out", "session")[0]["outcome"] == "a bug"


def test_a_full_disk_stops_and_keeps_what_was_flushed(export: Path, tmp_path: Path) -> None:
    """The limit on the size of files makes the kernel refuse the next page, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        largest = max(path.stat().st_size for path in (tmp_path / "out").iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))

    try:
        with broken_session(tmp_path, export) as (_, plan), pytest.raises(UserError, match=r"disk.*stays readable"):
            run_parts(plan, replace(prepare(plan), controller=Breaks(fill)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = table_of(tmp_path / "out", "decisions")
    assert len(kept) == 2
    assert all(row["P_beta"] is not None for row in kept)
    assert len(table_of(tmp_path / "out", "pulses")) == 20


def test_a_board_that_dies_is_one_sentence(export: Path, tmp_path: Path) -> None:
    with HostBoard() as board:
        plan = SessionPlan(out=tmp_path / "out", policy=export, port=board.port, steps=5, quiet=True)
        with pytest.raises(UserError, match=r"went away.*; STOP was not acknowledged$") as caught:
            run_parts(plan, replace(prepare(plan), controller=Breaks(board.process.kill)))
        assert str(caught.value).count("went away") == 1
    assert len(table_of(tmp_path / "out", "decisions")) == 2


def test_sigterm_stops(export: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with broken_session(tmp_path, export) as (_, plan), pytest.raises(KeyboardInterrupt):
        run_parts(plan, replace(prepare(plan), controller=Breaks(lambda: os.kill(os.getpid(), signal.SIGTERM))))
    assert table_of(tmp_path / "out", "session")[0]["outcome"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_ctrl_c_stops(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export", LONG)
    with HostBoard(electrode_log=tmp_path / "electrode.log") as board:
        session = start(export, board, tmp_path / "out", "--steps", "1000")
        wait_for(tmp_path / "out", 2)
        session.send_signal(signal.SIGINT)
        _, error = session.communicate(timeout=60)
        assert session.returncode == 130, error
        assert "Traceback" not in error
        assert state_of(board) is State.IDLE
    assert table_of(tmp_path / "out", "session")[0]["outcome"] == "interrupted"
    events = [(row["kind"], row["text"]) for row in table_of(tmp_path / "out", "events")]
    assert events[-2:] == [("stop", "STOP was acknowledged"), ("state", "IDLE: a STOP came")]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["outcome"] == "interrupted"
    assert summary["safety"]["violations"] == 0


# -- the host is killed --------------------------------------------------------------------------------------------


def start(export: Path, board: HostBoard, out: Path, *more: str) -> subprocess.Popen[str]:
    arguments = command("--policy", export, "--port", board.port, "--out", out, "--controller", "always", *more)
    # A shell starts what is in the background deaf to Ctrl-C, and so would be the tests in it.
    return subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(out: Path, decisions: int) -> None:
    """Until so many decisions stand in the record, which is read while it is written."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if (out / "session.sqlite").exists():
            try:
                count = len(table_of(out, "decisions"))
            except UserError:
                count = 0  # the file is being made
            if count >= decisions:
                return
        time.sleep(0.01)
    raise AssertionError(f"no {decisions} decisions within {START_S:g} s")


@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_a_killed_host_gives_no_pulse_after_its_lease(tmp_path: Path, mode: str) -> None:
    """SIGKILL at the beginning of a decision of 200 pulses (4 s); judged in device time, from the board's own trace."""
    export = make_export(tmp_path / "export", {**LONG, "slots": 200, "n_obs": 200, "settle_ms": 4_400.0})
    log = tmp_path / "electrode.log"
    with HostBoard(electrode_log=log) as board:
        more = ("--steps", "1000", *(("--realtime",) if mode == "realtime" else ()))
        session = start(export, board, tmp_path / "out", *more)
        wait_for(tmp_path / "out", 2)
        if mode == "realtime":
            time.sleep(0.5)
        os.kill(session.pid, signal.SIGKILL)
        session.communicate(timeout=30)
        end = time.monotonic() + 10
        while electrode_log(log)[-1].get("state") != "FALLBACK" and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)  # were there a pulse after the lease, it would have come by now
        lines = electrode_log(log)
        with BoardClient(SerialLink(board.port)) as client:
            assert client.hello().refusal == 0  # a fresh handshake is welcome again
    pulses = [line["t_us"] for line in lines if "pulse" in line]
    # orders and renewals that the board took; those of the prelude buy a second
    leases = [line for line in lines if line.get("lease_until_us")]
    contacts = [line for line in leases if line["lease_until_us"] - line["t_us"] in (300_000, 1_000_000)]
    fallback = [line for line in lines if line.get("state") == "FALLBACK"][-1]
    last_contact_us = contacts[-1]["t_us"]
    assert contacts[-1]["lease_until_us"] == last_contact_us + 300_000
    assert fallback["cause"] == "LEASE_ENDED"
    assert max(pulses[-1], fallback["t_us"]) <= last_contact_us + 300_000 + 20_000
    assert lines.index(fallback) > max(i for i, line in enumerate(lines) if "pulse" in line)
    decision = table_of(tmp_path / "out", "decisions")[1]
    assert decision["P_beta"] is None  # it was under way
    assert pulses[-1] < decision["start_us"] + 190 * 20_000  # more was ordered: it was the lease that ended it
    summary = summarise(tmp_path / "out" / "session.sqlite")
    assert summary["outcome"].startswith("the host died")
    assert summary["safety"]["violations"] == 0
    if mode == "realtime":  # device time is wall time: all that the host sent is there, but for the last second
        sent = {row["device_us"] for row in table_of(tmp_path / "out", "events") if row["kind"] in ("renew", "prelude")}
        sent |= {row["ack_us"] for row in table_of(tmp_path / "out", "decisions")}
        old = [line["t_us"] for line in contacts if line["t_us"] < contacts[-2]["t_us"] - 1_000_000]
        assert len(old) > 10
        assert set(old) <= sent


# -- real time -----------------------------------------------------------------------------------------------------


def test_realtime_keeps_its_latency(tmp_path: Path) -> None:
    """Pulses come a fixed time after the sample that they were decided on; what is late is counted, not hidden."""
    export = make_export(tmp_path / "export", LONG)
    plan = SessionPlan(out=tmp_path / "out", policy=export, steps=2, realtime=True, latency_ms=400.0, quiet=True)
    parts = replace(prepare(plan), controller=RandomDuty(50, 0.5, seed=1))
    began = time.monotonic()
    summary = run_parts(plan, parts)
    assert time.monotonic() - began > 2.0  # it cannot be faster than the clock on the wall
    assert summary["clock"] == "realtime"
    assert summary["safety"]["violations"] == 0
    if summary["deadline_misses"] == 0:
        assert 400_000 <= summary["latency_us"]["sample_to_pulse"]["p50"] < 410_000
    for row in table_of(tmp_path / "out", "decisions"):
        assert row["start_us"] - row["sample_us"] == 400_000


def test_a_late_host_is_counted(export: Path, tmp_path: Path) -> None:
    """It thinks longer than the lease: the board falls back, and a fresh handshake resumes."""
    plan = SessionPlan(out=tmp_path / "out", policy=export, steps=4, realtime=True, quiet=True)
    slow = Breaks(lambda: time.sleep(0.8))
    summary = run_parts(plan, replace(prepare(plan), controller=slow))
    assert summary["decisions"] == 4
    assert summary["deadline_misses"] >= 1
    assert summary["handshakes"] >= 2
    assert summary["safety"]["violations"] == 0
    late = [row for row in table_of(tmp_path / "out", "events") if row["kind"] == "deadline"]
    assert max(row["code"] for row in late) > 500_000


# -- bad input -----------------------------------------------------------------------------------------------------


def refused(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_another_model_is_named(export: Path, tmp_path: Path) -> None:
    other = make_export(tmp_path / "other", seed=1)
    model = Chain.of_folder(export).model_hash
    with HostBoard(model_hash=model) as board:
        sentence = refused("--policy", other, "--port", board.port, "--out", tmp_path / "out")
    assert "model" in sentence
    assert model.hex()[:12] in sentence
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_sentence(export: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "keep.txt").write_text("mine")
    damaged = make_export(tmp_path / "damaged")
    (damaged / "policy_fp16.onnx").write_bytes(b"short")
    plain = tmp_path / "plain.txt"
    plain.write_text("no port")
    out = tmp_path / "out"
    with HostBoard() as board:
        policy = SessionPlan(out=out, policy=export, port=board.port)
        for plan, sentence in (
            (replace(policy, policy=None), "--policy EXPORT_DIR, or --controller"),
            (replace(policy, policy=tmp_path / "none"), "no export folder"),
            (replace(policy, policy=damaged), "link 'onnx': policy_fp16.onnx was changed"),
            (replace(policy, precision="fp32"), "holds no precision 'fp32'"),
            (replace(policy, preset="realtime"), "the preset 'realtime' has"),
            (replace(policy, preset="papr"), "unknown preset 'papr'"),
            (replace(policy, controller="alway"), "unknown controller 'alway'"),
            (replace(policy, controller="pi-amplitude"), "'pi-amplitude' sets amplitudes"),
            (replace(policy, steps=0), "at least 1"),
            (replace(policy, latency_ms=5.0), "belongs to --realtime"),
            (replace(policy, realtime=True, latency_ms=-0.5), "--latency-ms is -0.5"),
            (replace(policy, realtime=True, latency_ms=201.0), "--latency-ms is 201"),
            (replace(policy, port="/dev/ttyNONE"), "no port /dev/ttyNONE"),
            (replace(policy, port=str(plain)), "belongs to no running host board"),
            (replace(policy, electrode=str(plain)), "no electrode channel"),
            (replace(policy, port=None, electrode=board.electrode), "belongs to --port"),
            (replace(policy, out=full), "not empty"),
        ):
            with pytest.raises(UserError, match=sentence):
                run_session(plan)
        assert state_of(board) is State.IDLE
    assert not out.exists()
    assert (full / "keep.txt").read_text() == "mine"


def test_a_busy_board_is_one_sentence(export: Path, tmp_path: Path) -> None:
    with HostBoard() as board, Bench(board.electrode):
        plan = SessionPlan(out=tmp_path / "out", policy=export, port=board.port)
        with pytest.raises(UserError, match="busy"):
            run_session(plan)
    with HostBoard() as board, BoardClient(SerialLink(board.port)) as client:
        client.hello()
        with pytest.raises(UserError, match=f"{board.port} is busy"):
            run_session(replace(plan, port=board.port))


def test_a_board_in_real_time_cannot_be_stepped(export: Path, tmp_path: Path) -> None:
    with HostBoard(realtime=True) as board, pytest.raises(UserError, match="pass --realtime"):
        run_session(SessionPlan(out=tmp_path / "out", policy=export, port=board.port))


# -- the judge can say no ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(finished: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: table_of(finished, name) for name in ("session", "decisions", "pulses", "events")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"amplitude_uA": -5001, "second_amplitude_uA": 5001}, "amplitude of 5001"),
        ({"amplitude_uA": -2999, "second_amplitude_uA": 2999}, "not the applied 3000"),
        ({"second_amplitude_uA": 2999}, "not balanced"),
        ({"residual_pC": 1}, "not balanced"),
        ({"width_us": 50}, "width of 50"),
        ({"decision_id": None}, "ordered by nobody"),
        ({"device_us": 5}, "after the one before"),
        ({"device_us": 9_000_000}, "after the lease"),
        ({"device_us": 9_000_000}, "after STOP"),
    ],
)
def test_the_audit_can_fail(audited: dict[str, list[dict[str, Any]]], change: dict[str, Any], sentence: str) -> None:
    session, decisions, pulses, events = (audited[name] for name in ("session", "decisions", "pulses", "events"))
    assert audit(session[0], decisions, pulses, events).violations == []
    changed = [*pulses[:-1], {**pulses[-1], **change}]
    assert any(sentence in found for found in audit(session[0], decisions, changed, events).violations)


def test_the_audit_wants_an_order_for_each_pulse(audited: dict[str, list[dict[str, Any]]]) -> None:
    session, decisions, pulses, events = (audited[name] for name in ("session", "decisions", "pulses", "events"))
    silent = [{**row, "applied_mask": "0" * 10} for row in decisions]
    assert len(audit(session[0], silent, pulses, events).violations) == len(pulses) > 0
    unheard = [row for row in decisions if row["decision_index"] == 0]
    assert any("nobody" in found for found in audit(session[0], unheard, pulses, events).violations)
    silence = [row for row in events if row["kind"] != "renew"]
    assert any("after the lease" in found for found in audit(session[0], unheard, pulses, silence).violations)
