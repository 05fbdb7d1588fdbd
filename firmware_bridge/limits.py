"""The safety limits, once: compiled into the board (generated ``sea_limits.h``) and repeated on the host.

Integers only, so that both ends decide alike to the last bit: µA × µs = pC, areas in 10^-6 cm². A limit given at run
time may tighten a compiled one, never loosen it. Research use only; no conformity is claimed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.codes import Clamp, NackCode
from firmware_bridge.layout import MASK_BITS
from sea_dbs.files import sha256_json


class Limit(NamedTuple):
    """A number, its unit, and where it comes from."""

    value: int
    unit: str
    source: str


#: 10^1.75 µC·µC/cm² for Q in pC and A in 10^-6 cm²: Q² <= SHANNON × A.
_SHANNON = math.floor(10**1.75 * 1e6)

LIMITS: dict[str, Limit] = {
    "AMPLITUDE_MAX_UA": Limit(5_000, "µA", "default range; clinical devices reach 20 mA"),
    "WIDTH_MIN_US": Limit(60, "µs", "default range; also the shortest width of clinical devices"),
    "WIDTH_MAX_US": Limit(120, "µs", "default range; clinical devices reach 450 µs"),
    "SLOT_PERIOD_MIN_US": Limit(5_406, "µs", "185 Hz, rounded to the slower side; clinical devices reach 255 Hz"),
    "SLOT_PERIOD_MAX_US": Limit(500_000, "µs", "2 Hz"),
    "SLOTS_MAX": Limit(MASK_BITS, "", "bits of a mask"),
    "LEASE_MIN_MS": Limit(20, "ms", "one slot of the presets paper and realtime"),
    "LEASE_MAX_MS": Limit(1_000, "ms", "a lost host is noticed within a second; ours"),
    "LEASE_DEFAULT_MS": Limit(300, "ms", "three renewals of 100 ms"),
    "START_AHEAD_MAX_US": Limit(2_000_000, "µs", "two decisions of the preset paper; ours"),
    "OBSERVE_MAX_US": Limit(1_000_000, "µs", "first to last fragment of an observation, the longest lease; ours"),
    "ELECTRODE_AREA": Limit(60_000, "10^-6 cm²", "0.06 cm², clinical DBS ring contact"),
    "CHARGE_DENSITY_MAX": Limit(30, "µC/cm² a phase", "the usual limit of DBS programming"),
    "SHANNON_Q2_PER_AREA": Limit(_SHANNON, "pC² per 10^-6 cm²", "Shannon 1992 with k = 1.75: log D = k - log Q"),
    "RESIDUAL_MAX_PC": Limit(0, "pC", "the two phases' integer charges sum to zero"),
    "RAMP_UP_UA_S": Limit(500, "µA/s", "of the set point; ours"),
    "RAMP_DOWN_UA_S": Limit(1_000, "µA/s", "of the set point; STOP and SAFE_OFF are exempt; ours"),
    "V_MAX_MV": Limit(10_000, "mV", "what the stimulator can give; clinical devices: about 10 V"),
    "COMPLIANCE_MARGIN_MV": Limit(500, "mV", "amplitude × impedance + margin <= V_max; ours"),
    "OPEN_OHM": Limit(2_000, "ohm", "above: open circuit"),
    "SHORT_OHM": Limit(50, "ohm", "below: short circuit"),
    "DOSE_MAX_UW": Limit(250, "µW", "mean TEED = I²·R·f·PW; 3 mA, 1 kohm, 130 Hz, 60 µs are 70 µW; ours"),
    "DOSE_OHM": Limit(1_000, "ohm", "R of the dose where the measured impedance is smaller or unknown"),
    "WINDOW_US": Limit(1_000_000, "µs", "one bucket of the rolling windows of dose, toggles and overruns; ours"),
    "WINDOW_BUCKETS": Limit(10, "", "buckets of a rolling window, beside the one being filled; ours"),
    "TOGGLE_GAP_US": Limit(200_000, "µs", "a pause of stimulation: no pulse for so long, and for two slots; ours"),
    "TOGGLES_MAX": Limit(40, "", "times on or off in a rolling window: a cycle of 2 Hz; ours"),
    "OVERRUNS_MAX": Limit(3, "", "overruns of the receiver in a rolling window that lead to FALLBACK; ours"),
    "NOT_FINITE_MAX": Limit(3, "", "answers in a row, not finite or saturated, that lead to FALLBACK"),
    "INFERENCE_MAX": Limit(3, "", "answers of the policy in a row, come too late, that lead to FALLBACK; ours"),
    "SENSING_MAX": Limit(3, "", "observations in a row, not fit to act on, that lead to FALLBACK; ours"),
    "SENSING_AGE_MAX_US": Limit(1_000_000, "µs", "age of the newest sample: one window of the preset paper; ours"),
    "SENSING_VALID_PERCENT": Limit(50, "%", "least share of values that were measured, not blanked; ours"),
    "SENSING_FLAT_VALUES": Limit(8, "", "fewer equal values than these are not called flat; ours"),
}

LIMITS_HASH = bytes.fromhex(sha256_json({name: [limit.value, limit.unit] for name, limit in LIMITS.items()}))


def _value(name: str) -> int:
    return LIMITS[name].value


class Effective(NamedTuple):
    """The limits in force: the least of compiled and run-time."""

    amplitude_uA: int = _value("AMPLITUDE_MAX_UA")
    electrode_area: int = _value("ELECTRODE_AREA")  # 10^-6 cm²
    v_max_mV: int = _value("V_MAX_MV")
    dose_uW: int = _value("DOSE_MAX_UW")
    toggles: int = _value("TOGGLES_MAX")


def tighten(
    amplitude_uA: int | None = None,
    electrode_area_cm2: float | None = None,
    *,
    v_max_mV: int | None = None,
    dose_uW: int | None = None,
    toggles: int | None = None,
) -> Effective:
    """Limits given at run time, merged with the compiled ones; nothing can be loosened.

    Raises:
        UserError: a value is not positive, or would loosen a compiled limit.
    """
    compiled = Effective()
    area = compiled.electrode_area if electrode_area_cm2 is None else math.floor(electrode_area_cm2 * 1e6 + 1e-6)
    amplitude = compiled.amplitude_uA if amplitude_uA is None else amplitude_uA
    if not 1 <= area <= compiled.electrode_area:
        raise UserError(
            f"the electrode area {electrode_area_cm2} cm² is outside 0.000001 to {compiled.electrode_area / 1e6} cm²: "
            "a run-time limit can only tighten the compiled one"
        )
    if not 0 <= amplitude <= compiled.amplitude_uA:
        raise UserError(
            f"the amplitude limit {amplitude} µA is outside 0 to {compiled.amplitude_uA} µA: "
            "a run-time limit can only tighten the compiled one"
        )
    others = []
    for name, value, most, unit in (
        ("V_max", v_max_mV, compiled.v_max_mV, "mV"),
        ("dose limit", dose_uW, compiled.dose_uW, "µW"),
        ("limit of toggles", toggles, compiled.toggles, "in a window"),
    ):
        if value is not None and not 1 <= value <= most:
            raise UserError(
                f"the {name} {value} is outside 1 to {most} {unit}: a run-time limit can only tighten the compiled one"
            )
        others.append(most if value is None else value)
    return Effective(amplitude, area, *others)


class Verdict(NamedTuple):
    """What the board makes of an order: refused (code set) or accepted with the amplitude it applies."""

    code: NackCode | None
    value: int = 0  # the refused value and its range
    low: int = 0
    high: int = 0
    amplitude_uA: int = 0
    clamp: Clamp = Clamp(0)


def phase_charge_limits(effective: Effective) -> tuple[int, int]:
    """Greatest charge of a phase (pC) by charge density, and by Shannon's limit."""
    density = _value("CHARGE_DENSITY_MAX") * effective.electrode_area  # µC/cm² × 10^-6 cm² = pC
    return density, math.isqrt(_value("SHANNON_Q2_PER_AREA") * effective.electrode_area)


