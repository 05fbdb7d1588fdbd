"""The archive: a session as NWB, judged by nwbinspector, equal to the recording; bad recordings are one sentence."""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdmf.common import DynamicTable
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO, validate
from session_tools import SESSION_COLUMNS, SHORT, make_export, table_of
from test_session_recorder import decision

from envs.errors import UserError
from firmware_bridge.archive import archive_session
from firmware_bridge.plan import SessionPlan
from firmware_bridge.recorder import ClockRow, PulseRow, Recorder
from firmware_bridge.session import run_session
from sea_dbs.files import sha256_file

STARTED = {**SESSION_COLUMNS, "host_started": "2026-01-01T00:00:00+00:00", "clock": "realtime"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    policy = make_export(folder / "export")
    run_session(SessionPlan(out=folder / "out", policy=policy, steps=4, seed=4, quiet=True))
    return folder / "out"


@pytest.fixture(scope="module")
def archived(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("archive") / "session.nwb"
    archive_session(recorded, out)
    return out


def read(path: Path) -> dict[str, Any]:
    """What users reach for, as plain arrays and frames."""
    with NWBHDF5IO(path, "r") as io:
        file = io.read()
        beta = file.acquisition.get("P_beta")
        tables = {**file.intervals, **file.events, **file.processing["provenance"].data_interfaces}
        return {
            "beta": None if beta is None else beta.data[:],
            "start": None if beta is None else beta.starting_time,
            "rate": None if beta is None else beta.rate,
            "unit": None if beta is None else beta.unit,
            "subject": (file.subject.subject_id, file.subject.description),
            "identifier": file.identifier,
            "times": (file.session_start_time, file.timestamps_reference_time),
            "description": file.session_description + file.experiment_description,
            "dbs": {
                "intensity": file.lab_meta_data["DBS_meta"].pulse_intensity,
                "width": file.lab_meta_data["DBS_meta"].pulse_width,
                "device": file.lab_meta_data["DBS"].DBS_device.name,
                "electrode": file.devices["stimulator"].electrodes_group.to_dataframe(),
                "endpoint": file.devices["stimulator"].endpoint_recording_device.name,
            },
            **{name: value.to_dataframe() for name, value in tables.items() if isinstance(value, DynamicTable)},
            "meanings": {column.name: column.description for column in file.intervals["decisions"].columns}
            if "decisions" in (file.intervals or {})
            else {},
        }


def judged(path: Path) -> list[str]:
    """What nwbinspector finds wrong: critical, violations of best practice, and errors of its own."""
    bad = (Importance.CRITICAL, Importance.BEST_PRACTICE_VIOLATION, Importance.ERROR, Importance.PYNWB_VALIDATION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(inspect_nwbfile(nwbfile_path=path))
        assert found  # suggestions at least: the inspector did look
        return [f"{m.check_function_name}: {m.message}" for m in found if m.importance in bad]


def test_the_inspector_finds_no_fault(archived: Path) -> None:
    assert judged(archived) == []
    assert validate(path=archived) == []


def lead(recorded: Path) -> float:
    """Seconds from the archive's time 0 (the first moment of plant or prelude) to the sample of the first decision."""
    offset = table_of(recorded, "session")[0]["offset_us"]
    first = min(row["device_us"] for row in table_of(recorded, "events"))
    return float(max(SHORT["settle_ms"] * 1e-3, (offset - first) * 1e-6))


def test_the_archive_is_the_recording(archived: Path, recorded: Path) -> None:
    nwb = read(archived)
    decisions, pulses = table_of(recorded, "decisions"), table_of(recorded, "pulses")
    seconds = lead(recorded)
    found = nwb["decisions"]
    assert list(found["reason"]) == [row["reason"] for row in decisions]
    assert list(found["mask"]) == [row["mask"] for row in decisions]
    assert list(found["clamp"]) == [row["clamp"] for row in decisions]
    assert list(found["applied_amplitude_uA"]) == [row["applied_amplitude_uA"] for row in decisions]
    for place, row in enumerate(decisions):
        assert np.array_equal(found["observation"][place], np.frombuffer(row["observation"], "<f4"))
        assert np.array_equal(found["logits"][place], np.frombuffer(row["logits"], "<f4").reshape(10, 2))
    assert np.allclose(found["start_time"], [row["plant_us"] * 1e-6 + seconds for row in decisions], atol=1e-9)
    assert np.allclose(found["stop_time"] - found["start_time"], 0.2)
    given = nwb["pulses"]
    assert len(given) == len(pulses) > 10
    assert np.allclose(given["start_time"], [row["plant_us"] * 1e-6 + seconds for row in pulses], atol=1e-9)
    assert np.allclose(given["stop_time"] - given["start_time"], 120e-6)
    for name in (
        "amplitude_uA",
        "width_us",
        "second_amplitude_uA",
        "residual_pC",
        "peak_uV",
        "decision_id",
        "device_us",
    ):
        assert list(given[name]) == [row[name] for row in pulses]
    assert set(given["peak_uV"]) == {3_000_000}  # 3 mA through 1,000 ohm
    events = nwb["session_events"]
    assert sorted(events["text"]) == sorted(row["text"] for row in table_of(recorded, "events"))
    assert (events["timestamp"] >= 0).all()


def test_p_beta_has_a_rate_and_its_values(archived: Path, recorded: Path) -> None:
    nwb = read(archived)
    decisions = table_of(recorded, "decisions")
    assert (nwb["rate"], nwb["unit"]) == (50.0, "spikes^2/s^2")
    seen = [np.frombuffer(row["observation"], "<f4") for row in decisions]
    last = np.frombuffer(table_of(recorded, "session")[0]["final_observation"], "<f4")
    assert np.allclose(nwb["beta"], np.concatenate([*seen, last]) * 1000.0)
    assert nwb["start"] == pytest.approx(lead(recorded) - 9 * 0.02)
    assert nwb["start"] > 0


def test_it_says_what_ran_and_that_it_was_simulated(archived: Path, recorded: Path) -> None:
    nwb = read(archived)
    session = table_of(recorded, "session")[0]
    assert nwb["subject"][0] == "simulated-seed-4"
    assert "SIMULATED: no living subject" in nwb["subject"][1]
    assert "SIMULATED" in nwb["description"]
    assert session["mode"] in nwb["description"]
    assert nwb["dbs"]["intensity"] == "3 mA"
    assert nwb["dbs"]["width"] == "60 us a phase"
    assert (nwb["dbs"]["device"], nwb["dbs"]["endpoint"]) == ("stimulator", "plant")
    assert "simulated" in nwb["dbs"]["electrode"]["location"][0]
    hashes = dict(zip(nwb["hashes"]["of"], nwb["hashes"]["sha256"], strict=True))
    assert {name: hashes[name] for name in json.loads(session["hashes"])} == json.loads(session["hashes"])
    assert hashes["recording"] == nwb["identifier"]
    with closing(sqlite3.connect(recorded / "session.sqlite")) as db:
        assert list(nwb["chain"]["hash"]) == [
            row[0] for row in db.execute("SELECT hash FROM chain ORDER BY 1 * link_index")
        ]
    assert "place" not in nwb["chain"]  # the folders of a machine are nobody's business
    facts = dict(zip(nwb["session"]["item"], nwb["session"]["value"], strict=True))
    assert facts["outcome"] == "finished"
    assert facts["env_config.window_ms"] == "200.0"
    assert "P_beta/1000" in nwb["meanings"]["observation"]  # the recording's own words
    assert "µs" in nwb["meanings"]["start_us"]


def test_a_session_that_died_is_archived_up_to_there(recorded: Path, tmp_path: Path) -> None:
    """No outcome, a decision under way; and a reader without an event has nothing to stumble over."""
    died = tmp_path / "died"
    shutil.copytree(recorded, died)
    with closing(sqlite3.connect(died / "session.sqlite")) as db, db:
        db.execute("UPDATE session SET outcome = NULL, host_ended = NULL, final_observation = NULL")
        db.execute(
            "UPDATE decisions SET P_beta = NULL, P_beta_last = NULL, reward = NULL, pulses = NULL, "
            "charge_nC_cm2 = NULL WHERE decision_index = 3"
        )
        db.execute("UPDATE decisions SET logits = NULL WHERE decision_index = 1")
    out = tmp_path / "died.nwb"
    archive_session(died, out)
    nwb = read(out)
    assert "no end was recorded" in nwb["description"]
    assert list(np.isnan(nwb["decisions"]["P_beta"])) == [False, False, False, True]
    assert np.isnan(nwb["decisions"]["logits"][1]).all()
    assert judged(out) == []


def test_who_was_observed_is_not_made_up(recorded: Path, tmp_path: Path) -> None:
    """Observations that were read from a stream or a file are nobody's simulation."""
    other = tmp_path / "other"
    shutil.copytree(recorded, other)
    with closing(sqlite3.connect(other / "session.sqlite")) as db, db:
        db.execute("UPDATE events SET kind = 'source', text = 'lsl:beta; no plant was driven' WHERE event_index = 2")
    archive_session(other, tmp_path / "other.nwb")
    nwb = read(tmp_path / "other.nwb")
    assert nwb["subject"][0] == "not-known"
    assert "NOT KNOWN" in nwb["subject"][1]
    assert "lsl:beta" in nwb["subject"][1]
    assert "SIMULATED" not in nwb["description"]
    assert judged(tmp_path / "other.nwb") == []


def test_an_empty_session_and_its_clock(tmp_path: Path) -> None:
    """It ended before a decision: no P_beta and no decisions, but what there is."""
    with Recorder(tmp_path / "session.sqlite", STARTED) as recorder:
        for n in range(4):
            recorder.clock(ClockRow(n * 1000, n * 1001, 180, -1.5, -2.5, 0.5, 3.0, -9.0, 15.0, "USED"))
        recorder.event(4000, "fault", "the stimulator failed", code=2)
        recorder.event(7000, "stop", "STOP was acknowledged")
    archive_session(tmp_path / "session.sqlite", tmp_path / "empty.nwb")
    nwb = read(tmp_path / "empty.nwb")
    assert nwb["beta"] is None
    assert list(nwb["clock"]["offset_low_us"]) == [-2.5] * 4
    assert list(nwb["session_events"]["kind"]) == ["fault", "stop"]
    assert list(nwb["session_events"]["timestamp"]) == pytest.approx([0.0, 0.003])
    assert judged(tmp_path / "empty.nwb") == []


def test_nothing_is_archived_of_a_bad_recording(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nwb"
    whole = (recorded / "session.sqlite").read_bytes()

    def bad(change: str | bytes, sentence: str) -> None:
        path = tmp_path / "bad.sqlite"
        path.write_bytes(whole if isinstance(change, str) else change)
        if isinstance(change, str):
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("PRAGMA ignore_check_constraints = 1")
                db.executescript(change)
        with pytest.raises(UserError, match=sentence) as caught:
            archive_session(path, out)
        assert len(str(caught.value).splitlines()) == 1
        assert "bad.sqlite" in str(caught.value)
        path.unlink()

    bad(b"not a database " * 99, "no recording")
    bad(whole[: len(whole) // 2 // 4096 * 4096], "damaged")
    bad("DROP TABLE pulses", "damaged")
    bad("UPDATE decisions SET observation = x'0011'", "damaged")
    bad("UPDATE session SET env_config = '{'", "damaged")
    bad("UPDATE session SET host_started = 'yesterday'", "damaged")
    bad("UPDATE pulses SET device_us = 'soon' WHERE pulse_index = 2", "damaged")
    bad("DELETE FROM session", "holds no session")
    with pytest.raises(UserError, match="no recording"):
        archive_session(tmp_path / "none", out)
    with pytest.raises(UserError, match=r"must end in \.nwb"):
        archive_session(recorded, tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir() if "bad.sqlite" not in path.name] == []


def test_an_archive_is_not_written_over_unasked(recorded: Path, archived: Path, tmp_path: Path) -> None:
    before = sha256_file(archived)
    with pytest.raises(UserError, match="--overwrite"):
        archive_session(recorded, archived)
    assert sha256_file(archived) == before
    out = tmp_path / "again.nwb"
    out.write_bytes(b"old")
    archive_session(recorded, out, overwrite=True)
    assert read(out)["identifier"] == read(archived)["identifier"]
    assert [path.name for path in tmp_path.iterdir()] == ["again.nwb"]


def test_time_zero_is_wall_time_in_a_realtime_session(tmp_path: Path) -> None:
    """Pulses of a session in real time can be laid beside another recorder's."""
    config = json.dumps({"settle_ms": 400.0, "stride_ms": 20.0})
    began = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)  # the host sent its first order, at 6.25 s of device time
    with Recorder(tmp_path / "session.sqlite", {**STARTED, "env_config": config}) as recorder:
        recorder.event(1_000_000, "handshake", "firmware")
        recorder.set_session(offset_us=6_000_000)
        recorder.decision(replace(decision(0), sent_us=6_250_000, host_sent=began.timestamp()))
        recorder.pulses([PulseRow(6_500_000, 500_000, None, -3000, 60, 3000, 60, 0)])
    archive_session(tmp_path, tmp_path / "rt.nwb")
    nwb = read(tmp_path / "rt.nwb")
    assert nwb["session_events"]["timestamp"][0] == 0.0
    assert nwb["pulses"]["start_time"][0] == pytest.approx(5.5)
    assert nwb["times"][1] == began - timedelta(seconds=5.25)
    assert nwb["times"][0] == datetime(2026, 1, 1, tzinfo=UTC)
