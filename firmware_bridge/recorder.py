"""The record of a session: one SQLite file in WAL mode, readable while it is written and after ``kill -9``.

Six tables, documented in `sea_dbs.recording_schema`, whose comments stay in the file (``sqlite3 FILE .schema``):

- ``session``: one row. What ran: seed, preset, configuration, versions, the chain of hashes, and how it ended.
- ``decisions``: one row a decision. WHY: observation, logits, decision, clamp or refusal, applied values, times, and
  what came of it (written after the step; null where the session ended before).
- ``pulses``: what came on the electrode channel, never what was promised.
- ``events``: handshakes, changes of the board's state, faults, refusals, renewals, missed deadlines.
- ``clock``: each comparison of the clocks of host and board, with the estimate it led to (real time only).
- ``chain``: every link of the hash chain; the last one is written when the session ends (`firmware_bridge.chain`).

`sea_dbs.report.session_data` reads the file. Columns ``host_*`` hold wall-clock times of the host and differ from run
to run; with the board in lockstep all other columns of two sessions with the same seed are equal, byte for byte.
``*_us`` without ``host_`` is device time, but for ``plant_us`` (the plant's clock, 0 = end of the reset).

Every decision is committed when it is ordered and when it is over, everything else half a second later. A commit is
handed to the operating system, so that it outlives the process; after a power cut the newest second may be missing, but
the file is whole. `firmware_bridge.record_file` says what happens when the disk is full or the file is taken away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export.chain import Chain
from firmware_bridge import chain as chains
from firmware_bridge.record_file import RecordFile
from firmware_bridge.records import ClockRow, DecisionRow, Outcome, PulseRow, blob, digest
from sea_dbs.recording_schema import SCHEMA, SCHEMA_VERSION  # the version is also PRAGMA user_version of the file

__all__ = [
    "SESSION_FILE",
    "ClockRow",
    "DecisionRow",
    "Listener",
    "Outcome",
    "PulseRow",
    "Recorder",
    "blob",
    "digest",
]

SESSION_FILE = "session.sqlite"


class Listener(Protocol):
    """Hears what is recorded, while it is recorded."""

    def decision(self, row: DecisionRow) -> None: ...
    def outcome(self, decision_index: int, outcome: Outcome) -> None: ...
    def pulses(self, rows: Sequence[PulseRow]) -> None: ...
    def event(self, device_us: int, kind: str, text: str, code: int | None) -> None: ...
    def clock(self, row: ClockRow) -> None: ...
    def lfp(self, device_us: NDArray[np.int64], values: NDArray[np.float64]) -> None: ...


class Recorder:
    """Writes one session.

    Args:
        path: the file, which must not exist.
        session: values of the table ``session`` that are known at the start.
        listeners: told of each row, after it was written.

    Raises:
        UserError: the file exists or cannot be written; any later call: the disk is full, or the file was moved or
            deleted (`firmware_bridge.record_file`). What is committed stays.
    """

    def __init__(self, path: Path, session: Mapping[str, Any], listeners: Sequence[Listener] = ()) -> None:
        self.listeners = list(listeners)
        self._file = RecordFile(path, f"{SCHEMA} PRAGMA user_version = {SCHEMA_VERSION};")
        try:
            self._insert("session", {"id": 1, "schema_version": SCHEMA_VERSION, **session})
            self.flush()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Where the file is: another place than at the start if it was rescued."""
        return self._file.path

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left, if the disk takes it, and close the file."""
        self._file.close()

    def set_session(self, **values: Any) -> None:
        """Fill in columns of the session's row, and commit."""
        with self._file.transaction() as db:
            assignments = ", ".join(f"{name} = ?" for name in values)
            db.execute(f"UPDATE session SET {assignments}", tuple(values.values()))
        self.flush()

    def chain(self, chain: Chain, firmware_build: bytes, note: str, place: Path | None) -> None:
        """The links of the hash chain that are known before the first decision. Committed at once."""
        with self._file.transaction() as db:
            chains.write_links(db, chain, firmware_build, note, place)
        self.flush()

    def end(self, outcome: str, host_ended: str) -> None:
        """The session is over: how it ended, and the chain's last link over all that is recorded, in one commit.

        Nothing may be written after it.
        """
        with self._file.transaction() as db:
            db.execute("UPDATE session SET outcome = ?, host_ended = ?", (outcome, host_ended))
            chains.seal(db)
        self.flush()

    def decision(self, row: DecisionRow) -> None:
        """A decision was ordered. Committed at once."""
        self._insert("decisions", _values(row))
        self.flush()
        for listener in self.listeners:
            listener.decision(row)

    def outcome(self, decision_index: int, outcome: Outcome) -> None:
        """A decision is over. Committed at once."""
        with self._file.transaction() as db:
            assignments = ", ".join(f"{field.name} = ?" for field in fields(outcome))
            values = (*astuple(outcome), decision_index)
            db.execute(f"UPDATE decisions SET {assignments} WHERE decision_index = ?", values)
        self.flush()
        for listener in self.listeners:
            listener.outcome(decision_index, outcome)

    def pulses(self, rows: Sequence[PulseRow]) -> None:
        """Pulses came on the electrode channel."""
        for row in rows:
            self._insert("pulses", _values(row))
        self.tick()
        for listener in self.listeners:
            listener.pulses(rows)

    def event(
        self, device_us: int, kind: str, text: str, *, decision_id: int | None = None, code: int | None = None
    ) -> None:
        """Something happened."""
        values = {"device_us": device_us, "kind": kind, "decision_id": decision_id, "code": code, "text": text}
        self._insert("events", {**values, "host_time": time.time()})
        self.tick()
        for listener in self.listeners:
            listener.event(device_us, kind, text, code)

    def clock(self, row: ClockRow) -> None:
        """The clocks of host and board were compared."""
        self._insert("clock", _values(row))
        self.tick()
        for listener in self.listeners:
            listener.clock(row)

    def lfp(self, device_us: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """The plant's LFP proxy (µA/cm²), each value with its time, (n,): heard, not written: the seed gives it."""
        for listener in self.listeners:
            listener.lfp(device_us, values)

    def tick(self) -> None:
        """Commit if it is time; called once a slot."""
        self._file.tick()

    def flush(self) -> None:
        """Commit now."""
        self._file.commit()

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        with self._file.transaction() as db:
            places = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values()))


def _values(row: DecisionRow | PulseRow | ClockRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}
