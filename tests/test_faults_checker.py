"""The independent checker finds every kind of bad trace, and shares nothing with what it checks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware_bridge.faults import checker, expectation
from firmware_bridge.faults.checker import check
from firmware_bridge.faults.expectation import Expectation, expected
from firmware_bridge.faults.inject_host import lost_host

Line = dict[str, Any]
LEASE_US = 300_000


def pulse(t_us: int, uA: int, us: int = 60, **other: Any) -> Line:
    return {"t_us": t_us, "pulse": {"uA": [-uA, uA], "us": [us, us], "residual_pC": 0, **other}}


def state(t_us: int, name: str, cause: str) -> Line:
    return {"t_us": t_us, "state": name, "cause": cause}


def lease(t_us: int, until_us: int) -> Line:
    return {"t_us": t_us, "lease_until_us": until_us}


def good() -> list[Line]:
    """Two seconds of a loop: armed, ordered, ramp, renewals, host lost, FALLBACK by the lease; then armed afresh."""
    lines = [
        state(0, "IDLE", "POWER_ON"),
        state(1_000, "ARMED", "ARMED_BY_HOST"),
        state(2_000, "CLOSED_LOOP", "ORDERED"),
    ]
    for k in range(10):
        at = 2_000 + 100_000 * k
        lines.append(lease(at, at + LEASE_US))
        lines += [pulse(t, (t - 2_000) // 2_000) for t in range(at + 20_000, at + 100_001, 20_000)]
    end = 902_000 + LEASE_US
    lines += [pulse(t, (t - 2_000) // 2_000) for t in range(1_022_000, end, 20_000)]
    lines += [state(end, "FALLBACK", "LEASE_ENDED"), lease(end, 0)]
    lines += [state(end + 50_000, "ARMED", "ARMED_BY_HOST"), state(end + 60_000, "CLOSED_LOOP", "ORDERED")]
    lines += [lease(end + 60_000, end + 360_000), pulse(end + 80_000, 545)]
    return lines


def rules(lines: list[Line]) -> set[str]:
    return {finding.rule for finding in check(lines)}


def test_a_good_trace_is_good() -> None:
    assert check(good()) == []


def at(lines: list[Line], name: str) -> int:
    return next(i for i, line in enumerate(lines) if line.get("state") == name)


def too_strong(lines: list[Line]) -> None:
    lines[10]["pulse"]["uA"] = [-5001, 5001]


def too_wide(lines: list[Line]) -> None:
    lines[10]["pulse"]["us"] = [121, 121]


def too_short(lines: list[Line]) -> None:
    lines[10]["pulse"]["us"] = [59, 59]


def second_phase_differs(lines: list[Line]) -> None:
    lines[10]["pulse"]["uA"][1] += 1


def one_phase_only(lines: list[Line]) -> None:
    lines[10]["pulse"]["uA"][1] = 0


def charge_left(lines: list[Line]) -> None:
    lines[10]["pulse"]["residual_pC"] = -1


def too_often(lines: list[Line]) -> None:
    lines.insert(11, pulse(lines[10]["t_us"] + 5_000, 20))


def jumps_up(lines: list[Line]) -> None:
    lines[20]["pulse"]["uA"] = [-500, 500]


def starts_high(lines: list[Line]) -> None:
    lines[4]["pulse"]["uA"] = [-60, 60]


def jumps_down(lines: list[Line]) -> None:
    lines[-8]["pulse"]["uA"] = [-300, 300]


def past_the_lease(lines: list[Line]) -> None:
    lines.insert(at(lines, "FALLBACK"), pulse(902_000 + LEASE_US, 600))


def no_end_of_the_lease(lines: list[Line]) -> None:
    here = at(lines, "FALLBACK")
    lines[here:] = [pulse(t, 600) for t in range(1_210_000, 2_500_000, 20_000)]


def endless_lease(lines: list[Line]) -> None:
    lines[3]["lease_until_us"] = 2**63


def late_fallback(lines: list[Line]) -> None:
    lines[at(lines, "FALLBACK")]["t_us"] += 20_001


def pulses_while_idle(lines: list[Line]) -> None:
    lines.insert(1, pulse(500, 1))


def pulses_while_armed(lines: list[Line]) -> None:
    lines.insert(2, pulse(1_500, 1))


def rises_in_fallback(lines: list[Line]) -> None:
    lines.insert(at(lines, "FALLBACK") + 1, pulse(902_000 + LEASE_US + 8_000, 700))


def fallback_for_ever(lines: list[Line]) -> None:
    here = at(lines, "FALLBACK") + 1
    lines[here:] = [pulse(902_000 + LEASE_US + 5_200_000, 100)]


def falls_slowly_in_fallback(lines: list[Line]) -> None:
    lines.insert(at(lines, "FALLBACK") + 1, pulse(902_000 + LEASE_US + 8_000, 590))


def open_and_goes_on(lines: list[Line]) -> None:
    for line in [line for line in lines if "pulse" in line][20:]:
        line["pulse"]["peak_uV"] = 10_000_000


def short_and_goes_on(lines: list[Line]) -> None:
    for line in [line for line in lines if "pulse" in line][20:]:
        line["pulse"]["peak_uV"] = 10 * -line["pulse"]["uA"][0]


def goes_on_after_one_bad_voltage(lines: list[Line]) -> None:
    given = [line for line in lines if "pulse" in line]
    for line in given:
        line["pulse"]["peak_uV"] = 1_000 * -line["pulse"]["uA"][0]
    given[20]["pulse"]["peak_uV"] = 9_500_001


def keeps_charge_and_goes_on(lines: list[Line]) -> None:
    for line in [line for line in lines if "pulse" in line][20:24]:
        line["pulse"]["residual_pC"] = 50


def no_lease_at_all(lines: list[Line]) -> None:
    lines[:] = [line for line in lines if "lease_until_us" not in line]


def not_grounded_while_idle(lines: list[Line]) -> None:
    lines.append({"at_us": 500, "grounded": False, "in": "IDLE"})


def not_grounded_in_fallback(lines: list[Line]) -> None:
    lines.append({"at_us": 1_210_000, "grounded": False, "in": "FALLBACK"})


def grounded_in_the_loop(lines: list[Line]) -> None:
    lines.append({"at_us": 600_000, "grounded": True, "in": "CLOSED_LOOP"})


def arms_itself(lines: list[Line]) -> None:
    lines[at(lines, "ARMED")]["cause"] = "LEASE_ENDED"


def orders_from_fallback(lines: list[Line]) -> None:
    here = at(lines, "FALLBACK")
    lines[here + 2 : here + 3] = []


def leaves_safe_off_by_itself(lines: list[Line]) -> None:
    lines += [state(2_000_000, "SAFE_OFF", "RESIDUAL"), state(2_100_000, "IDLE", "HANDSHAKE")]


def pulses_in_safe_off(lines: list[Line]) -> None:
    lines += [state(2_000_000, "SAFE_OFF", "RESIDUAL"), pulse(2_100_000, 1)]


def clock_goes_back(lines: list[Line]) -> None:
    lines.append(pulse(1_000, 1))


BAD: list[tuple[Callable[[list[Line]], None], str]] = [
    (too_strong, "amplitude"),
    (too_wide, "width"),
    (too_short, "width"),
    (second_phase_differs, "balance"),
    (one_phase_only, "balance"),
    (charge_left, "residual"),
    (too_often, "rate"),
    (jumps_up, "ramp"),
    (starts_high, "ramp"),
    (jumps_down, "ramp"),
    (past_the_lease, "lease"),
    (no_end_of_the_lease, "lease"),
    (endless_lease, "lease"),
    (late_fallback, "lease"),
    (pulses_while_idle, "state"),
    (pulses_while_armed, "state"),
    (rises_in_fallback, "fallback"),
    (falls_slowly_in_fallback, "fallback"),
    (fallback_for_ever, "fallback"),
    (open_and_goes_on, "compliance"),
    (short_and_goes_on, "compliance"),
    (goes_on_after_one_bad_voltage, "compliance"),
    (keeps_charge_and_goes_on, "compliance"),
    (no_lease_at_all, "lease"),
    (not_grounded_while_idle, "grounded"),
    (not_grounded_in_fallback, "grounded"),
    (grounded_in_the_loop, "grounded"),
    (arms_itself, "state"),
    (orders_from_fallback, "state"),
    (leaves_safe_off_by_itself, "re-arm"),
    (pulses_in_safe_off, "state"),
    (clock_goes_back, "clock"),
]


@pytest.mark.parametrize(("spoil", "rule"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_every_kind_of_bad_trace_is_found(spoil: Callable[[list[Line]], None], rule: str) -> None:
    lines = good()
    spoil(lines)
    assert rule in rules(lines)


def test_a_lease_that_the_board_renews_for_itself_is_found() -> None:
    """The trace alone looks good; only who cut the cable knows that nobody was there to renew."""
    silent = 500_000
    wanted = lost_host(silent, silent)
    assert check(good()) == []
    assert {finding.rule for finding in expected(good(), wanted)} == {"late"}
    assert expected(good(), lost_host(902_500, 902_500)) == []


@pytest.mark.parametrize(("uA", "us", "rule"), [(5_000, 450, "charge density"), (4_500, 450, "shannon")])
def test_charge_is_judged_by_density_and_by_shannon(uA: int, us: int, rule: str) -> None:
    """On a small contact (0.015 cm²) with wide pulses: 2.1 mA × 450 µs is where the density ends."""
    limits = checker.numbers() | {"electrode_area_cm2": 0.06, "width_max_us": 500, "shannon_k": 1.75}
    if rule == "shannon":
        limits |= {"charge_density_max_uC_cm2": 1_000}
    lines: list[Line] = [state(0, "IDLE", "POWER_ON"), state(1, "ARMED", "ARMED_BY_HOST")]
    lines += [state(2, "CLOSED_LOOP", "ORDERED"), lease(2, 900_000), pulse(20_000, uA, us)]
    assert rule in {finding.rule for finding in check(lines, limits)}


@pytest.mark.parametrize(("bad", "rule"), [(3, set()), (4, {"compliance"})])
def test_three_pulses_may_find_out_that_the_electrode_broke(bad: int, rule: set[str]) -> None:
    lines = [state(0, "IDLE", "POWER_ON"), state(1, "ARMED", "ARMED_BY_HOST"), state(2, "CLOSED_LOOP", "ORDERED")]
    lines += [lease(2, 900_000)]
    lines += [pulse(20_000 * k, 10 * k, peak_uV=10_000 * k if k < 5 else 9_600_000) for k in range(1, 5 + bad)]
    lines += [state(250_000, "SAFE_OFF", "COMPLIANCE"), state(260_000, "IDLE", "PERSON")]
    lines += [state(270_000, "ARMED", "ARMED_BY_HOST"), state(280_000, "CLOSED_LOOP", "ORDERED")]
    lines += [lease(280_000, 900_000), pulse(300_000, 10, peak_uV=10_000)]  # a person was there
    assert rules(lines) == rule


def train(uA: int, us: int, period_us: int, seconds: float, **other: Any) -> list[Line]:
    """Pulses at their full amplitude from the start, with a lease that is renewed."""
    lines = [state(0, "IDLE", "POWER_ON"), state(1, "ARMED", "ARMED_BY_HOST"), state(2, "CLOSED_LOOP", "ORDERED")]
    for t in range(period_us, int(seconds * 1e6), period_us):
        lines += [lease(t, t + 900_000), pulse(t, uA, us, **other)]
    return lines


@pytest.mark.parametrize(
    ("uA", "us", "period_us", "ohm", "breaks"),
    [
        (5_000, 60, 6_000, 0, False),  # 250.0 µW
        (5_000, 60, 5_900, 0, True),
        (5_000, 60, 6_000, 1_100, True),
        (5_000, 60, 6_000, 500, False),  # R is never less than 1 kohm
        (5_000, 120, 5_406, 1_000, True),
        (2_000, 60, 7_692, 1_000, False),  # 31.2 µW
    ],
)
def test_the_dose_is_the_mean_of_a_rolling_window(uA: int, us: int, period_us: int, ohm: int, breaks: bool) -> None:
    limits = checker.numbers() | {"ramp_slack_uA": 10_000}
    lines = train(uA, us, period_us, 12, peak_uV=ohm * uA)
    found = [finding for finding in check(lines, limits) if finding.rule == "dose"]
    assert bool(found) == breaks
    assert {finding.rule for finding in check(lines, limits)} <= {"dose"}
    if breaks:
        assert found[0].t_us > 4_000_000, "only when the window has filled"


def test_a_loop_that_switches_on_too_often_is_found() -> None:
    def cycles(n: int, period_us: int) -> list[Line]:
        starts = [2_000 + k * period_us + i * 20_000 for k in range(n) for i in range(3)]
        given = [state(0, "IDLE", "POWER_ON"), state(1, "ARMED", "ARMED_BY_HOST"), state(2, "CLOSED_LOOP", "ORDERED")]
        for t in starts:
            given += [lease(t, t + 900_000), pulse(t, 1)]
        return given

    assert rules(cycles(21, 450_000)) == set(), "nobody knows what was before the first"
    assert rules(cycles(22, 450_000)) == {"toggles"}
    assert rules(cycles(60, 550_000)) == set(), "18 in any ten seconds"
    slow = train(1, 60, 400_000, 30)
    assert rules(slow) == set(), "a slow train is not switched"


SETTING = {"amplitude_uA": 200, "width_us": 60, "period_us": 20_000}


def with_setting(change: Callable[[list[Line]], None] | None = None) -> set[str]:
    """From 600 µA down to the approved 200 µA in 0.4 s, and on for six seconds."""
    lines = good()
    here = at(lines, "FALLBACK")
    entered = lines[here]["t_us"]
    lines[here + 2 :] = [
        pulse(t, max(200, 600 - (t - entered) // 1_000)) for t in range(entered + 15_000, 7_200_000, 20_000)
    ]
    lines.append({"at_us": 2_000_000, "grounded": False, "in": "FALLBACK"})
    if change is not None:
        change(lines)
    return {finding.rule for finding in check(lines, checker.numbers() | {"fallback_setting": SETTING})}


def wider(lines: list[Line]) -> None:
    lines[-50]["pulse"]["us"] = [70, 70]


def more_often(lines: list[Line]) -> None:
    lines.insert(-50, pulse(lines[-50]["t_us"] - 10_000, 200))


def stronger(lines: list[Line]) -> None:
    lines[-200]["pulse"]["uA"] = [-800, 800]


def never_down(lines: list[Line]) -> None:
    here = at(lines, "FALLBACK") + 2
    for line in lines[here:-1]:
        line["pulse"]["uA"] = [-600, 600]


def falls_at_once(lines: list[Line]) -> None:
    here = at(lines, "FALLBACK") + 2
    for line in lines[here + 1 : -1]:
        line["pulse"]["uA"] = [-200, 200]


def grounded_all_the_same(lines: list[Line]) -> None:
    lines[-1]["grounded"] = True


@pytest.mark.parametrize(
    ("change", "rule"),
    [(wider, "fallback"), (more_often, "fallback"), (stronger, "ramp"), (never_down, "ramp"), (falls_at_once, "ramp"),
     (grounded_all_the_same, "grounded")],
)  # fmt: skip
def test_only_the_approved_setting_is_given_in_fallback(change: Callable[[list[Line]], None], rule: str) -> None:
    assert with_setting() == set()
    assert rule in with_setting(change)


def test_a_restart_is_no_breach() -> None:
    lines = [*good(), state(1_000, "IDLE", "RESET"), state(2_000, "ARMED", "ARMED_BY_HOST")]
    assert check(lines) == []


def test_a_reaction_that_is_missing_late_or_for_another_cause_is_found() -> None:
    lines = good()
    fault = 905_000
    wanted = Expectation(after_us=fault, state="FALLBACK", causes=("LEASE_ENDED",), lease_ms=300)
    assert expected(lines, wanted) == []
    lost = [line for line in lines if line.get("state") != "FALLBACK"]
    assert [finding.rule for finding in expected(lost, wanted)] == ["reaction"]
    for line in lines:
        if line.get("state") == "FALLBACK":
            line["t_us"] += 20_001
    assert [finding.rule for finding in expected(lines, wanted)] == ["lease"]
    other = Expectation(after_us=fault, state="FALLBACK", causes=("SENSING",))
    assert [finding.rule for finding in expected(lines, other)] == ["cause"]
    soon = Expectation(after_us=fault, state="FALLBACK", within_us=100_000)
    assert [finding.rule for finding in expected(lines, soon)] == ["late"]
    more = Expectation(after_us=fault, pulses_min=1_000)
    assert [finding.rule for finding in expected(lines, more)] == ["pulses"]
    still = Expectation(after_us=fault, stays="CLOSED_LOOP", pulses_max=3)
    assert {finding.rule for finding in expected(lines, still)} == {"pulses", "state"}


def imports(module: Any) -> set[str | None]:
    return {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }


def test_it_shares_no_code_with_what_it_checks() -> None:
    library = {"__future__", "math", "collections", "collections.abc", "dataclasses", "pathlib", "typing", "yaml"}
    assert imports(checker) == library
    assert imports(expectation) <= library | {"firmware_bridge.faults.checker"}
    # and it runs where nothing of this project can be imported
    source = Path(checker.__file__)
    alone = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('checker', sys.argv[1]);"
        "m = u.module_from_spec(s); sys.modules['checker'] = m; s.loader.exec_module(m);"
        "assert m.check([]) == [] and m.numbers()['amplitude_max_uA'] == 5000;"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('firmware_bridge', 'envs', 'sea_dbs', 'export')]"
    )
    subprocess.run([sys.executable, "-c", alone, str(source)], check=True, cwd="/")
