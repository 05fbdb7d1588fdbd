"""A recorded session, read from its SQLite file (schema: sea_dbs/recording_schema.py), also after a kill -9."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.errors import UserError
from sea_dbs.recording_file import open_recording
from sea_dbs.recording_schema import fill

NO_DEVICE_ENVELOPE = "NO DEVICE ENVELOPE"  # how the mode of a session begins whose stimulator enforces nothing
SETTING_MAX = 1e9  # of a number of the environment's configuration
STRIDE_MIN_MS = 1e-3  # ms
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

    def setting(self, name: str, default: float | None = None) -> float:
        """A number of the environment's configuration.

        Raises:
            UserError: it holds none of this name, nor is there a default.
        """
        value = json.loads(self.session["env_config"]).get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= SETTING_MAX:
            raise UserError(f"the recording is damaged: its env_config holds no {name} from 0 to {SETTING_MAX:g}")
        return float(value)

    @property
    def observes_beta(self) -> bool:
        """Whether what was observed is P_beta of sliding windows; else it is single slots, or the LFP."""
        config = json.loads(self.session["env_config"])
        return (config.get("obs", "gpi"), config.get("view", "trace")) == ("gpi", "trace")

    @property
    def own_duties(self) -> int:
        """How many values of an observation, the first, are duties of the decisions before it."""
        return min(round(self.setting("own_duties", 0.0)), int(self.session["n_obs"]))

    @property
    def stride_s(self) -> float:
        """From one window of P_beta to the next (s).

        Raises:
            UserError: as `setting`.
        """
        if (stride_ms := self.setting("stride_ms")) < STRIDE_MIN_MS:
            raise UserError(f"the recording is damaged: its stride_ms is {stride_ms:g}, below {STRIDE_MIN_MS:g}")
        return stride_ms * 1e-3

    @property
    def beta_step_s(self) -> float:
        """From one value of `beta_trace` to the next (s)."""
        return self.stride_s if self.observes_beta else self.decision_s

    def duty(self) -> float:
        """Share of slots in which a pulse came on the electrode."""
        slots = self.session["slots"] * len(self.done)
        return sum(row["pulses"] for row in self.done) / slots if slots else 0.0

    def beta_trace(self) -> tuple[Float, Float]:
        """P_beta of every window: (end of the window, s on the plant's clock; P_beta), both (n,), without repeats.

        Where something else was observed, the newest window at the end of each decision.
        """
        if not self.observes_beta:
            last = [(row["plant_us"] * 1e-6 + self.decision_s, row["P_beta_last"]) for row in self.done]
            table = np.array(last, np.float64).reshape(-1, 2)
            return table[:, 0], table[:, 1]
        stride_s, own = self.stride_s, self.own_duties
        ends = [(row["plant_us"] * 1e-6, row["observation"]) for row in self.decisions]
        if self.session["final_observation"] is not None and ends:
            ends.append((ends[-1][0] + self.decision_s, self.session["final_observation"]))
        times: list[Float] = [np.zeros(0)]
        values: list[Float] = [np.zeros(0)]
        before = -np.inf
        for end, data in ends:
            beta = np.frombuffer(data, "<f4")[own:].astype(np.float64) * OBSERVATION_SCALE
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
        tables = {
            name: [fill(name, dict(row)) for row in db.execute(f"SELECT * FROM {name} ORDER BY 1")]
            for name in ("session", "decisions", "pulses", "events")
        }
    if not tables["session"]:
        raise UserError(f"{path} holds no session: its host died before the first decision")
    session, decisions = tables["session"][0], tables["decisions"]
    for name in ("env_config", "hashes", "host_machine"):
        _check_json(path, name, session[name], of_texts=name == "hashes")
    n_obs, slots = session["n_obs"], session["slots"]
    _check_blob(path, "session.final_observation", session["final_observation"], 4 * n_obs)
    for i, row in enumerate(decisions):
        _check_blob(path, f"observation {i}", row["observation"], 4 * n_obs)
        _check_blob(path, f"logits {i}", row["logits"], 8 * slots)
    if any(after["plant_us"] < before["plant_us"] for before, after in pairwise(decisions)):
        raise UserError(f"{path} is damaged: the plant's time runs backwards in its table decisions")
    return SessionData(session, decisions, tables["pulses"], tables["events"])


def _check_json(path: Path, name: str, text: str, *, of_texts: bool) -> None:
    """An object; with ``of_texts`` one that maps names to texts."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or (of_texts and not all(isinstance(value, str) for value in found.values())):
        raise UserError(f"{path} is damaged: session.{name} is no JSON object{' of texts' if of_texts else ''}")


def _check_blob(path: Path, name: str, data: bytes | None, size: int) -> None:
    """float32 values, as many as there must be, all finite; or none."""
    if data is not None and (len(data) != size or not np.isfinite(np.frombuffer(data, "<f4")).all()):
        raise UserError(f"{path}: {name} is damaged: {size // 4} finite float32 values are expected")
