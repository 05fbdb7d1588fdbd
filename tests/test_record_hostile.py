"""Somebody else's session file: whatever a value is, every reader takes the file or says one sentence."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_tools import SHORT, make_export

from envs.config import env_config
from envs.errors import UserError
from firmware_bridge.archive import archive_session
from firmware_bridge.plan import SessionPlan
from firmware_bridge.session import run_session
from firmware_bridge.sources import open_source
from firmware_bridge.summary import summarise
from firmware_bridge.trace import trace
from sea_dbs.recording_schema import layout
from sea_dbs.report.session_data import read_session
from sea_dbs.report.session_figure import draw


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    policy = make_export(folder / "export")
    run_session(SessionPlan(out=folder / "out", policy=policy, steps=3, seed=4, quiet=True))
    return folder / "out" / "session.sqlite"


def changed(recorded: Path, folder: Path, change: Callable[[sqlite3.Connection], object]) -> Path:
    """A copy of the recording whose layout forbids nothing, changed."""
    path = folder / "session.sqlite"
    path.unlink(missing_ok=True)
    shutil.copy(recorded, path)
    with closing(sqlite3.connect(path)) as db, db:
        for name, columns in layout().items():  # no types, no constraints: any value stays as it is
            db.execute(f"CREATE TABLE new ({', '.join(columns)})")
            db.execute(f"INSERT INTO new SELECT * FROM {name}")
            db.execute(f"DROP TABLE {name}")
            db.execute(f"ALTER TABLE new RENAME TO {name}")
        change(db)
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "summary": summarise,
    "figure": lambda path: draw(read_session(path)),
    "latency": lambda path: (read_session(path).latency_split_us(), read_session(path).sample_to_pulse_us()),
    "source": lambda path: open_source(f"file:{path}", env_config("paper", **SHORT), steps=1),
    "trace": trace,
    "archive": lambda path: archive_session(path, path.with_suffix(".nwb"), overwrite=True),
}


def said(reader: str, path: Path) -> str:
    """The reader's sentence; empty: it took the file."""
    try:
        READERS[reader](path)
    except UserError as error:
        sentence = str(error)
    else:
        return ""
    assert len(sentence.splitlines()) == 1
    return sentence


def test_the_plain_file_is_taken_by_all(recorded: Path, tmp_path: Path) -> None:
    path = changed(recorded, tmp_path, lambda db: None)
    assert {reader: said(reader, path) for reader in READERS} == dict.fromkeys(READERS, "")


HANDMADE = {
    "UPDATE pulses SET device_us = 'soon' WHERE rowid = 2": "pulses.device_us holds 'soon' (text)",
    "UPDATE pulses SET residual_pC = x'00'": "pulses.residual_pC holds X'00' (blob)",
    "UPDATE pulses SET peak_uV = 0.5": "pulses.peak_uV holds 0.5 (real)",
    "UPDATE decisions SET P_beta = 'much'": "decisions.P_beta holds 'much' (text)",
    "UPDATE decisions SET P_beta = 9e999": "decisions.P_beta holds",
    "UPDATE decisions SET host_ack = 1e300": "decisions.host_ack holds",
    "UPDATE decisions SET mask = 'abc'": "decisions.mask holds 'abc' (text)",
    "UPDATE decisions SET mask = NULL": "decisions.mask holds NULL (null)",
    "UPDATE decisions SET slot_period_us = 0": "decisions.slot_period_us holds 0 (integer)",
    "UPDATE decisions SET start_us = 9223372036854775807": "decisions.start_us holds 9223372036854775807",
    "UPDATE decisions SET observation = 'text'": "decisions.observation holds 'text' (text)",
    "UPDATE decisions SET observation = x'0011'": "observation 0 is damaged",
    "UPDATE decisions SET observation = zeroblob(36) || x'0000c07f'": "decisions.observation holds",
    "UPDATE decisions SET plant_us = -plant_us": "time runs backwards",
    "UPDATE events SET text = 7": "events.text holds 7 (integer)",
    "UPDATE events SET kind = 'a' || char(0)": "events.kind holds",
    "UPDATE session SET mode = char(27) || '[2J'": "session.mode holds '?[2J' (text)",
    "UPDATE session SET slots = 0": "session.slots holds 0 (integer)",
    "UPDATE session SET seed = 'none'": "session.seed holds 'none' (text)",
    "UPDATE session SET hashes = '[]'": "session.hashes is no JSON object of texts",
    "UPDATE session SET hashes = '{\"firmware\": 3}'": "session.hashes is no JSON object of texts",
    "UPDATE session SET env_config = printf('%.*c', 200000, '[')": "session.env_config is no JSON object",
    "UPDATE session SET host_machine = ''": "session.host_machine is no JSON object",
    "ALTER TABLE decisions DROP COLUMN reason": "table decisions has no column reason",
    "DROP TABLE events": "no table events",
    "PRAGMA user_version = 7": "schema version 7",
}


@pytest.mark.parametrize("statement", HANDMADE)
def test_a_wrong_value_is_named_by_every_reader(statement: str, recorded: Path, tmp_path: Path) -> None:
    path = changed(recorded, tmp_path, lambda db: db.execute(statement))
    for reader in READERS:
        sentence = said(reader, path)
        assert HANDMADE[statement] in sentence, reader
        assert str(path) in sentence


def test_a_file_too_old_for_some_columns_is_taken(recorded: Path, tmp_path: Path) -> None:
    def older(db: sqlite3.Connection) -> None:
        for table, columns in layout().items():
            for name, column in columns.items():
                if column.optional and table != "chain":
                    db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")

    path = changed(recorded, tmp_path, older)
    data = read_session(path)
    assert data.decide_on == "host"
    assert all(row["peak_uV"] is None for row in data.pulses)
    assert data.done == []  # what came of a decision is optional: it may not be known


def test_the_command_line_ends_with_2_and_no_traceback(recorded: Path, tmp_path: Path) -> None:
    path = changed(recorded, tmp_path, lambda db: db.execute("UPDATE decisions SET ack_us = 'late'"))
    for command in (["trace", str(path)], ["archive", str(path), "--out", str(tmp_path / "a.nwb")]):
        line = [sys.executable, "-c", "from sea_dbs.cli import main; main()", *command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "decisions.ack_us holds 'late' (text)" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "a.nwb").exists()


CELLS = [(table, name) for table, columns in layout().items() for name in columns]
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.text(max_size=5).filter(lambda text: text.isprintable()),
    st.sampled_from(["{}", "[]", "{", "null", "1", "0101", '{"a": {}}', '{"stride_ms": 0}', "2026-01-01"]),
    st.binary(max_size=5),
    st.just(np.full(10, np.inf, "<f4").tobytes()),
)


@settings(max_examples=120, deadline=None)
@given(cells=st.lists(st.tuples(st.sampled_from(CELLS), VALUES), min_size=1, max_size=3), data=st.data())
def test_any_value_is_taken_or_named(
    cells: list[tuple[tuple[str, str], Any]], data: st.DataObject, recorded: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    def change(db: sqlite3.Connection) -> None:
        for (table, name), value in cells:
            db.execute(f"UPDATE {table} SET {name} = ?", (value,))

    path = changed(recorded, tmp_path_factory.mktemp("hostile"), change)
    said(data.draw(st.sampled_from(["summary", "latency", "source", "trace"])), path)
    if data.draw(st.integers(0, 9)) == 0:  # these two take longer
        said(data.draw(st.sampled_from(["figure", "archive"])), path)
