"""A recorded session, read from its SQLite file (schema: firmware_bridge/recorder.py), also after a kill -9."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.errors import UserError
from sea_dbs.recording_file import open_recording

SCHEMA_VERSION = 1
NO_DEVICE_ENVELOPE = "NO DEVICE ENVELOPE"  # how the mode of a session begins whose stimulator enforces nothing
Row = dict[str, Any]
Float = NDArray[np.float64]


@dataclass(frozen=True)
class SessionData:
    """The four tables, rows in order. ``done`` are the decisions whose outcome is known."""

    session: Row
    decisions: list[Row]
    pulses: list[Row]
    events: list[Row]

    @property
    def done(self) -> list[Row]:
        """Decisions that were lived through."""
        return [row for row in self.decisions if row["P_beta"] is not None]

    @property
    def device_envelope(self) -> bool:
        """False: limits and lease were kept by the host alone, which every report says in red."""
        return not str(self.session["mode"]).startswith(NO_DEVICE_ENVELOPE)

    @property
    def decision_s(self) -> float:
        """Length of a decision (s)."""
        return float(self.session["slots"] * self.session["slot_us"]) * 1e-6

    @property
    def hashes(self) -> dict[str, str]:
        """env, config, weights, onnx, model, board_model, schema, limits, firmware; hex SHA-256."""
        return dict(json.loads(self.session["hashes"]))

    @property
    def environment(self) -> dict[str, Any]:
        """The plant's configuration."""
        return dict(json.loads(self.session["env_config"]))

    def duty(self) -> float:
        """Share of slots in which a pulse came on the electrode."""
        slots = self.session["slots"] * len(self.done)
        return sum(row["pulses"] for row in self.done) / slots if slots else 0.0

    def beta_trace(self) -> tuple[Float, Float]:
        """P_beta of every window: (end of the window, s on the plant's clock; P_beta), both (n,), without repeats."""
        stride_s = self.environment["stride_ms"] * 1e-3
        ends = [(row["plant_us"] * 1e-6, row["observation"]) for row in self.decisions]
        if self.session["final_observation"] is not None and ends:
            ends.append((ends[-1][0] + self.decision_s, self.session["final_observation"]))
        times: list[Float] = [np.zeros(0)]
        values: list[Float] = [np.zeros(0)]
        before = -np.inf
        for end, data in ends:
            beta = np.frombuffer(data, "<f4").astype(np.float64) * OBSERVATION_SCALE
            t = end - stride_s * np.arange(len(beta) - 1, -1, -1)
            new = t > before + 1e-9
            times.append(t[new])
            values.append(beta[new])
            before = end
        return np.concatenate(times), np.concatenate(values)

    def sample_to_pulse_us(self) -> Float:
        """Device time from a decision's newest sample to its first pulse, less that pulse's place in the mask (n,)."""
        return np.array([given - row["sample_us"] for row, given in self._given()], np.float64)

    def _given(self) -> list[tuple[Row, int]]:
        """Decisions that gave a pulse, each with the device time of slot 0 as the first pulse shows it."""
        first: dict[int, int] = {}
        for pulse in self.pulses:
            if pulse["decision_id"] is not None:
                first.setdefault(pulse["decision_id"], pulse["device_us"])
        found = []
        for row in self.decisions:
            if row["decision_id"] in first:
                t = first[row["decision_id"]]
                slot = round((t - row["start_us"]) / row["slot_period_us"])
                found.append((row, t - slot * row["slot_period_us"]))
        return found

    @property
    def decide_on(self) -> str:
        """Who decides: "host", or "board (FORMAT)"."""
        return str(self.session.get("decide_on", "host"))

    def latency_split_us(self) -> dict[str, Float]:
        """`sample_to_pulse_us` in four parts that add up to it, (n,) each; none in lockstep, where the clock stands.

        ``observing``: from the newest sample to the host's frame, less ``deciding`` where the host decides (the
        plant's own computing time is in it). ``link``: until the board has the whole frame. ``deciding``: by whoever
        decides. ``waiting``: until slot 0 is given. The frame's leaving is told by the host's model of the board's
        clock, a host's deciding by the host's clock, all else by the board's.
        """
        if self.session["clock"] == "lockstep":
            return {}
        parts = []
        for row, given in self._given():
            sent, arrived, answered = row["sent_us"] - row["sample_us"], row.get("whole_us"), row["ack_us"]
            if arrived is None:
                deciding = row["host_decide_us"]
                parts.append((sent - deciding, answered - row["sent_us"], deciding, given - answered))
            else:
                parts.append((sent, arrived - row["sent_us"], answered - arrived, given - answered))
        table = np.array(parts, np.float64).reshape(-1, 4)
        return dict(zip(("observing", "link", "deciding", "waiting"), table.T, strict=True))

    def host_decision_us(self) -> Float:
        """Time that the controller took on the host, of each decision (n,)."""
        return np.array([row["host_decide_us"] for row in self.decisions], np.float64)


def read_session(path: Path) -> SessionData:
    """Read a recording.

    Raises:
        UserError: missing, no recording, damaged, or of another schema version.
    """
    with open_recording(path) as db:
        db.row_factory = sqlite3.Row
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has the schema version {version}: this version reads {SCHEMA_VERSION}")
        tables = {
            name: [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY 1")]
            for name in ("session", "decisions", "pulses", "events")
        }
    if not tables["session"]:
        raise UserError(f"{path} holds no session: its host died before the first decision")
    return SessionData(tables["session"][0], tables["decisions"], tables["pulses"], tables["events"])
