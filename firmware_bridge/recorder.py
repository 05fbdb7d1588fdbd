"""The record of a session: one SQLite file in WAL mode, readable while it is written and after ``kill -9``.

Five tables, documented in `SCHEMA` (the comments stay in the file: ``sqlite3 session.sqlite .schema`` shows them):

- ``session``: one row. What ran: seed, preset, configuration, versions, the chain of hashes, and how it ended.
- ``decisions``: one row a decision. WHY: observation, logits, decision, clamp or refusal, applied values, times, and
  what came of it (written after the step; null where the session ended before).
- ``pulses``: what came on the electrode channel, never what was promised.
- ``events``: handshakes, changes of the board's state, faults, refusals, renewals, missed deadlines.
- ``chain``: every link of the hash chain; the last one is written when the session ends (`firmware_bridge.chain`).

`sea_dbs.report.session_data` reads the file. Columns ``host_*`` hold wall-clock times of the host and differ from run
to run; with the board in lockstep all other columns of two sessions with the same seed are equal, byte for byte.
``*_us`` without ``host_`` is device time, but for ``plant_us`` (the plant's clock, 0 = end of the reset).

Every decision is committed when it is ordered and when it is over, everything else at most `FLUSH_S` later. A commit is
handed to the operating system, so that it outlives the process; after a power cut the newest second may be missing, but
the file is whole.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.chain import Chain
from firmware_bridge import chain as chains
from sea_dbs.report.session_data import SCHEMA_VERSION  # also PRAGMA user_version of the file

SESSION_FILE = "session.sqlite"
FLUSH_S = 0.4  # s of wall time after which what was written is committed

SCHEMA = """
CREATE TABLE session (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  schema_version INTEGER NOT NULL,
  mode TEXT NOT NULL,              -- what may be driven: the bench sentence
  host_started TEXT NOT NULL,      -- UTC, ISO 8601
  host_ended TEXT,
  outcome TEXT,                    -- 'finished', or the sentence that ended it; null: the host died
  seed INTEGER NOT NULL,
  preset TEXT NOT NULL,
  controller TEXT NOT NULL,
  clock TEXT NOT NULL,             -- 'lockstep' or 'realtime'
  steps INTEGER NOT NULL,          -- decisions asked for
  n_obs INTEGER NOT NULL,
  slots INTEGER NOT NULL,          -- of a decision
  slot_us INTEGER NOT NULL,
  amplitude_uA INTEGER NOT NULL,   -- ordered, each phase
  width_us INTEGER NOT NULL,
  lease_ms INTEGER NOT NULL,
  latency_us INTEGER NOT NULL,     -- from the newest sample to slot 0, as planned
  offset_us INTEGER,               -- device time = plant time + offset
  board TEXT NOT NULL,             -- kind of board
  env_config TEXT NOT NULL,        -- JSON
  hashes TEXT NOT NULL,            -- JSON: env, config, weights, onnx, model, board_model, schema, limits, firmware
  sea_dbs_version TEXT NOT NULL,
  git_commit TEXT,
  host_machine TEXT NOT NULL,      -- JSON: CPU, Python, libraries
  P_beta_first REAL,               -- mean of the first observation, before any pulse
  final_observation BLOB           -- float32 little-endian, after the last decision
);
CREATE TABLE decisions (
  decision_index INTEGER PRIMARY KEY,
  decision_id INTEGER NOT NULL,      -- on the link
  plant_us INTEGER NOT NULL,         -- plant time of the newest sample decided on
  sample_us INTEGER NOT NULL,        -- the same in device time
  observation BLOB NOT NULL,         -- float32 little-endian (n_obs,), P_beta/1000
  observation_sha256 TEXT NOT NULL,
  logits BLOB,                       -- float32 little-endian (slots, 2); null: a controller without logits
  mask TEXT NOT NULL,                -- the decision, '0' or '1' a slot
  start_us INTEGER NOT NULL,         -- slot 0
  slot_period_us INTEGER NOT NULL,
  reason TEXT NOT NULL,              -- why the applied values are what they are
  clamp INTEGER NOT NULL,            -- Clamp bits of the ACK
  nack INTEGER,                      -- NackCode where the order was refused
  applied_mask TEXT NOT NULL,
  applied_amplitude_uA INTEGER NOT NULL,
  applied_width_us INTEGER NOT NULL,
  sent_us INTEGER NOT NULL,          -- the order left the host
  ack_us INTEGER NOT NULL,           -- the board answered it
  host_sent REAL NOT NULL,           -- s since 1970
  host_ack REAL NOT NULL,
  host_decide_us INTEGER NOT NULL,   -- time that the controller took
  P_beta REAL,                       -- outcome: mean of the next observation
  P_beta_last REAL,                  -- outcome: newest window
  reward REAL,
  pulses INTEGER,                    -- delivered to the plant in this step
  charge_nC_cm2 REAL                 -- the same, Σ|I|·PW of the first phase in the plant
);
CREATE TABLE pulses (
  pulse_index INTEGER PRIMARY KEY,
  device_us INTEGER NOT NULL,        -- start of the first phase
  plant_us INTEGER NOT NULL,
  decision_id INTEGER,               -- whose slot it fell into; null: nobody's
  amplitude_uA INTEGER NOT NULL,     -- first phase, cathodic: negative
  width_us INTEGER NOT NULL,
  second_amplitude_uA INTEGER NOT NULL,
  second_width_us INTEGER NOT NULL,
  residual_pC INTEGER NOT NULL
);
CREATE TABLE events (
  event_index INTEGER PRIMARY KEY,
  device_us INTEGER NOT NULL,
  kind TEXT NOT NULL,                -- handshake, armed, state, fault, clamp, nack, renew, deadline, stop
  decision_id INTEGER,
  code INTEGER,                      -- State, Fault bits, Clamp bits, NackCode or µs, as the kind says
  text TEXT NOT NULL,
  host_time REAL NOT NULL            -- s since 1970
);
"""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision at the time it was ordered; see `SCHEMA`."""

    decision_index: int
    decision_id: int
    plant_us: int
    sample_us: int
    observation: bytes
    observation_sha256: str
    logits: bytes | None
    mask: str
    start_us: int
    slot_period_us: int
    reason: str
    clamp: int
    nack: int | None
    applied_mask: str
    applied_amplitude_uA: int
    applied_width_us: int
    sent_us: int
    ack_us: int
    host_sent: float
    host_ack: float
    host_decide_us: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a decision; see `SCHEMA`."""

    P_beta: float
    P_beta_last: float
    reward: float
    pulses: int
    charge_nC_cm2: float


@dataclass(frozen=True, slots=True)
class PulseRow:
    """A pulse of the electrode channel; see `SCHEMA`."""

    device_us: int
    plant_us: int
    decision_id: int | None
    amplitude_uA: int
    width_us: int
    second_amplitude_uA: int
    second_width_us: int
    residual_pC: int


def blob(values: NDArray[np.float32]) -> bytes:
    """The bytes of an array as they stand in the file."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def digest(data: bytes) -> str:
    """Hex SHA-256 of a blob."""
    return hashlib.sha256(data).hexdigest()


