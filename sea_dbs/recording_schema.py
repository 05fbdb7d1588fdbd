"""The tables of a recording (session.sqlite): what a session writes, and what any reader may rely on.

`SCHEMA` lays a new file out, and its comments say what each column means. A file from anywhere is held to the same
text by `check`: types, what may be null, and `RANGES`. A column that may be null, or that has a default, may be missing
altogether: older recordings lack the newer ones (`fill`). Further tables and columns are nobody's business here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import UserError

SCHEMA_VERSION = 1
REQUIRED = ("session", "decisions", "pulses", "events")  # the tables that no recording lacks
WHOLE_MAX = 1 << 53  # of an INTEGER, either sign: 285 years in µs, and exact as a float
REAL_MAX = 1e18  # of a REAL, either sign

SCHEMA = """
CREATE TABLE session (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  schema_version INTEGER NOT NULL,
  mode TEXT NOT NULL,              -- by what right it drove: bench, release, classical controller, shadow
  shadow TEXT,                     -- the policy that decided in shadow; null: none
  release TEXT,                    -- JSON: verdict, verdict_sha256, tag, key; null: no release was needed or shown
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
  decide_on TEXT NOT NULL DEFAULT 'host', -- who decides: 'host', or 'board' and its format
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
  observation BLOB NOT NULL,         -- float32 little-endian (n_obs,): own duties of env_config, then P_beta/1000
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
  host_decide_us INTEGER NOT NULL,   -- time that the controller took; where the board decides: to quantise
  whole_us INTEGER,                  -- the board had it whole, and decided at ack_us; null: the host decided
  observation_int8 BLOB,             -- int8 (n_obs,), at the scale of an integer policy; null: none decided
  logits_int32 BLOB,                 -- int32 little-endian (slots, 2), by the board, or by the host's integer policy
  margins_int16 BLOB,                -- int16 little-endian, of the first slots, by the board
  logits_differ INTEGER,             -- logits of the board that differ from the reference; null: not checked
  shadow_mask TEXT,                  -- what the policy decided in shadow, never applied; null: no shadow, or it refused
  shadow_reason TEXT,                -- who decided it, or why it was refused; null: no shadow
  shadow_logits BLOB,                -- float32 little-endian (slots, 2), of a policy on the host
  shadow_logits_int32 BLOB,          -- int32 little-endian (slots, 2), of an integer policy, on the board or the host
  shadow_logits_differ INTEGER,      -- of the board's, those that differ from the reference; null: not checked
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
  residual_pC INTEGER NOT NULL,      -- charge that both phases left
  peak_uV INTEGER                    -- greatest voltage on the electrode; null: not measured
);
CREATE TABLE events (
  event_index INTEGER PRIMARY KEY,
  device_us INTEGER NOT NULL,
  kind TEXT NOT NULL,                -- handshake, armed, state, fault, clamp, nack, renew, deadline, clock, stop
  decision_id INTEGER,
  code INTEGER,                      -- State, Fault bits, Clamp bits, NackCode or µs, as the kind says
  text TEXT NOT NULL,
  host_time REAL NOT NULL            -- s since 1970
);
CREATE TABLE clock (                 -- empty in lockstep, where the host itself moves the board's clock
  clock_index INTEGER PRIMARY KEY,
  device_us INTEGER NOT NULL,        -- the board's clock when it answered
  host_us INTEGER NOT NULL,          -- the host's clock (monotonic) when the answer came
  host_round_trip_us INTEGER NOT NULL,
  offset_us REAL NOT NULL,           -- board minus host at host_us, by all samples until then
  offset_low_us REAL NOT NULL,       -- and the interval that holds it
  offset_high_us REAL NOT NULL,
  drift_ppm REAL NOT NULL,           -- of the board against the host, with its interval
  drift_low_ppm REAL NOT NULL,
  drift_high_ppm REAL NOT NULL,
  verdict TEXT NOT NULL              -- what the sample was good for: USED, JUMP, WRAP, STALE, IMPOSSIBLE
);
CREATE TABLE chain (
  link_index INTEGER PRIMARY KEY,
  link TEXT NOT NULL,              -- training, onnx, quantised, source, image; session: written when the session ends
  parts TEXT NOT NULL,             -- JSON: name of a part -> SHA-256; none: the link is absent
  hash TEXT NOT NULL,              -- SHA-256(hash before, SHA-256(name NUL hash of each part)); first: export/chain.py
  note TEXT NOT NULL,
  place TEXT                       -- where the export folder stood
);
"""

RANGES = {  # further conditions, in SQL
    ("session", "n_obs"): "BETWEEN 1 AND 65535",
    ("session", "slots"): "BETWEEN 1 AND 65535",
    ("session", "slot_us"): "BETWEEN 1 AND 1000000000",
    ("decisions", "slot_period_us"): "BETWEEN 1 AND 1000000000",
    ("decisions", "mask"): "NOT GLOB '*[^01]*'",
    ("decisions", "applied_mask"): "NOT GLOB '*[^01]*'",
    ("decisions", "shadow_mask"): "NOT GLOB '*[^01]*'",
    ("decisions", "pulses"): "BETWEEN 0 AND 1000000",
}
_TYPES = {
    "INTEGER": f"typeof({{0}}) = 'integer' AND {{0}} BETWEEN {-WHOLE_MAX} AND {WHOLE_MAX}",
    "REAL": f"typeof({{0}}) IN ('real', 'integer') AND {{0}} BETWEEN {-REAL_MAX!r} AND {REAL_MAX!r}",
    # without NUL, and without what begins a terminal's orders (ESC, CSI)
    "TEXT": "typeof({0}) = 'text' AND instr({0}, char(0)) + instr({0}, char(27)) + instr({0}, char(155)) = 0",
    "BLOB": "typeof({0}) = 'blob'",
}


class Column(NamedTuple):
    """One column of `SCHEMA`."""

    type: str
    optional: bool  # a file may lack it
    default: Any  # of a file that lacks it
    condition: str  # in SQL: 1 for a value that it may hold


@cache
def layout() -> dict[str, dict[str, Column]]:
    """`SCHEMA` as SQLite understands it: table -> column -> what it may hold."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: dict(_columns(db, name)) for name in names}


