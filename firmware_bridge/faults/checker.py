"""The independent checker: was what came out of the electrode safe?

It reads only the trace of the electrode channel (JSON lines: pulses, changes of state, leases) and `numbers.yaml`, its
own copy of the numbers. It imports nothing of the core, of ``limits.py``, of the codec or of any other part of this
project, so that no mistake can hide in both; a test keeps it so.

It believes no statement of the core that it can measure: charge and residual are computed from the phases, rate from
the starts, the ramp from the amplitudes. What only the core can say (state, cause, lease) must fit its edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Line = Mapping[str, Any]


class Finding(NamedTuple):
    """One breach."""

    t_us: int  # device time
    rule: str  # amplitude, width, balance, residual, rate, charge density, shannon, ramp, lease, state, restart, ...
    text: str


@dataclass
class Expectation:
    """What must be seen in the trace of a trial, beside the rules that always hold."""

    after_us: int = 0  # the fault: device time (of the running clock) at which it was injected
    state: str | None = None  # the state that must be entered after that
    causes: tuple[str, ...] = ()  # by one of these causes; empty: any
    within_us: int | None = None  # so soon after the fault
    lease_ms: int | None = None  # or: so long after the last sign of the host, plus the deadline
    pulses_max: int | None = None  # no more pulses than these after the fault
    no_pulse_after_us: int | None = None  # none at or after this time
    restart: bool = False  # the board is expected to start again (its clock starts at 0)
    stays: str | None = None  # no other state than this one after the fault


def numbers() -> dict[str, Any]:
    """The checker's own numbers."""
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("numbers.yaml").read_text())
    return loaded


@dataclass
class _Seen:
    """What the checker knows as it reads on."""

    state: str | None = None
    t_us: int = 0
    pulse_us: int | None = None  # start of the last pulse
    ramp_us: int = 0  # the ramp's last known point ...
    ramp_uA: float = 0.0
    ramp_known: bool = False  # it is a pulse of this loop, not only a bound
    lease_us: int = 0  # end of the lease under way; 0: none
    contact_us: int | None = None  # the host was last heard
    fallback_us: int = 0
    fallback_uA: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def breach(self, t_us: int, rule: str, text: str) -> None:
        self.findings.append(Finding(t_us, rule, text))


def check(lines: Iterable[Line], limits: Mapping[str, Any] | None = None, state: str | None = None) -> list[Finding]:
    """Every breach of the rules that always hold, in order. ``state``: the board's state before the first line."""
    checker = Checker(limits, state)
    checker.feed(lines)
    return checker.findings


class Checker:
    """`check` for a trace that comes piece by piece; `findings` gather."""

    def __init__(self, limits: Mapping[str, Any] | None = None, state: str | None = None) -> None:
        self._rules = numbers() if limits is None else limits
        self._seen = _Seen(state=state)

    @property
    def findings(self) -> list[Finding]:
        """Every breach so far, in order."""
        return self._seen.findings

    def feed(self, lines: Iterable[Line]) -> None:
        """The next lines."""
        for line in lines:
            _line(self._seen, line, self._rules)


def _line(seen: _Seen, line: Line, rules: Mapping[str, Any]) -> None:
    t_us = int(line.get("t_us", seen.t_us))
    if t_us < seen.t_us and line.get("cause") not in rules["restart_causes"]:
        seen.breach(t_us, "clock", f"the trace goes back from {seen.t_us} to {t_us} µs without a restart")
    if "pulse" in line:
        _pulse(seen, t_us, line["pulse"], rules)
    elif "lease_until_us" in line:
        _lease(seen, t_us, int(line["lease_until_us"]), rules)
    elif "state" in line and line["state"] != "OFF":
        _state(seen, t_us, str(line["state"]), str(line.get("cause")), rules)
    seen.t_us = t_us


