"""A session on the Lab Streaming Layer, while it runs: eight outlets, described in docs/recording.md.

In real time a sample is stamped with the LSL time of what it is about (the newest sample of an observation, the start
of a pulse), by the comparison of the clocks. In lockstep there is no such time: stamps then run with the device's
clock, from the LSL time of the first one. Device times are channels, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.basal_ganglia import OBSERVATION_SCALE
from envs.biomarkers.lfp import LFP_STEP_MS
from envs.signals import LFP_BETA_SCALE, LFP_SCALE, RATE_SCALE_HZ
from firmware_bridge.records import ClockRow, DecisionRow, Outcome, PulseRow
from sea_dbs.extras import need

UNIT = "spikes^2/s^2"  # of P_beta
LFP_IS = (
    "SIMULATED LFP proxy of the STN: sum of the absolute synaptic currents of its cells (Mazzoni et al. 2015), without "
    "artefact or blanking"
)
NO_NACK = -1.0  # stim_applied: the order was not refused
SILENT = ("renew",)  # events that are no news

Channels = Sequence[tuple[str, str, str]]  # label, unit, type

_ORDER: Channels = (
    ("decision_id", "", "id"),
    ("start", "microseconds of device time", "time"),
    ("slot_period", "microseconds", "time"),
    ("amplitude", "microamperes", "current"),
    ("width", "microseconds", "time"),
)
_ACK: Channels = (*_ORDER, ("clamp", "bits", "code"), ("nack", "code, -1: accepted", "code"))
_PULSE: Channels = (
    ("decision_id", "-1: nobody's", "id"),
    ("device_time", "microseconds", "time"),
    ("amplitude", "microamperes", "current"),
    ("width", "microseconds", "time"),
    ("second_amplitude", "microamperes", "current"),
    ("second_width", "microseconds", "time"),
    ("residual", "picocoulombs", "charge"),
)
_FAULT: Channels = (("kind", "", "text"), ("code", "", "text"), ("text", "", "text"), ("device_us", "", "text"))
_LFP: Channels = (("stn", "microamperes/cm^2", "LFP"),)
_CLOCK: Channels = (
    ("offset", "microseconds", "time"),
    ("offset_low", "microseconds", "time"),
    ("offset_high", "microseconds", "time"),
    ("drift", "ppm", "ratio"),
    ("drift_low", "ppm", "ratio"),
    ("drift_high", "ppm", "ratio"),
    ("round_trip", "microseconds", "time"),
)


def observed(config: dict[str, Any], n_obs: int, stride_ms: float) -> Channels:
    """The values of an observation (`envs.basal_ganglia.BasalGangliaEnv`), oldest first."""
    lfp = config["obs"] == "lfp"
    beta = (
        ("lfp_beta", f"({_LFP[0][1]})^2 / {LFP_BETA_SCALE:g}") if lfp else ("P_beta", f"{UNIT} / {OBSERVATION_SCALE:g}")
    )
    if config["view"] == "trace":
        own = config.get("own_duties", 0)
        # Names count back in decisions: -1 is the last one.
        duties = tuple((f"duty_{place - own}", "share of slots", "duty") for place in range(own))
        ages = [round((place - n_obs + 1) * stride_ms) for place in range(own, n_obs)]
        return (*duties, *((f"{beta[0]}_{age}_ms", beta[1], "power") for age in ages))
    unit = f"{_LFP[0][1]} / {LFP_SCALE:g}" if lfp else f"spikes/s / {RATE_SCALE_HZ:g}"
    slots = tuple((f"{'lfp' if lfp else 'rate'}_slot_{place - n_obs + 1}", unit, "slot") for place in range(n_obs - 1))
    return (*slots, (*beta, "power"))


class LslStreams:
    """A `recorder.Listener` that streams what is recorded.

    Args:
        session: values of the recording's table ``session``.
        stride_ms: time between two observed windows.
        lfp: whether there is a plant that gives the STN's LFP proxy; without one there is no outlet ``lfp``.

    Raises:
        UserError: the extra is missing.
    """

    def __init__(self, session: dict[str, Any], stride_ms: float, *, lfp: bool) -> None:
        need("lsl", "pylsl")
        import pylsl

        self._lsl: Any = pylsl
        self._session = session
        self._stride_s = stride_ms * 1e-3
        self._new = round(session["slots"] * session["slot_us"] * 1e-3 / stride_ms)  # windows a decision
        self._realtime = session["clock"] == "realtime"
        self._lsl_minus_host_s: float = pylsl.local_clock() - time.monotonic()
        self._offset_us: float | None = None  # device minus host, by the last comparison
        self._zero_s: float | None = None  # lockstep: LSL time of device time 0
        slots = tuple((f"slot_{place}", "0 or 1", "mask") for place in range(session["slots"]))
        config = json.loads(session["env_config"])
        self._own = int(config.get("own_duties", 0))
        self._observes_beta = (config["obs"], config["view"]) == ("gpi", "trace")
        self._decision_us: int = session["slots"] * session["slot_us"]
        self._sample_us = 0  # of the newest decision
        rate = 1000.0 / stride_ms if self._observes_beta else 1e6 / self._decision_us
        self._outlets: dict[str, Any] = {}
        if lfp:
            self._open("lfp", "LFP", _LFP, pylsl.cf_float32, 1000.0 / LFP_STEP_MS, LFP_IS)
        self._open("P_beta", "P_beta", (("P_beta", UNIT, "power"),), pylsl.cf_float32, rate)
        self._open("policy_obs", "Observation", observed(config, session["n_obs"], stride_ms), pylsl.cf_float32)
        self._open("stim_cmd", "Stimulation", (*_ORDER, *slots), pylsl.cf_double64)
        self._open("stim_applied", "Stimulation", (*_ACK, *slots), pylsl.cf_double64)
        self._open("pulses", "Stimulation", _PULSE, pylsl.cf_double64)
        self._open("faults", "Markers", _FAULT, pylsl.cf_string)
        self._open("clock_offset", "Clock", _CLOCK, pylsl.cf_double64)

    def __enter__(self) -> LslStreams:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the outlets; inlets are to be closed before."""
        self._outlets.clear()

    def _open(
        self, name: str, kind: str, channels: Channels, sample_format: int, rate: float = 0.0, what: str = ""
    ) -> None:
        session = self._session
        source_id = f"sea-dbs-{session['preset']}-{session['seed']}-{name}"
        info = self._lsl.StreamInfo(name, kind, len(channels), rate, sample_format, source_id)
        desc = info.desc()
        desc.append_child_value("manufacturer", "sea-dbs")
        if what:
            desc.append_child_value("description", what)
        described = ("mode", "controller", "board", "clock", "preset", "seed", "hashes", "sea_dbs_version")
        about = desc.append_child("session")
        for key in described:
            about.append_child_value(key, str(session[key]))
        listed = desc.append_child("channels")
        for label, unit, type_ in channels:
            channel = listed.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", unit)
            channel.append_child_value("type", type_)
        self._outlets[name] = self._lsl.StreamOutlet(info)

    # -- Listener ----------------------------------------------------------------------------------------------------

    def decision(self, row: DecisionRow) -> None:
        """P_beta, policy_obs, stim_cmd, stim_applied."""
        seen = np.frombuffer(row.observation, "<f4")
        at = self._stamp(row.sample_us)
        self._sample_us = row.sample_us
        if self._observes_beta:
            new = seen[-self._new :] if row.decision_index else seen[self._own :]
            stamps = [at - self._stride_s * before for before in range(len(new) - 1, -1, -1)]
            self._outlets["P_beta"].push_chunk([[float(value) * OBSERVATION_SCALE] for value in new], stamps)
        self._outlets["policy_obs"].push_sample(seen.tolist(), at)
        head = [row.decision_id, row.start_us, row.slot_period_us]
        ordered = [*head, self._session["amplitude_uA"], self._session["width_us"], *map(int, row.mask)]
        self._outlets["stim_cmd"].push_sample([float(value) for value in ordered], self._stamp(row.sent_us))
        nack = NO_NACK if row.nack is None else row.nack
        applied = [*head, row.applied_amplitude_uA, row.applied_width_us, row.clamp, nack, *map(int, row.applied_mask)]
        self._outlets["stim_applied"].push_sample([float(value) for value in applied], self._stamp(row.ack_us))

    def outcome(self, decision_index: int, outcome: Outcome) -> None:
        """P_beta of the newest window, where an observation does not hold it."""
        if not self._observes_beta:
            self._outlets["P_beta"].push_sample([outcome.P_beta_last], self._stamp(self._sample_us + self._decision_us))

    def lfp(self, device_us: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """The plant's LFP proxy, as simulated: nothing is blanked around pulses, and no artefact is in it."""
        stamps = [self._stamp(int(t)) for t in device_us]
        self._outlets["lfp"].push_chunk([[float(value)] for value in values], stamps)

    def pulses(self, rows: Sequence[PulseRow]) -> None:
        """Pulses as the electrode channel saw them."""
        for row in rows:
            whose = -1 if row.decision_id is None else row.decision_id
            first = (row.amplitude_uA, row.width_us)
            values = (whose, row.device_us, *first, row.second_amplitude_uA, row.second_width_us, row.residual_pC)
            self._outlets["pulses"].push_sample([float(value) for value in values], self._stamp(row.device_us))

    def event(self, device_us: int, kind: str, text: str, code: int | None) -> None:
        """Whatever is recorded as an event, but renewals."""
        if kind not in SILENT:
            values = [kind, "" if code is None else str(code), text, str(device_us)]
            self._outlets["faults"].push_sample(values, self._stamp(device_us))

    def clock(self, row: ClockRow) -> None:
        """The board's clock against the host's."""
        self._offset_us = row.offset_us
        offsets = (row.offset_us, row.offset_low_us, row.offset_high_us)
        values = [*offsets, row.drift_ppm, row.drift_low_ppm, row.drift_high_ppm, float(row.host_round_trip_us)]
        self._outlets["clock_offset"].push_sample(values, row.host_us * 1e-6 + self._lsl_minus_host_s)

    def _stamp(self, device_us: int) -> float:
        """LSL time of a device time (s)."""
        if self._realtime:
            if self._offset_us is None:  # before the clocks were compared: now
                return float(self._lsl.local_clock())
            return (device_us - self._offset_us) * 1e-6 + self._lsl_minus_host_s
        if self._zero_s is None:
            self._zero_s = float(self._lsl.local_clock()) - device_us * 1e-6
        return self._zero_s + device_us * 1e-6
