"""Was every pulse ordered, and inside every limit? Judged from the record alone, not by the board's code."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from firmware_bridge.limits import LIMITS, Effective, dose_cap_aJ, energy_aJ, phase_charge_limits
from sea_dbs.report.session_data import NO_DEVICE_ENVELOPE

GRACE_US = 20_000  # µs of device time after the end of a lease

Row = Mapping[str, Any]


class Audit(NamedTuple):
    """What the check found."""

    violations: list[str]  # one sentence each
    largest_residual_pC: int
    largest_charge_uC: float  # of a phase
    charge_uC: float  # of all first phases


def audit(session: Row, decisions: Sequence[Row], pulses: Sequence[Row], events: Sequence[Row]) -> Audit:
    """Check every pulse of a recording (rows of its tables, in order) against the limits and against what was ordered.

    Limits: amplitude, width, rate, charge density, Shannon; equal charge in both phases; residual 0. Orders: a pulse
    belongs to a set slot of an accepted decision, at the applied amplitude and width, once, before the lease's end and
    before STOP.
    """
    contacts = sorted(
        [row["ack_us"] for row in decisions if row["nack"] is None]
        + [row["device_us"] for row in events if row["kind"] == "renew"]
    )
    armed = [row["device_us"] for row in events if row["kind"] in ("armed", "prelude")]
    stops = [row["device_us"] for row in events if row["kind"] == "stop"]
    orders = {row["decision_id"]: row for row in decisions}
    found: list[str] = []
    taken: set[tuple[int, int]] = set()
    before_us: int | None = None
    ramp = _Ramp(armed, ramps=NO_DEVICE_ENVELOPE not in session["mode"])
    dose = _Dose()
    for pulse in pulses:
        t = pulse["device_us"]
        wrong = _limits(pulse)
        if before_us is not None and t - before_us < LIMITS["SLOT_PERIOD_MIN_US"].value:
            wrong.append(f"came {t - before_us} µs after the one before")
        wrong += ramp.judge(pulse, orders.get(pulse["decision_id"])) + dose.judge(t, pulse)
        before_us = t
        wrong += _order(pulse, orders.get(pulse["decision_id"]), taken)
        last = max((contact for contact in contacts if contact <= t), default=None)
        if last is None or t > last + session["lease_ms"] * 1000 + GRACE_US:
            wrong.append("came after the lease had ended")
        if any(t > stop for stop in stops):
            wrong.append("came after STOP")
        found += [f"the pulse at {t} µs {what}" for what in wrong]
    charges = [abs(pulse["amplitude_uA"]) * pulse["width_us"] * 1e-6 for pulse in pulses]
    return Audit(
        violations=found,
        largest_residual_pC=max((abs(pulse["residual_pC"]) for pulse in pulses), default=0),
        largest_charge_uC=max(charges, default=0.0),
        charge_uC=sum(charges),
    )


class _Ramp:
    """No faster than the set point may climb; what was ordered, or on the way there."""

    def __init__(self, armed_us: list[int], *, ramps: bool) -> None:
        self.armed_us, self.ramps = armed_us, ramps
        self.t_us, self.amplitude_uA = min(armed_us, default=0), 0

    def judge(self, pulse: Row, order: Row | None) -> list[str]:
        t, amplitude, wrong = pulse["device_us"], abs(pulse["amplitude_uA"]), []
        allowed = self.amplitude_uA + (t - self.t_us) * LIMITS["RAMP_UP_UA_S"].value // 1_000_000 + 1  # whole µA
        if self.ramps and amplitude > allowed:
            wrong.append(f"has {amplitude} µA where the ramp allows {allowed} µA")
        if order is not None:
            applied = order["applied_amplitude_uA"]
            afresh = any(self.t_us <= armed <= t for armed in self.armed_us)  # it had ramped down meanwhile
            low = 0 if afresh else min(applied, self.amplitude_uA)
            high = max(applied, self.amplitude_uA)
            if not self.ramps:  # a stimulator without an envelope of its own
                low = high = applied
            if not low <= amplitude <= high:
                wrong.append(f"is not the applied {applied} µA, nor on the way there")
        self.t_us, self.amplitude_uA = t, amplitude
        return wrong


class _Dose:
    """The mean power of a rolling window, at the nominal resistance."""

    def __init__(self) -> None:
        self.window: deque[tuple[int, int]] = deque()
        self.sum_aJ = 0

    def judge(self, t_us: int, pulse: Row) -> list[str]:
        energy = energy_aJ(abs(pulse["amplitude_uA"]), pulse["width_us"])
        self.window.append((t_us, energy))
        self.sum_aJ += energy
        while self.window[0][0] <= t_us - LIMITS["WINDOW_BUCKETS"].value * LIMITS["WINDOW_US"].value:
            self.sum_aJ -= self.window.popleft()[1]
        return ["brings the mean power above its cap"] if self.sum_aJ > dose_cap_aJ() else []


def _limits(pulse: Row) -> list[str]:
    wrong = []
    first = pulse["amplitude_uA"] * pulse["width_us"]  # pC
    second = pulse["second_amplitude_uA"] * pulse["second_width_us"]
    density, shannon = phase_charge_limits(Effective())
    if abs(pulse["amplitude_uA"]) > LIMITS["AMPLITUDE_MAX_UA"].value:
        wrong.append(f"has an amplitude of {abs(pulse['amplitude_uA'])} µA")
    if not LIMITS["WIDTH_MIN_US"].value <= pulse["width_us"] <= LIMITS["WIDTH_MAX_US"].value:
        wrong.append(f"has a width of {pulse['width_us']} µs")
    if abs(first) > min(density, shannon):
        wrong.append(f"has a charge of {abs(first)} pC a phase")
    if first + second != 0 or abs(pulse["residual_pC"]) > LIMITS["RESIDUAL_MAX_PC"].value:
        wrong.append(f"is not balanced (phases {first} and {second} pC, residual {pulse['residual_pC']} pC)")
    return wrong


def _order(pulse: Row, order: Row | None, taken: set[tuple[int, int]]) -> list[str]:
    if order is None:
        return ["was ordered by nobody"]
    slot = round((pulse["device_us"] - order["start_us"]) / order["slot_period_us"])
    wrong = []
    if not 0 <= slot < len(order["applied_mask"]) or order["applied_mask"][slot] != "1":
        wrong.append("falls into a slot without a pulse")
    if (order["decision_id"], slot) in taken:
        wrong.append("is the second one in its slot")
    taken.add((order["decision_id"], slot))
    applied = (order["applied_amplitude_uA"], order["applied_width_us"])
    if pulse["width_us"] != applied[1]:
        wrong.append(f"is not the applied {applied[1]} µs wide")
    return wrong
