"""The record: what is flushed outlives its writer, a full disk is one sentence, and only whole files are read."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from session_tools import SESSION_COLUMNS

from envs.errors import UserError
from firmware_bridge.recorder import (
    DecisionRow,
    Outcome,
    PulseRow,
    Recorder,
    blob,
    digest,
)
from sea_dbs.report.session_data import read_session

WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from session_tools import SESSION_COLUMNS
from firmware_bridge.recorder import Recorder
recorder = Recorder(Path({path!r}), SESSION_COLUMNS)
count = 0
while True:
    recorder.event(count, "renew", "written")
    print(count, time.time(), flush=True)
    count += 1
    time.sleep(0.01)
"""
OBSERVATION = np.linspace(0.3, 0.5, 10, dtype=np.float32)
PULSE = PulseRow(20_000, 20_000, 1, -3000, 60, 3000, 60, 0)


def decision(index: int) -> DecisionRow:
    seen = blob(OBSERVATION)
    return DecisionRow(
        decision_index=index,
        decision_id=index + 1,
        plant_us=0,
        sample_us=0,
        observation=seen,
        observation_sha256=digest(seen),
        logits=None,
        mask="0110",
        start_us=0,
        slot_period_us=20_000,
        reason="as decided",
        clamp=0,
        nack=None,
        applied_mask="0110",
        applied_amplitude_uA=3000,
        applied_width_us=60,
        sent_us=0,
        ack_us=0,
        host_sent=1.0,
        host_ack=1.1,
        host_decide_us=50,
    )


def test_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    with Recorder(path, SESSION_COLUMNS) as recorder:
        recorder.pulses([PULSE])
        recorder.decision(decision(0))  # commits what came before, too
        (row,) = read_session(path).decisions
        assert np.array_equal(np.frombuffer(row["observation"], "<f4"), OBSERVATION)
        assert row["observation_sha256"] == digest(row["observation"])
        assert row["P_beta"] is None
        assert read_session(path).pulses[0]["residual_pC"] == 0
        recorder.outcome(0, Outcome(400.0, 410.0, -1.0, 2, 180.0))
        assert read_session(path).decisions[0]["P_beta_last"] == 410.0
        assert read_session(path).session["outcome"] is None
        recorder.set_session(outcome="finished")
    assert read_session(path).session["outcome"] == "finished"
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert "P_beta/1000" in db.execute("SELECT sql FROM sqlite_master WHERE name = 'decisions'").fetchone()[0]
    db.close()


def test_kill_loses_less_than_a_second(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    script = WRITER.format(tests=str(Path(__file__).parent), path=str(path))
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    started = float(writer.stdout.readline().split()[1])
    time.sleep(max(0.0, started + 1.5 - time.time()))
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    written = [line.split() for line in writer.stdout.read().splitlines() if len(line.split()) == 2]
    writer.stdout.close()
    kept = read_session(path).events
    assert len(kept) > 50
    assert [row["device_us"] for row in kept] == list(range(len(kept)))
    assert float(written[-1][1]) - kept[-1]["host_time"] < 1.0


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from session_tools import SESSION_COLUMNS
from envs.errors import UserError
from firmware_bridge.recorder import Recorder
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
recorder = Recorder(Path({path!r}), SESSION_COLUMNS)
count = 0
try:
    while count < 10_000:
        recorder.event(count, "renew", "x" * 500)
        recorder.flush()
        count += 1
except UserError as error:
    print(count)
    print(error)
    recorder.close()
"""


def test_full_disk_is_one_sentence_and_keeps_what_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    script = FULL.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    count, sentence = done.stdout.splitlines()
    assert int(count) > 10
    assert str(path) in sentence
    assert "stays readable" in sentence
    assert [row["device_us"] for row in read_session(path).events] == list(range(int(count)))


def test_an_old_recording_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    Recorder(path, SESSION_COLUMNS).close()
    with pytest.raises(UserError, match="overwrite"):
        Recorder(path, SESSION_COLUMNS)
    assert read_session(path).session["mode"] == "test"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Recorder(tmp_path / "nowhere" / "session.sqlite", SESSION_COLUMNS)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    with pytest.raises(UserError, match="no recording"):
        read_session(path)
    path.write_bytes(b"not a database, but longer than the header of one " * 4)
    with pytest.raises(UserError, match="no recording"):
        read_session(path)
    path.unlink()
    Recorder(path, SESSION_COLUMNS).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(UserError, match="schema version 99"):
        read_session(path)
