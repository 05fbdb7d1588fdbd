"""What a recording holds: its tables, and the rows that `firmware_bridge.recorder` writes into them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
  host_decide_us INTEGER NOT NULL,   -- time that the controller took; where the board decides: to quantise
  whole_us INTEGER,                  -- the board had it whole, and decided at ack_us; null: the host decided
  observation_int8 BLOB,             -- int8 (n_obs,), at the scale of an integer policy; null: none decided
  logits_int32 BLOB,                 -- int32 little-endian (slots, 2), by the board, or by the host's integer policy
  margins_int16 BLOB,                -- int16 little-endian, of the first slots, by the board
  logits_differ INTEGER,             -- logits of the board that differ from the reference; null: not checked
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
    whole_us: int | None = None
    observation_int8: bytes | None = None
    logits_int32: bytes | None = None
    margins_int16: bytes | None = None
    logits_differ: int | None = None


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
    peak_uV: int | None = None


@dataclass(frozen=True, slots=True)
class ClockRow:
    """One comparison of the clocks; see `SCHEMA` and `firmware_bridge.clock`."""

    device_us: int
    host_us: int
    host_round_trip_us: int
    offset_us: float
    offset_low_us: float
    offset_high_us: float
    drift_ppm: float
    drift_low_ppm: float
    drift_high_ppm: float
    verdict: str


def blob(values: NDArray[np.float32]) -> bytes:
    """The bytes of an array as they stand in the file."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def digest(data: bytes) -> str:
    """Hex SHA-256 of a blob."""
    return hashlib.sha256(data).hexdigest()