class Recorder:
    """Writes one session.

    Args:
        path: the file, which must not exist.
        session: values of the table ``session`` that are known at the start.

    Raises:
        UserError: the file exists or cannot be written; any later call: the disk is full. What is committed stays.
    """

    def __init__(self, path: Path, session: Mapping[str, Any]) -> None:
        self.path = path
        self._dirty_since: float | None = None
        if path.exists():
            raise UserError(f"there is a recording {path} already: choose another --out, or pass --overwrite")
        with self._writing():
            self._db = sqlite3.connect(path, isolation_level=None)
        try:
            with self._writing():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(
                    f"BEGIN; {SCHEMA} {chains.SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
            self._insert("session", {"id": 1, "schema_version": SCHEMA_VERSION, **session})
            self.flush()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left, if the disk takes it, and close the file."""
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        with suppress(sqlite3.Error):
            self._db.close()

    def set_session(self, **values: Any) -> None:
        """Fill in columns of the session's row, and commit."""
        self._begin()
        with self._writing():
            assignments = ", ".join(f"{name} = ?" for name in values)
            self._db.execute(f"UPDATE session SET {assignments}", tuple(values.values()))
        self.flush()

    def chain(self, chain: Chain, firmware_build: bytes, note: str, place: Path | None) -> None:
        """The links of the hash chain that are known before the first decision. Committed at once."""
        self._begin()
        with self._writing():
            chains.write_links(self._db, chain, firmware_build, note, place)
        self.flush()

    def end(self, outcome: str, host_ended: str) -> None:
        """The session is over: how it ended, and the chain's last link over all that is recorded, in one commit.

        Nothing may be written after it.
        """
        self._begin()
        with self._writing():
            self._db.execute("UPDATE session SET outcome = ?, host_ended = ?", (outcome, host_ended))
            chains.seal(self._db)
        self.flush()

    def decision(self, row: DecisionRow) -> None:
        """A decision was ordered. Committed at once."""
        self._insert("decisions", _values(row))
        self.flush()

    def outcome(self, decision_index: int, outcome: Outcome) -> None:
        """A decision is over. Committed at once."""
        self._begin()
        with self._writing():
            assignments = ", ".join(f"{field.name} = ?" for field in fields(outcome))
            values = (*astuple(outcome), decision_index)
            self._db.execute(f"UPDATE decisions SET {assignments} WHERE decision_index = ?", values)
        self.flush()

    def pulses(self, rows: Sequence[PulseRow]) -> None:
        """Pulses came on the electrode channel."""
        for row in rows:
            self._insert("pulses", _values(row))
        self.tick()

    def event(
        self, device_us: int, kind: str, text: str, *, decision_id: int | None = None, code: int | None = None
    ) -> None:
        """Something happened."""
        values = {"device_us": device_us, "kind": kind, "decision_id": decision_id, "code": code, "text": text}
        self._insert("events", {**values, "host_time": time.time()})
        self.tick()

    def tick(self) -> None:
        """Commit if the last commit is `FLUSH_S` old; called once a slot."""
        if self._dirty_since is not None and time.monotonic() - self._dirty_since >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Commit now."""
        if self._db.in_transaction:
            with self._writing():
                self._db.execute("COMMIT")
        self._dirty_since = None

    def _begin(self) -> None:
        if not self._db.in_transaction:
            with self._writing():
                self._db.execute("BEGIN IMMEDIATE")
            self._dirty_since = time.monotonic()

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        self._begin()
        with self._writing():
            places = ", ".join("?" * len(values))
            self._db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values()))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            why = "no space left on its disk" if full else str(error)
            raise UserError(
                f"the recording {self.path} cannot be written ({why}): what it holds stays readable"
            ) from error


def _values(row: DecisionRow | PulseRow) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}