def _pulse(seen: _Seen, t_us: int, pulse: Mapping[str, Any], rules: Mapping[str, Any]) -> None:
    (first, second), (width, second_width) = pulse["uA"], pulse["us"]
    amplitude = max(abs(first), abs(second))
    if amplitude > rules["amplitude_max_uA"]:
        seen.breach(t_us, "amplitude", f"{amplitude} µA is above {rules['amplitude_max_uA']} µA")
    for us in (width, second_width):
        if not rules["width_min_us"] <= us <= rules["width_max_us"]:
            seen.breach(t_us, "width", f"{us} µs is outside {rules['width_min_us']} to {rules['width_max_us']} µs")
    left = first * width + second * second_width
    if abs(left) > rules["residual_max_pC"]:
        seen.breach(t_us, "balance", f"the phases' charges sum to {left} pC")
    if abs(pulse["residual_pC"]) > rules["residual_max_pC"] and seen.state is not None:
        seen.breach(t_us, "residual", f"{pulse['residual_pC']} pC were left on the electrode")
    _charge(seen, t_us, amplitude * 1e-6 * max(width, second_width), rules)
    if seen.pulse_us is not None and t_us - seen.pulse_us < math.floor(1e6 / rules["rate_max_hz"]):
        seen.breach(t_us, "rate", f"{t_us - seen.pulse_us} µs after the last pulse: above {rules['rate_max_hz']} Hz")
    if seen.state is not None and seen.state not in rules["pulse_states"]:
        seen.breach(t_us, "state", f"a pulse in {seen.state}")
    if seen.state == "CLOSED_LOOP":
        if seen.lease_us and t_us >= seen.lease_us:
            seen.breach(t_us, "lease", f"a pulse {t_us - seen.lease_us} µs after the end of the lease")
        if seen.contact_us is not None and t_us > seen.contact_us + 1000 * rules["lease_max_ms"]:
            seen.breach(t_us, "lease", f"a pulse {(t_us - seen.contact_us) / 1e3:.0f} ms after the host was last heard")
    _ramp(seen, t_us, amplitude, rules)
    seen.pulse_us = t_us


def _charge(seen: _Seen, t_us: int, charge_uC: float, rules: Mapping[str, Any]) -> None:
    if charge_uC <= 0:
        return
    density = charge_uC / rules["electrode_area_cm2"]
    if density > rules["charge_density_max_uC_cm2"] * (1 + 1e-9):
        seen.breach(t_us, "charge density", f"{density:.2f} µC/cm² a phase")
    if math.log10(density) + math.log10(charge_uC) > rules["shannon_k"] + 1e-6:
        seen.breach(t_us, "shannon", f"k = {math.log10(density) + math.log10(charge_uC):.3f}")


def _ramp(seen: _Seen, t_us: int, amplitude: float, rules: Mapping[str, Any]) -> None:
    slack = rules["ramp_slack_uA"]
    if seen.state == "FALLBACK":
        after_s = (t_us - seen.fallback_us) / 1e6
        if amplitude > seen.ramp_uA + slack:
            seen.breach(t_us, "ramp", f"{amplitude} µA in FALLBACK, above the {seen.ramp_uA:.0f} µA before")
        if after_s > rules["fallback_ramp_max_s"]:
            seen.breach(t_us, "ramp", f"a pulse {after_s:.2f} s after the entry into FALLBACK")
    else:
        allowed = seen.ramp_uA + rules["ramp_up_uA_s"] * max(0, t_us - seen.ramp_us) / 1e6
        if amplitude > allowed + slack:
            seen.breach(t_us, "ramp", f"{amplitude} µA where the ramp allows {allowed:.0f} µA")
        least = seen.ramp_uA - rules["ramp_down_uA_s"] * max(0, t_us - seen.ramp_us) / 1e6
        if seen.ramp_known and amplitude < least - slack:
            seen.breach(t_us, "ramp", f"{amplitude} µA where the ramp down allows {least:.0f} µA")
    seen.ramp_us, seen.ramp_uA, seen.ramp_known = t_us, float(amplitude), True


def _lease(seen: _Seen, t_us: int, until_us: int, rules: Mapping[str, Any]) -> None:
    if until_us:
        if until_us - t_us > 1000 * rules["lease_max_ms"]:
            seen.breach(t_us, "lease", f"a lease of {(until_us - t_us) / 1e3:.0f} ms")
        seen.contact_us = t_us
    seen.lease_us = until_us


