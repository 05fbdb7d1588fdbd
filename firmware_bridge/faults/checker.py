"""The independent checker: was what came out of the electrode safe?

It reads only the trace of the electrode channel (JSON lines: pulses, changes of state, leases) and `numbers.yaml`, its
own copy of the numbers. It imports nothing of the core, of ``limits.py``, of the codec or of any other part of this
project, so that no mistake can hide in both; a test keeps it so.

It believes no statement of the core that it can measure: charge, residual and dose are computed from the phases, rate
and toggles from the starts, the ramp from the amplitudes, the impedance from the voltage. What only the core can say
(state, cause, lease) must fit its edges.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Line = Mapping[str, Any]


class Finding(NamedTuple):
    """One breach."""

    t_us: int  # device time
    rule: str  # amplitude, width, balance, residual, rate, charge density, shannon, ramp, dose, compliance, lease, ...
    text: str


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
    lease_us: int | None = None  # end of the lease under way; 0: none; None: not known, the trace began amid a loop
    loop_us: int = 0  # CLOSED_LOOP was entered
    contact_us: int | None = None  # the host was last heard
    fallback_us: int = 0
    doses: deque[tuple[int, float]] = field(default_factory=deque)  # start, µJ: the rolling window
    dose_uJ: float = 0.0
    switched_on: deque[int] = field(default_factory=deque)  # starts after a pause: the rolling window
    train_us: int | None = None  # shortest distance of pulses in this loop
    outside: int = 0  # pulses on an electrode that is open, short, or beyond the voltage; since a person was there
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
        rest = deque(lines)
        while rest:
            line = rest.popleft()
            if rest and _belongs_after(self._seen, line, rest[0], self._rules):
                line, rest[0] = rest[0], line
            _line(self._seen, line, self._rules)


def _belongs_after(seen: _Seen, pulse: Line, state: Line, rules: Mapping[str, Any]) -> bool:
    """The first pulse of the approved setting may be told a moment before its state, FALLBACK."""
    if "pulse" not in pulse or state.get("state") != "FALLBACK" or rules["fallback_setting"] is None:
        return False
    told_late = int(state["t_us"]) - int(pulse["t_us"])
    return 0 < (seen.lease_us or 0) <= int(pulse["t_us"]) and 0 <= told_late <= rules["told_within_us"]


def _line(seen: _Seen, line: Line, rules: Mapping[str, Any]) -> None:
    t_us = int(line.get("t_us", seen.t_us))
    if t_us < seen.t_us - rules["told_within_us"] and line.get("cause") not in rules["restart_causes"]:
        seen.breach(t_us, "clock", f"the trace goes back from {seen.t_us} to {t_us} µs without a restart")
    if "grounded" in line:
        _grounded(seen, line, rules)
        return
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
        if seen.lease_us == 0 and t_us > seen.loop_us + rules["told_within_us"]:
            seen.breach(t_us, "lease", "a pulse in CLOSED_LOOP without any lease")
        if seen.contact_us is not None and t_us > seen.contact_us + 1000 * rules["lease_max_ms"]:
            seen.breach(t_us, "lease", f"a pulse {(t_us - seen.contact_us) / 1e3:.0f} ms after the host was last heard")
    _broken(seen, t_us, abs(first), pulse, rules)
    _dose(seen, t_us, amplitude, max(width, second_width), int(pulse.get("peak_uV", 0)), rules)
    _toggles(seen, t_us, rules)
    if seen.state == "FALLBACK":
        _fixed(seen, t_us, amplitude, (width, second_width), rules)
    else:
        _ramp(seen, t_us, amplitude, rules)
    seen.ramp_us, seen.ramp_uA, seen.ramp_known = t_us, float(amplitude), True
    seen.pulse_us = t_us


def _charge(seen: _Seen, t_us: int, charge_uC: float, rules: Mapping[str, Any]) -> None:
    if charge_uC <= 0:
        return
    density = charge_uC / rules["electrode_area_cm2"]
    if density > rules["charge_density_max_uC_cm2"] * (1 + 1e-9):
        seen.breach(t_us, "charge density", f"{density:.2f} µC/cm² a phase")
    if math.log10(density) + math.log10(charge_uC) > rules["shannon_k"] + 1e-6:
        seen.breach(t_us, "shannon", f"k = {math.log10(density) + math.log10(charge_uC):.3f}")


def _broken(seen: _Seen, t_us: int, amplitude: float, pulse: Mapping[str, Any], rules: Mapping[str, Any]) -> None:
    """A few pulses may find out that the electrode is open, short, beyond the voltage, or keeps charge; no more."""
    peak_uV, left_pC = int(pulse.get("peak_uV", 0)), int(pulse["residual_pC"])
    ohm = peak_uV / amplitude if amplitude else 0.0
    measured = peak_uV > 0 and amplitude > 0
    too_high = peak_uV > 1000 * (rules["v_max_mV"] - rules["compliance_margin_mV"])
    wrong = measured and (too_high or not rules["short_ohm"] <= ohm <= rules["open_ohm"])
    if seen.outside or wrong or abs(left_pC) > rules["residual_max_pC"]:
        seen.outside += 1
    if seen.outside > rules["pulses_outside_max"]:
        text = f"pulse {seen.outside} since the electrode left its limits"
        seen.breach(t_us, "compliance", f"{text} ({peak_uV / 1e6:.2f} V, {ohm:.0f} ohm, {left_pC} pC left)")


def _dose(seen: _Seen, t_us: int, uA: float, us: float, peak_uV: int, rules: Mapping[str, Any]) -> None:
    """TEED = I²·R·f·PW, as the energy of a rolling window."""
    measured = peak_uV / uA if uA else 0.0
    ohm = max(rules["dose_ohm"], min(measured, rules["open_ohm"]))
    energy_uJ = (uA * 1e-6) ** 2 * ohm * us
    seen.doses.append((t_us, energy_uJ))
    seen.dose_uJ += energy_uJ
    while seen.doses[0][0] <= t_us - 1e6 * rules["dose_window_s"]:
        seen.dose_uJ -= seen.doses.popleft()[1]
    mean_uW = seen.dose_uJ / rules["dose_window_s"]
    if mean_uW > rules["dose_max_uW"] * (1 + rules["dose_slack"]):
        seen.breach(t_us, "dose", f"mean of {mean_uW:.1f} µW over {rules['dose_window_s']} s")


def _toggles(seen: _Seen, t_us: int, rules: Mapping[str, Any]) -> None:
    """Stimulation that is switched on again and again, whatever the distance of its pulses."""
    if seen.pulse_us is None:
        return  # what was before is not known
    pause = t_us - seen.pulse_us
    if pause < max(rules["toggle_gap_us"], 2 * (seen.train_us or pause)):
        seen.train_us = min(pause, seen.train_us or pause)
        return
    seen.switched_on.append(t_us)
    while seen.switched_on[0] <= t_us - 1e6 * rules["toggle_window_s"]:
        seen.switched_on.popleft()
    if len(seen.switched_on) > rules["cycles_max"]:
        seen.breach(t_us, "toggles", f"switched on {len(seen.switched_on)} times in {rules['toggle_window_s']} s")


def _fixed(seen: _Seen, t_us: int, amplitude: float, us: tuple[int, int], rules: Mapping[str, Any]) -> None:
    """FALLBACK gives the setting that was approved before, reached by the ramp; or nothing."""
    setting, after_s = rules["fallback_setting"], (t_us - seen.fallback_us) / 1e6
    if setting is None:
        seen.breach(t_us, "fallback", f"a pulse {after_s:.3f} s after the entry into FALLBACK, which gives none")
        return
    if us != (setting["width_us"],) * 2:
        seen.breach(t_us, "fallback", f"{us[0]}/{us[1]} µs in FALLBACK, not {setting['width_us']} µs")
    if seen.pulse_us is not None and t_us - seen.pulse_us < setting["period_us"]:
        text = f"{t_us - seen.pulse_us} µs after the last pulse, not {setting['period_us']} µs"
        seen.breach(t_us, "fallback", text)
    if after_s > rules["fallback_ramp_max_s"] and amplitude > setting["amplitude_uA"] + rules["ramp_slack_uA"]:
        seen.breach(t_us, "ramp", f"{amplitude} µA {after_s:.2f} s after the entry into FALLBACK")
    highest = max(seen.ramp_uA, setting["amplitude_uA"])
    if amplitude > highest + rules["ramp_slack_uA"]:
        seen.breach(t_us, "ramp", f"{amplitude} µA in FALLBACK, above {highest:.0f} µA")
    _ramp(seen, t_us, amplitude, rules)


def _ramp(seen: _Seen, t_us: int, amplitude: float, rules: Mapping[str, Any]) -> None:
    slack, passed_s = rules["ramp_slack_uA"], max(0, t_us - seen.ramp_us) / 1e6
    allowed = seen.ramp_uA + rules["ramp_up_uA_s"] * passed_s
    if amplitude > allowed + slack:
        seen.breach(t_us, "ramp", f"{amplitude} µA where the ramp allows {allowed:.0f} µA")
    least = seen.ramp_uA - rules["ramp_down_uA_s"] * passed_s
    if seen.ramp_known and amplitude < least - slack:
        seen.breach(t_us, "ramp", f"{amplitude} µA where the ramp down allows {least:.0f} µA")


def _grounded(seen: _Seen, line: Line, rules: Mapping[str, Any]) -> None:
    """The bench looked at the electrode: shorted wherever no pulse may come."""
    state = str(line["in"])
    gives = state == "CLOSED_LOOP" or (state == "FALLBACK" and rules["fallback_setting"] is not None)
    if state in rules["edges"] and bool(line["grounded"]) == gives:
        was = "grounded" if gives else "not grounded"
        seen.breach(int(line["at_us"]), "grounded", f"the electrode is {was} in {state}")


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
        seen.train_us = None
        if restarted:
            seen.pulse_us = None
            seen.doses.clear()
            seen.switched_on.clear()
            seen.dose_uJ = 0.0
        if restarted or cause == "PERSON":
            seen.outside = 0
    elif state == "FALLBACK":  # the set point may have gone on rising under an empty mask
        up = rules["ramp_up_uA_s"] * (t_us - seen.ramp_us) / 1e6
        seen.fallback_us = seen.ramp_us = t_us
        seen.ramp_uA = min(seen.ramp_uA + up, rules["amplitude_max_uA"])
    elif state == "ARMED" and before == "FALLBACK":
        down = rules["ramp_down_uA_s"] * (t_us - max(seen.fallback_us, seen.ramp_us)) / 1e6
        held = (rules["fallback_setting"] or {"amplitude_uA": 0})["amplitude_uA"]
        seen.ramp_us, seen.ramp_uA = t_us, max(0.0 + held, seen.ramp_uA - down)
    elif state == "CLOSED_LOOP":
        seen.ramp_us = seen.loop_us = t_us
    seen.state = state
