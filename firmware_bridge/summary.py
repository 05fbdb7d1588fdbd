"""What a recording amounts to: summary.json, from the SQLite file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.stimulation import DEVICE_AMPLITUDE_UA, DEVICE_WIDTH_US
from firmware_bridge.audit import audit
from sea_dbs.report import release, shadow
from sea_dbs.report.session_data import SessionData, read_session

SPLIT_IS = (
    "the parts of sample_to_pulse: observing (newest sample to the host's frame, the plant's own computing in it), "
    "link (until the board has it whole), deciding (by whoever decides), waiting (until slot 0 is given); device time, "
    "but for a host's deciding"
)
CONTINUOUS_HZ = 130.0  # the usual continuous stimulation, to which charge is compared

Row = Mapping[str, Any]


def summarise(path: Path) -> dict[str, Any]:
    """The figures of a session, also of one that was killed.

    Raises:
        UserError: no recording, or a damaged one.
    """
    data = read_session(path)
    session, decisions, pulses, events = data.session, data.decisions, data.pulses, data.events
    done = data.done
    beta = [row["P_beta"] for row in done]
    checked = audit(session, decisions, pulses, events)
    slots = session["slots"] * len(done)
    seconds = slots * session["slot_us"] * 1e-6
    continuous_uC = CONTINUOUS_HZ * seconds * DEVICE_AMPLITUDE_UA * DEVICE_WIDTH_US * 1e-6
    return {
        "mode": session["mode"],
        "release": None if (signed := release.held(data)) is None else signed._asdict(),
        "shadow": shadow.facts(data),
        "outcome": session["outcome"] or "the host died before the session ended",
        "seed": session["seed"],
        "preset": session["preset"],
        "controller": session["controller"],
        "board": session["board"],
        "clock": session["clock"],
        "decide_on": data.decide_on,
        "board_logits": _board_logits(data),
        "source": next((row["text"] for row in events if row["kind"] == "source"), "plant"),
        "decisions": len(done),
        "device_seconds": round(seconds, 6),
        "P_beta": {
            "first": session["P_beta_first"],
            "last": beta[-1] if beta else None,
            "mean": float(np.mean(beta)) if beta else None,
        },
        "duty": data.duty(),
        "pulses": len(pulses),
        "charge_uC": checked.charge_uC,
        "charge_nC_cm2": sum(row["charge_nC_cm2"] for row in done),
        "charge_percent_of_continuous_130_Hz": 100.0 * checked.charge_uC / continuous_uC if seconds else 0.0,
        "latency_us": {
            "sample_to_pulse": _quantiles([round(value) for value in data.sample_to_pulse_us()]),
            "sample_to_pulse_is": "device time from the newest sample to the decision's first pulse, less that pulse's "
            "place in the mask"
            + (
                " (0 in lockstep by construction: the clock stands meanwhile)" if session["clock"] == "lockstep" else ""
            ),
            "split": {name: _quantiles(list(map(round, us))) for name, us in data.latency_split_us().items()},
            "split_is": SPLIT_IS,
            "host_decision": _quantiles([row["host_decide_us"] for row in decisions]),
            "order_to_ack": _quantiles([round((row["host_ack"] - row["host_sent"]) * 1e6) for row in decisions]),
        },
        "deadline_misses": _count(events, "deadline"),
        "refused": sum(row["nack"] is not None for row in decisions),
        "clamped": sum(row["clamp"] != 0 for row in decisions),
        "renewals": _count(events, "renew"),
        "prelude": _prelude(events),
        "handshakes": _count(events, "handshake"),
        "faults": [row["text"] for row in events if row["kind"] == "fault"],
        "safety": {
            "violations": len(checked.violations),
            "violation_list": checked.violations[:20],
            "largest_residual_pC": checked.largest_residual_pC,
            "largest_charge_uC_per_phase": checked.largest_charge_uC,
            "checked_against": "compiled limits and orders, from the electrode channel",
        },
        "hashes": data.hashes,
        "sea_dbs_version": session["sea_dbs_version"],
        "git_commit": session["git_commit"],
    }


def _prelude(events: Sequence[Row]) -> dict[str, Any] | None:
    """How long the set point climbed before the first decision; None: it was not waited for."""
    rows = [row for row in events if row["kind"] == "prelude"]
    if not rows:
        return None
    seconds = (rows[-1]["device_us"] - rows[0]["device_us"]) * 1e-6
    return {"device_seconds": round(seconds, 6), "orders": "without a pulse", "text": rows[-1]["text"]}


def _board_logits(data: SessionData) -> dict[str, Any] | None:
    """The board's logits against the integer reference on the host; None: the host decided."""
    if data.decide_on == "host":
        return None
    differ = [row["logits_differ"] for row in data.decisions if row["logits_differ"] is not None]
    return {
        "decisions_checked": len(differ),
        "decisions_that_differ": sum(count > 0 for count in differ),
        "values_that_differ": sum(differ),
        "reference": "export.integer, bit by bit" if differ else "none: only int8 is the same arithmetic on the host",
    }


def _quantiles(values: Sequence[int]) -> dict[str, float | int | None]:
    if not values:
        return {"p50": None, "p99": None, "max": None, "jitter": None, "n": 0}
    p1, p50, p99 = (float(value) for value in np.percentile(values, (1, 50, 99)))
    return {"p50": p50, "p99": p99, "max": max(values), "jitter": p99 - p1, "n": len(values)}


def _count(events: Sequence[Row], kind: str) -> int:
    return sum(row["kind"] == kind for row in events)