def _columns(db: sqlite3.Connection, table: str) -> list[tuple[str, Column]]:
    found = []
    for _, name, kind, notnull, default, key in db.execute(f"PRAGMA table_info({table})"):
        condition = _TYPES[kind].format(name)
        if (table, name) in RANGES:
            condition += f" AND {name} {RANGES[table, name]}"
        if not notnull and not key:
            condition = f"{name} IS NULL OR ({condition})"
        value = None if default is None else default.strip("'")
        found.append((name, Column(kind, not key and (not notnull or default is not None), value, condition)))
    return found


def fill(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the columns that its file is too old to have."""
    return {**{name: column.default for name, column in layout()[table].items() if column.optional}, **row}


def check(db: sqlite3.Connection, path: Path) -> None:
    """Hold a file to the schema: every value of every column that it names.

    Raises:
        UserError: another schema version, a missing table or column, or a value that is not what its column says; which
            one.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has the schema version {version}: this version reads {SCHEMA_VERSION}")
    for table, columns in layout().items():
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        if table == "chain" or (not there and table not in REQUIRED):
            continue  # of the chain its own reader says which link is broken
        if not there:
            raise UserError(f"{path} is no recording of a session, or damaged: it has no table {table}")
        for name, column in columns.items():
            if name not in there and not column.optional:
                raise UserError(f"{path} is damaged: its table {table} has no column {name}")
        checked = [(name, column) for name, column in columns.items() if name in there]
        conditions = ", ".join(column.condition for _, column in checked)
        every = " AND ".join(f"({column.condition})" for _, column in checked)
        held = db.execute(f"SELECT {conditions} FROM {table} WHERE NOT ({every}) LIMIT 1").fetchone()
        if held is not None:
            name, column = next(one for one, fits in zip(checked, held, strict=True) if not fits)
            wrong = f"SELECT typeof({name}), substr(quote({name}), 1, 40) FROM {table} WHERE NOT ({column.condition})"
            kind, value = db.execute(f"{wrong} LIMIT 1").fetchone()
            shown = "".join(c if c.isprintable() else "?" for c in " ".join(value.split()))
            raise UserError(f"{path} is damaged: {table}.{name} holds {shown} ({kind}), no {column.type} in its range")
