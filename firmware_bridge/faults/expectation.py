"""What a fault must lead to, read from the trace like all that the checker judges; only the checker is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firmware_bridge.faults.checker import Finding, Line, numbers


@dataclass
class Expectation:
    """What must be seen in the trace of a trial, beside the rules that always hold."""

    after_us: int = 0  # the fault: device time (of the running clock) at which it was injected
    state: str | None = None  # the state that must be entered after that
    causes: tuple[str, ...] = ()  # by one of these causes; empty: any
    within_us: int | None = None  # so soon after the fault
    lease_ms: int | None = None  # or: so long after the last sign of the host, plus the deadline
    pulses_max: int | None = None  # no more pulses than these after the fault
    pulses_min: int = 0  # and no fewer than these
    no_pulse_after_us: int | None = None  # none at or after this time
    restart: bool = False  # the board is expected to start again (its clock starts at 0)
    stays: str | None = None  # no other state than this one after the fault


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
    if len(pulses) < wanted.pulses_min:
        text = f"{len(pulses)} pulses after the fault, at least {wanted.pulses_min} are wanted"
        findings.append(Finding(wanted.after_us, "pulses", text))
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