def judge(
    amplitude_uA: int,
    width_us: int,
    slot_period_us: int,
    slots: int,
    lease_ms: int,
    effective: Effective | None = None,
) -> Verdict:
    """The board's judgement of an order, repeated on the host (equal to the C function for every input).

    A number outside its range cannot have been meant (a wrong unit, a wrong field) and refuses the whole order. An
    amplitude inside its range that this electrode or a run-time limit does not allow is lowered, with the reason.
    """
    effective = effective or Effective()
    for code, value, low, high in (
        (NackCode.AMPLITUDE, amplitude_uA, 0, _value("AMPLITUDE_MAX_UA")),
        (NackCode.WIDTH, width_us, _value("WIDTH_MIN_US"), _value("WIDTH_MAX_US")),
        (NackCode.SLOT_PERIOD, slot_period_us, _value("SLOT_PERIOD_MIN_US"), _value("SLOT_PERIOD_MAX_US")),
        (NackCode.SLOTS, slots, 1, _value("SLOTS_MAX")),
        (NackCode.LEASE, lease_ms, _value("LEASE_MIN_MS"), _value("LEASE_MAX_MS")),
    ):
        if not low <= value <= high:
            return Verdict(code, value, low, high)
    applied, clamp = amplitude_uA, Clamp(0)
    density, shannon = phase_charge_limits(effective)
    for reason, ceiling in (
        (Clamp.RUN_TIME_AMPLITUDE, effective.amplitude_uA),
        (Clamp.CHARGE_DENSITY, density // width_us),
        (Clamp.SHANNON, shannon // width_us),
    ):
        if applied > ceiling:
            applied, clamp = ceiling, clamp | reason
    return Verdict(None, amplitude_uA=applied, clamp=clamp)


def energy_aJ(amplitude_uA: int, width_us: int, ohm: int = 0) -> int:
    """Energy of a pulse's first phase, I²·R·PW, in 10^-18 J: what the dose adds up. At least the nominal resistance."""
    return amplitude_uA * amplitude_uA * max(ohm, _value("DOSE_OHM")) * width_us


def dose_cap_aJ(effective: Effective | None = None) -> int:
    """Energy that a rolling window may hold, in 10^-18 J."""
    return (effective or Effective()).dose_uW * _value("WINDOW_BUCKETS") * _value("WINDOW_US") * 1_000_000


def ramped_pA(set_pA: int, target_uA: int, elapsed_us: int) -> int:
    """The set point after some time on its way to a target (pA; µA/s × µs = pA), as the board moves it."""
    target = target_uA * 1_000_000
    if set_pA < target:
        return min(target, set_pA + elapsed_us * _value("RAMP_UP_UA_S"))
    return max(target, set_pA - elapsed_us * _value("RAMP_DOWN_UA_S"))