def _state(seen: _Seen, t_us: int, state: str, cause: str, rules: Mapping[str, Any]) -> None:
    before = seen.state
    restarted = cause in rules["restart_causes"] and state in ("BOOT", "IDLE")
    if before is not None and not restarted:
        allowed = rules["edges"].get(before, {}).get(state)
        if state != before and (allowed is None or (allowed != "any" and cause not in allowed)):
            seen.breach(t_us, "state", f"from {before} to {state} by {cause}")
    if before == "SAFE_OFF" and state != "SAFE_OFF" and cause != "PERSON" and not restarted:
        seen.breach(t_us, "re-arm", f"left SAFE_OFF by {cause}, not by a person")
    if state == "FALLBACK" and before == "CLOSED_LOOP" and seen.contact_us is not None:
        late = t_us - seen.contact_us - 1000 * (rules["lease_max_ms"] + rules["deadline_ms"])
        promised = t_us - seen.lease_us - 1000 * rules["deadline_ms"] if seen.lease_us else 0
        if late > 0 or promised > 0:
            seen.breach(t_us, "lease", f"FALLBACK came {max(late, promised) / 1e3:.1f} ms after its deadline")
    seen.ramp_known &= state == before
    if restarted or state in ("IDLE", "SAFE_OFF", "BOOT"):
        seen.ramp_us, seen.ramp_uA, seen.lease_us, seen.contact_us = t_us, 0.0, 0, None
        if restarted:
            seen.pulse_us = None
    elif state == "FALLBACK":  # the set point may have gone on rising under an empty mask
        up = rules["ramp_up_uA_s"] * (t_us - seen.ramp_us) / 1e6
        seen.fallback_us = seen.ramp_us = t_us
        seen.ramp_uA = min(seen.ramp_uA + up, rules["amplitude_max_uA"])
    elif state == "ARMED" and before == "FALLBACK":
        down = rules["ramp_down_uA_s"] * (t_us - seen.fallback_us) / 1e6
        seen.ramp_us, seen.ramp_uA = t_us, max(0.0, seen.ramp_uA - down)
    elif state == "CLOSED_LOOP":
        seen.ramp_us = t_us
    seen.state = state


def expected(lines: Sequence[Line], wanted: Expectation, limits: Mapping[str, Any] | None = None) -> list[Finding]:
    """What is missing of the safe reaction, and what was too much."""
    rules = numbers() if limits is None else limits
    at = _fault_index(lines, wanted)
    after = lines[at:]
    findings: list[Finding] = []
    if wanted.state is not None:
        findings += _reaction(lines, at, wanted, rules)
    pulses = [int(line["t_us"]) for line in after if "pulse" in line]
    if wanted.pulses_max is not None and len(pulses) > wanted.pulses_max:
        findings.append(Finding(pulses[wanted.pulses_max], "pulses", f"{len(pulses)} pulses after the fault, at most "
                                f"{wanted.pulses_max} are allowed"))  # fmt: skip
    if wanted.no_pulse_after_us is not None:
        findings += [Finding(t, "pulses", "a pulse where none may be") for t in pulses if t >= wanted.no_pulse_after_us]
    if wanted.stays is not None:
        for line in after:
            if "state" in line and line["state"] not in (wanted.stays, "OFF"):
                text = f"{line['state']} by {line.get('cause')}: it should have stayed in {wanted.stays}"
                findings.append(Finding(int(line["t_us"]), "state", text))
    return findings


def _fault_index(lines: Sequence[Line], wanted: Expectation) -> int:
    """First line at or after the fault; after a restart every line of the new life."""
    if wanted.restart:
        for i, line in enumerate(lines):
            if line.get("cause") in ("POWER_ON", "RESET", "WATCHDOG") and line.get("state") == "IDLE":
                return i
    for i, line in enumerate(lines):
        if int(line.get("t_us", -1)) >= wanted.after_us:
            return i
    return len(lines)


def _reaction(lines: Sequence[Line], at: int, wanted: Expectation, rules: Mapping[str, Any]) -> list[Finding]:
    for line in lines[at:]:
        if line.get("state") != wanted.state:
            continue
        t_us, cause = int(line["t_us"]), str(line.get("cause"))
        if wanted.causes and cause not in wanted.causes:
            return [Finding(t_us, "cause", f"{wanted.state} by {cause}, not by {' or '.join(wanted.causes)}")]
        if wanted.within_us is not None and t_us - wanted.after_us > wanted.within_us and not wanted.restart:
            took = (t_us - wanted.after_us) / 1e3
            return [Finding(t_us, "late", f"{wanted.state} {took:.1f} ms after the fault, not within "
                            f"{wanted.within_us / 1e3:.0f} ms")]  # fmt: skip
        if wanted.lease_ms is not None:
            heard = [int(x["t_us"]) for x in lines if x.get("lease_until_us") and int(x["t_us"]) <= t_us]
            late = t_us - (heard[-1] if heard else wanted.after_us)
            if late > 1000 * (wanted.lease_ms + rules["deadline_ms"]):
                return [Finding(t_us, "lease", f"{wanted.state} {late / 1e3:.1f} ms after the host was last heard")]
        return []
    return [Finding(wanted.after_us, "reaction", f"not there: {wanted.state} never came")]
