"""The envelope that remembers: ramp, electrode, dose, toggles, receiver, sensing, FALLBACK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest

from envs.errors import UserError
from firmware_bridge.bench import ElectrodePulse
from firmware_bridge.codes import Cause, ElectrodeFault, Fault, NackCode, Sensing, State
from firmware_bridge.images import BROKEN, FixedSetting, build_image
from firmware_bridge.limits import LIMITS, dose_cap_aJ, energy_aJ, ramped_pA, tighten
from firmware_bridge.messages import Ack, Nack
from firmware_bridge.observation import Sampling
from tests.board_tools import CoreInProcess, Rig, check_pulses, rig
from tests.observe_tools import N_OBS, armed, observation

SLOT = 20_000
ALL = [1] * 50
FIXED = FixedSetting(1000, 60, 7692)


@pytest.fixture
def board() -> Iterator[Rig]:
    """As it is shipped."""
    with rig(image=build_image("host")) as made:
        yield made


@pytest.fixture
def steady() -> Iterator[Rig]:
    """Without the ramp: whole pulses from the first one."""
    with rig() as made:
        yield made


def run(board: Rig, first_id: int, seconds: int, amplitude_uA: int, mask: Sequence[int] = ALL) -> list[ElectrodePulse]:
    """So many decisions of a second, renewed."""
    pulses: list[ElectrodePulse] = []
    for i in range(seconds):
        start = board.bench.now_us
        board.order(first_id + i, list(mask), amplitude_uA=amplitude_uA)
        for k in range(1, 11):
            pulses += board.bench.advance(start + k * 100_000)
            board.client.renew(first_id + i)
    return pulses


def climb(board: Rig, to_uA: int = 3000) -> int:
    """The set point climbs under empty masks; the next decision id."""
    assert run(board, 1, 7, to_uA, [0] * 50) == []
    assert board.client.status().set_point_uA == to_uA
    return 8


def test_the_set_point_climbs_by_half_a_milliampere_a_second(board: Rig) -> None:
    pulses = run(board, 1, 7, 3000)
    check_pulses(pulses)
    assert [-p.amplitude_uA for p in pulses] == [ramped_pA(0, 3000, p.t_us) // 1_000_000 for p in pulses]
    assert -pulses[0].amplitude_uA == 10, "20 ms × 0.5 mA/s: at 0 there is none"
    assert -pulses[-1].amplitude_uA == 3000


def test_masks_gate_pulses_and_leave_the_set_point_alone(board: Rig) -> None:
    following = climb(board)
    (pulse,) = run(board, following, 1, 3000, [1] + [0] * 49)
    assert -pulse.amplitude_uA == 3000


def test_a_lower_order_is_reached_by_a_milliampere_a_second(board: Rig) -> None:
    following = climb(board)
    start = board.bench.now_us
    pulses = run(board, following, 3, 1000)
    assert [-p.amplitude_uA for p in pulses] == [3000 - min(2000, (p.t_us - start) // 1000) for p in pulses]
    assert run(board, following + 3, 1, 0) == [], "an order of 0 gives none at once"


def test_stop_is_exempt_from_the_ramp_and_starts_it_afresh(board: Rig) -> None:
    following = climb(board)
    board.order(following, ALL)
    board.bench.advance(board.bench.now_us + 50_000)
    board.client.stop()
    assert board.bench.advance(board.bench.now_us + 1_000_000) == []
    assert board.client.status().set_point_uA == 0
    board.client.hello()
    board.client.arm()
    assert max(-p.amplitude_uA for p in run(board, 1, 1, 3000)) == 490


def test_after_the_lease_the_set_point_ramps_down_and_resumes_from_there(board: Rig) -> None:
    climb(board)
    begun = board.bench.now_us
    board.bench.advance(begun + 1_300_000)  # the lease of 300 ms, then a second of FALLBACK
    status = board.client.status()
    assert (State(status.state), status.set_point_uA, board.bench.grounded) == (State.FALLBACK, 2000, True)
    board.client.hello()
    board.client.arm()
    pulses = run(board, 1, 1, 3000)
    assert -pulses[0].amplitude_uA == 2000
    assert -pulses[-1].amplitude_uA == 2490


def test_fallback_may_have_a_fixed_setting_compiled_in() -> None:
    with rig(image=build_image("host", fallback=FIXED)) as board:
        following = climb(board)
        board.order(following, ALL)
        begun = board.bench.now_us
        pulses = board.bench.advance(begun + 5_000_000)
        assert board.bench.state is State.FALLBACK
        assert not board.bench.grounded
        assert board.client.status().fallback_uA == 1000
        fixed = [p for p in pulses if p.t_us >= begun + 300_000]
        check_pulses(pulses)
        assert {b.t_us - a.t_us for a, b in pairwise(fixed)} == {7692}
        for p in fixed:
            assert -p.amplitude_uA == max(1000, 3000 - -(-(p.t_us - begun - 300_000) // 1000))
        board.client.stop()
        assert board.bench.advance(begun + 6_000_000) == []
        assert board.bench.grounded


@pytest.mark.parametrize(
    "fixed", [FixedSetting(5001, 60, 7692), FixedSetting(1000, 50, 7692), FixedSetting(0, 60, 7692)]
)
def test_a_fixed_setting_outside_a_limit_is_not_built(fixed: FixedSetting) -> None:
    with pytest.raises(UserError, match="the fixed setting"):
        build_image("host", fallback=fixed)


@pytest.mark.parametrize(
    ("fault", "settings", "cause"),
    [
        (ElectrodeFault.OPEN, {}, Cause.OPEN),
        (ElectrodeFault.SHORT, {}, Cause.SHORT),
        (ElectrodeFault.NONE, {"impedance_ohm": 2001}, Cause.OPEN),
        (ElectrodeFault.NONE, {"impedance_ohm": 49}, Cause.SHORT),
        (ElectrodeFault.NONE, {"v_max_mV": 3499}, Cause.COMPLIANCE),
    ],
)
def test_a_bad_electrode_leads_to_safe_off_at_its_first_pulse(
    steady: Rig, fault: ElectrodeFault, settings: dict[str, int], cause: Cause
) -> None:
    if cause is Cause.COMPLIANCE:  # the output saturates below what 3 mA need
        settings = {"impedance_ohm": 1999}
        assert len(run(steady, 1, 1, 5000, [0] * 50)) == 0
        steady.bench.set_fault(fault, **settings)
        pulses = run_until_off(steady, 2, 5000)
    else:
        steady.bench.set_fault(fault, **settings)
        pulses = run_until_off(steady, 1, 3000)
    assert len(pulses) == 1
    assert steady.bench.grounded
    status = steady.client.status()
    assert (State(status.state), Cause(status.cause)) == (State.SAFE_OFF, cause)
    assert status.faults & Fault.ELECTRODE
    steady.bench.set_fault(ElectrodeFault.NONE)
    steady.bench.press_button()
    steady.client.hello()
    steady.client.arm()
    assert len(run(steady, 1, 1, 3000)) == 50


def run_until_off(board: Rig, decision_id: int, amplitude_uA: int) -> list[ElectrodePulse]:
    board.order(decision_id, ALL, amplitude_uA=amplitude_uA)
    return board.bench.advance(board.bench.now_us + 200_000)


@pytest.mark.parametrize(("ohm", "allowed"), [(1900, True), (1901, False)])
def test_compliance_keeps_a_margin_to_v_max(ohm: int, allowed: bool) -> None:
    with rig() as board:  # 5 mA × 1900 ohm + 0.5 V = 10 V
        board.bench.set_fault(ElectrodeFault.NONE, impedance_ohm=ohm)
        assert len(run_until_off(board, 1, 5000)) == (10 if allowed else 1)
    with rig(v_max_mV=3000) as board:
        assert len(run_until_off(board, 1, 2500)) == 10
        assert board.client.status().v_max_mV == 3000
        board.order(2, ALL, amplitude_uA=2501)
        assert board.bench.advance(board.bench.now_us + 200_000) == [], "the impedance is known: none is given"
        assert Cause(board.client.status().cause) is Cause.COMPLIANCE


def test_the_mean_power_stays_below_its_cap() -> None:
    with rig(dose_limit_uW=10) as board:
        pulses = run(board, 1, 15, 3000)
        status = board.client.status()
    assert status.slots_dose > 0
    assert status.faults & Fault.DOSE
    assert status.dose_uW <= 10 == status.dose_limit_uW
    cap = dose_cap_aJ(tighten(dose_uW=10))
    for i, pulse in enumerate(pulses):
        window = [p for p in pulses[: i + 1] if p.t_us > pulse.t_us - 10_000_000]
        assert sum(energy_aJ(-p.amplitude_uA, p.width_us) for p in window) <= cap
    assert len(pulses) * energy_aJ(3000, 60) > 0.9 * cap, "the cap was used"


def test_the_dose_is_the_usual_teed(steady: Rig) -> None:
    for i in range(12):  # 2 mA, 60 µs, 50 Hz, 1 kohm: 12 µW
        run(steady, 1 + i, 1, 2000)
    assert steady.client.status().dose_uW in (12, 13)
    assert energy_aJ(2000, 60) * 130 * 1e-12 == pytest.approx(31.2)  # µW, the value of the literature


def test_a_limit_cycle_leads_to_fallback() -> None:
    with rig(toggle_limit=6) as board:
        decision = 0
        while board.bench.state is not State.FALLBACK and decision < 20:
            decision += 1
            run_seconds = [1] * 5 + [0] * 45
            reply = board.client.set_stim(decision, 0, SLOT, run_seconds, 3000, 60, 1000)
            if not isinstance(reply, Ack):
                break
            board.bench.advance(board.bench.now_us + 500_000)
        status = board.client.status()
        assert (State(status.state), Cause(status.cause)) == (State.FALLBACK, Cause.LIMIT_CYCLE)
        assert decision == 4, "three times on and off are six toggles"


def test_a_steady_train_is_no_limit_cycle(steady: Rig) -> None:
    run(steady, 1, 5, 3000)
    start = steady.bench.now_us
    steady.order(6, [1] * 4, period_us=500_000, lease_ms=1000)
    for k in range(1, 5):
        steady.bench.advance(start + k * 450_000)
        steady.client.renew(6)
    assert steady.client.status().toggles == 2


def test_repeated_overruns_of_the_receiver_lead_to_fallback(steady: Rig) -> None:
    steady.order(1, ALL, lease_ms=1000)
    for count in (1, 2):
        steady.bench.set_fault(ElectrodeFault.OVERRUN)
        assert steady.client.status().overruns == count
        assert steady.bench.state is State.CLOSED_LOOP
    steady.bench.set_fault(ElectrodeFault.OVERRUN)
    status = steady.client.status()
    assert (State(status.state), Cause(status.cause), status.overruns) == (State.FALLBACK, Cause.OVERRUN, 3)


def test_overruns_long_ago_do_not_count(steady: Rig) -> None:
    for _ in range(2):
        steady.bench.set_fault(ElectrodeFault.OVERRUN)
    run(steady, 1, 12, 1000)
    steady.bench.set_fault(ElectrodeFault.OVERRUN)
    assert steady.bench.state is State.CLOSED_LOOP


def test_orders_on_bad_sensing_are_refused_and_lead_to_fallback(steady: Rig) -> None:
    steady.order(1, ALL, lease_ms=1000)
    for i in range(3):
        reply = steady.client.set_stim(2, 0, SLOT, ALL, 3000, 60, sensing=int(Sensing.FLAT | Sensing.STALE))
        assert isinstance(reply, Nack)
        assert (reply.code, reply.value) == (NackCode.SENSING, Sensing.FLAT | Sensing.STALE)
        assert steady.client.status().state == (State.FALLBACK if i == 2 else State.CLOSED_LOOP)
    assert Cause(steady.client.status().cause) is Cause.SENSING


@pytest.mark.parametrize(
    ("second", "values", "bits"),
    [
        (Sampling(400, 799), observation(2), Sensing(0)),
        (Sampling(401, 800), observation(2), Sensing.GAP),
        (Sampling(0, 399), observation(2), Sensing.STUCK),
        (Sampling(400, 800), observation(2), Sensing.GAP | Sensing.RATE),
        (Sampling(400, 799), np.full(N_OBS, 5, np.int8), Sensing.FLAT),
        (Sampling(400, 799), np.full(N_OBS, 127, np.int8), Sensing.FLAT | Sensing.RAILED),
        (Sampling(400, 799, age_us=1_000_001), observation(2), Sensing.STALE),
        (Sampling(400, 799, blanked=200), observation(2), Sensing(0)),
        (Sampling(400, 799, blanked=201), observation(2), Sensing.BLANKED),
    ],
)
def test_the_board_judges_what_was_sensed(second: Sampling, values: np.ndarray, bits: Sensing) -> None:
    client = armed(CoreInProcess(policy=True))
    first = client.observe(1, observation(1), 0, sampling=Sampling(0, 399))
    assert not isinstance(first, Nack)
    assert first.nack is None
    reply = client.observe(2, values, 0, sampling=second)
    assert not isinstance(reply, Nack)
    if not bits:
        assert reply.nack is None
    else:
        assert reply.nack is not None
        assert (reply.nack.code, reply.nack.value) == (NackCode.SENSING, bits)


def test_three_answers_that_are_not_finite_lead_to_fallback() -> None:
    client = armed(CoreInProcess(policy=True))
    first = client.observe(1, observation(1), 0, 1000)
    assert not isinstance(first, Nack)
    assert first.nack is None
    bad = observation(2)
    bad[1] = -128  # the tiny policy then fails
    for i in range(3):
        assert client.status().state == State.CLOSED_LOOP
        reply = client.observe(2 + i, bad, 0, 1000)
        assert not isinstance(reply, Nack)
        assert reply.nack is not None
        assert reply.nack.code == NackCode.NOT_FINITE
    status = client.status()
    assert (State(status.state), Cause(status.cause)) == (State.FALLBACK, Cause.NOT_FINITE)


def test_run_time_limits_only_tighten() -> None:
    for wrong in ({"v_max_mV": 10_001}, {"dose_uW": 251}, {"toggles": 41}, {"dose_uW": 0}):
        with pytest.raises(UserError, match="can only tighten"):
            tighten(**wrong)  # type: ignore[arg-type]
    assert tighten(v_max_mV=9000, dose_uW=100, toggles=4)[2:] == (9000, 100, 4)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_build_is_a_test_build_and_is_really_broken(broken: str) -> None:
    with pytest.raises(UserError, match="test builds alone"):
        build_image("host", broken=broken)
    with rig(image=build_image("host", test_build=True, broken=broken)) as board:
        board.order(1, ALL)
        pulses = board.bench.advance(1_000_000)
    ramped = [abs(p.amplitude_uA) <= p.t_us * LIMITS["RAMP_UP_UA_S"].value // 1_000_000 for p in pulses]
    assert all(ramped) == (broken != "ramp")
    assert (max(p.t_us for p in pulses) < 300_000) == (broken != "lease")
    assert all(p.residual_pC == 0 for p in pulses) == (broken != "balance")
