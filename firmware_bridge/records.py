"""The rows that `firmware_bridge.recorder` writes into the tables of `sea_dbs.recording_schema`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision at the time it was ordered; see `sea_dbs.recording_schema`."""

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
    shadow_mask: str | None = None
    shadow_reason: str | None = None
    shadow_logits: bytes | None = None
    shadow_logits_int32: bytes | None = None
    shadow_logits_differ: int | None = None


@dataclass(frozen=True)
class Shadow:
    """What a policy in shadow made of a decision's observation; see `sea_dbs.recording_schema`."""

    shadow_mask: str | None = None
    shadow_reason: str | None = None
    shadow_logits: bytes | None = None
    shadow_logits_int32: bytes | None = None
    shadow_logits_differ: int | None = None


NO_SHADOW = Shadow()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a decision; see `sea_dbs.recording_schema`."""

    P_beta: float
    P_beta_last: float
    reward: float
    pulses: int
    charge_nC_cm2: float


@dataclass(frozen=True, slots=True)
class PulseRow:
    """A pulse of the electrode channel; see `sea_dbs.recording_schema`."""

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
    """One comparison of the clocks; see `sea_dbs.recording_schema` and `firmware_bridge.clock`."""

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
