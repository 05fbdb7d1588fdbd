"""What happens to a recording: the disk fills up, the file is moved or deleted, its writer is killed or hangs.

The session ends with STOP, and everything that was flushed is readable.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_tools import SESSION_COLUMNS, command, electrode_log, make_export

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard
from firmware_bridge.codes import State
from firmware_bridge.plan import SessionPlan, prepare
from firmware_bridge.recorder import Recorder
from firmware_bridge.session import run_parts
from sea_dbs.controllers import Action, Always, Observation
from sea_dbs.report.session_data import read_session

KILLS = 3  # of the fast run; the figures of docs/recording.md are those of the slow one
MANY = 40


class Meddles(Always):
    """Decides as `Always` does; before the fourth decision something happens to the recording."""

    def __init__(self, what: Callable[[], object]) -> None:
        super().__init__(10)
        self.what, self.count = what, 0

    def act(self, observation: Observation) -> Action:
        self.count += 1
        if self.count == 4:
            self.what()
        return super().act(observation)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("policy") / "export")


def ended_by(export: Path, out: Path, what: Callable[[], object]) -> str:
    """Run a session in which ``what`` happens; the sentence that ended it. The board was stopped."""
    with HostBoard() as board:
        plan = SessionPlan(out=out, controller="always", port=board.port, steps=40, quiet=True)
        small = prepare(replace(plan, controller=None, policy=export))
        parts = replace(prepare(plan), env=small.env, controller=Meddles(what))
        with pytest.raises(UserError) as caught:
            run_parts(plan, parts)
        with Bench(board.electrode, stepped=False) as bench:
            bench.advance(bench.now_us + 1)
            assert bench.state is State.IDLE
            assert bench.grounded
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def holds_the_session(path: Path, decisions: int = 3) -> None:
    """A whole recording: every decision before it happened, how it ended, and nothing damaged."""
    data = read_session(path)
    assert len(data.done) >= decisions
    assert all(row["applied_mask"] == "1" * 10 for row in data.decisions)
    assert len(data.pulses) >= 10 * decisions
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- the disk is full ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here (the limit on a file's size is tested all the same)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path) -> None:
    """Somebody else takes the last byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_full_disk(export: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    sentence = ended_by(export, out, lambda: fill(small_disk))
    assert "no space left" in sentence
    assert str(out) in sentence
    holds_the_session(out / "session.sqlite")
    session = read_session(out / "session.sqlite").session
    assert "no space left" in session["outcome"]  # the reserve had room for the end
    assert [row["kind"] for row in read_session(out / "session.sqlite").events].count("stop") == 1


def test_a_disk_that_is_full_already(export: Path, small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(UserError, match="no space left"):
        Recorder(small_disk / "session.sqlite", SESSION_COLUMNS)


def test_a_file_that_may_grow_no_further(export: Path, tmp_path: Path) -> None:
    """A whole session at a limit on the size of a file: one sentence, exit 2, all that was flushed is readable."""
    out = tmp_path / "out"
    line = command("--policy", export, "--steps", "200", "--out", out, "--no-prelude")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    with HostBoard():  # compiles it, if nobody has yet: that is not limited
        pass
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limit)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert "cannot be written" in said
    assert "ulimit -f" in said
    assert "stays readable" in said
    assert "Traceback" not in said
    data = read_session(out / "session.sqlite")
    assert 10 < len(data.done) < 200
    assert [row["decision_index"] for row in data.decisions] == list(range(len(data.decisions)))
    with closing(sqlite3.connect(out / "session.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- the file is taken away ------------------------------------------------------------------------------------------


def moved(out: Path) -> None:
    (out / "session.sqlite").rename(out / "mine.sqlite")


def deleted(out: Path) -> None:
    (out / "session.sqlite").unlink()


def wal_deleted(out: Path) -> None:
    (out / "session.sqlite-wal").unlink()


def folder_deleted(out: Path) -> None:
    shutil.rmtree(out)


def folder_moved(out: Path) -> None:
    out.rename(out.with_name("elsewhere"))


def replaced(out: Path) -> None:
    deleted(out)
    (out / "session.sqlite").write_bytes(b"somebody else's")


@pytest.mark.parametrize("what", [moved, deleted, wal_deleted, folder_deleted, folder_moved, replaced])
def test_a_file_that_is_taken_away(export: Path, tmp_path: Path, what: Callable[[Path], object]) -> None:
    out = tmp_path / "out"
    sentence = ended_by(export, out, lambda: what(out))
    assert "was moved or deleted while it was written" in sentence
    copy = out / ("session-rescued-1.sqlite" if what is replaced else "session.sqlite")
    assert sentence.endswith(f"all that it held is in {copy}")
    holds_the_session(copy)
    assert read_session(copy).session["outcome"] == sentence  # how it ended is recorded where it can be
    if what is replaced:
        assert (out / "session.sqlite").read_bytes() == b"somebody else's"
    if what is moved:
        holds_the_session(out / "mine.sqlite")
    if what is folder_moved:
        holds_the_session(tmp_path / "elsewhere" / "session.sqlite")


def test_it_is_said_once_and_no_copy_is_said_too(tmp_path: Path) -> None:
    """Nowhere to put a copy: the sentence says so, and closing is still possible."""
    folder = tmp_path / "folder"
    folder.mkdir()
    recorder = Recorder(folder / "session.sqlite", SESSION_COLUMNS)
    shutil.rmtree(folder)
    folder.write_text("a file stands where the folder was")
    recorder.event(1, "renew", "lost")
    with pytest.raises(UserError, match="no copy could be made"):
        recorder.flush()
    recorder.event(2, "renew", "nobody will read it")
    recorder.flush()
    recorder.close()


def test_another_program_may_not_hold_the_session_up(tmp_path: Path) -> None:
    """It locks the file: the recorder gives up before a lease is over, in one sentence."""
    with Recorder(tmp_path / "session.sqlite", SESSION_COLUMNS) as recorder:
        recorder.event(1, "renew", "kept")
        recorder.flush()
        with closing(sqlite3.connect(tmp_path / "session.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UserError, match="locked"):
                recorder.event(2, "renew", "refused")
            other.execute("ROLLBACK")
        recorder.event(3, "renew", "taken again")
    assert [row["device_us"] for row in read_session(tmp_path / "session.sqlite").events] == [1, 3]


# -- kill -9 ---------------------------------------------------------------------------------------------------------

# An armed board in real time, decisions of 0.2 s with every slot set, a comparison of the clocks each half second. With
# an argument, the host hangs after so many decisions, having written and not flushed.
DRIVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
from session_tools import *
port, electrode, out, hang = sys.argv[1:]
with (
    Bench(electrode, stepped=False) as bench,
    BoardClient(SerialLink(port)) as client,
    Recorder(Path(out) / "session.sqlite", SESSION_COLUMNS) as recorder,
):
    shake_hands(client, bench)
    driven = Electrode(client, bench, recorder, latency_us=50_000)
    driven.arm()
    recorder.set_session(offset_us=driven.synchronise())
    print("driving", flush=True)
    for count in range(1_000):
        start = count * 200_000
        slots = tuple(range(start, start + 200_000, 20_000))
        driven.begin(np.ones(10, np.int8), start, slots)
        for slot in slots:
            driven.until(slot + 20_000)
        if count == int(hang):
            time.sleep(60)
"""


def state_of(log: Path) -> str:
    """The state that the board logged last."""
    return next((line["state"] for line in reversed(electrode_log(log)) if "state" in line), "")


def killed(folder: Path, after_s: float, hang: int = -1) -> dict[str, Any]:
    """Kill a driver that long after it started to drive; device times: of the kill, of what was kept."""
    folder.mkdir()
    log = folder / "electrode.log"
    script = DRIVER.format(tests=str(Path(__file__).parent))
    with HostBoard(realtime=True, electrode_log=log) as board:
        command = [sys.executable, "-c", script, board.port, board.electrode, str(folder), str(hang)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "driving\n"
            time.sleep(after_s)
            os.kill(driver.pid, signal.SIGKILL)
            killed_us = time.monotonic_ns() // 1000
            driver.wait()
        end = time.monotonic() + 10
        while not (fell := state_of(log) == "FALLBACK") and time.monotonic() < end:
            time.sleep(0.02)
        assert fell  # the board is safe, by itself
    data = read_session(folder / "session.sqlite")
    with closing(sqlite3.connect(folder / "session.sqlite")) as db:
        offset_us = db.execute("SELECT offset_us FROM clock ORDER BY clock_index DESC").fetchone()[0]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    given = [line["t_us"] for line in electrode_log(log) if "pulse" in line]
    kept = [row["device_us"] for row in data.pulses]
    return {"killed_us": killed_us + offset_us, "given": given, "kept": kept}


def lost_s(folder: Path, after_s: float, hang: int = -1) -> float:
    """Age of the oldest pulse that is missing in the file, at the time of the kill (s); 0: none is missing."""
    trial = killed(folder, after_s, hang)
    assert trial["kept"] == trial["given"][: len(trial["kept"])]  # nothing is missing before
    missing = [t for t in trial["given"][len(trial["kept"]) :] if t <= trial["killed_us"]]
    return (trial["killed_us"] - missing[0]) * 1e-6 if missing else 0.0


def kills(folder: Path, count: int) -> list[float]:
    generator = random.Random(6)
    return [lost_s(folder / str(trial), generator.uniform(0.8, 2.5)) for trial in range(count)]


def test_kill_9_loses_at_most_a_second(tmp_path: Path) -> None:
    lost = kills(tmp_path, KILLS)
    assert max(lost) <= 1.0


def test_a_host_that_hangs_has_flushed(tmp_path: Path) -> None:
    """It hangs for longer than a second and is killed then: the thread has committed what was written before."""
    trial = killed(tmp_path / "hang", 2.5, hang=3)
    driven_us = 4 * 200_000
    assert len(trial["kept"]) >= 35  # of the 40 slots of four decisions; the last may lie behind the latency
    assert trial["kept"] == trial["given"][: len(trial["kept"])]
    assert trial["kept"][-1] - trial["kept"][0] > driven_us - 100_000


@pytest.mark.slow
def test_many_kills(tmp_path: Path) -> None:
    lost = np.array(kills(tmp_path, MANY))
    p50, most = float(np.median(lost)), float(lost.max())
    print(f"{MANY} kills: lost p50 {p50:.3f} s, max {most:.3f} s")  # noqa: T201
    assert most <= 1.0
