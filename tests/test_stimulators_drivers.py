"""The drivers against emulators that are processes of their own and keep their own log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import UserError
from firmware_bridge.codes import Cause, Clamp, NackCode, State
from firmware_bridge.limits import LIMITS
from firmware_bridge.stimulators.pacing import now_us
from firmware_bridge.stimulators.pulsepal import CONTINUOUS_NEVER, PulsePal
from firmware_bridge.stimulators.shots import plan_shots, singles
from firmware_bridge.stimulators.stimjim import Program, definition
from tests.stimulator_tools import PULSE, Emulated, SpyLink, driving, emulated, make_driver, wait_for, writes

KINDS = ("stimjim", "pulsepal")
LEASE_MS = 300
GRACE_US = 20_000  # µs past a lease, of the fault catalogue
PERIOD_US = 90_000  # wide slots: a loaded machine may be late, and must still fall into its slot
MASK = (1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Emulated]]:
    """One well-behaved emulator of each kind."""
    folder = tmp_path_factory.mktemp("emulators")
    with emulated("stimjim", folder) as stimjim, emulated("pulsepal", folder) as pulsepal:
        yield {"stimjim": stimjim, "pulsepal": pulsepal}


def residuals(log: list[dict[str, object]]) -> set[object]:
    return {row["residual_pC"] for row in log}


@pytest.mark.parametrize(("kind", "options"), [("stimjim", {}), ("stimjim", {"trains": False}), ("pulsepal", {})])
def test_each_set_slot_gets_one_balanced_pulse(
    kind: str, options: dict[str, bool], running: dict[str, Emulated]
) -> None:
    amplitude, width = PULSE[kind]
    device = running[kind].fresh()
    with driving(kind, device.port, **options) as driver:
        start = now_us() + 200_000
        reply = driver.order(1, start, PERIOD_US, MASK, amplitude, width, 1000)
        assert (reply.code, reply.start_us, reply.amplitude_uA, reply.width_us) == (None, start, amplitude, width)
        while now_us() < start + PERIOD_US * len(MASK):
            driver.renew(1)
            time.sleep(0.05)
        assert driver.state is State.CLOSED_LOOP
        assert driver.fault is None
        counts, log = driver.counters, device.pulses()
        trains = kind == "stimjim" and not options
        assert (counts.triggers < counts.pulses) == trains
    assert counts.pulses + counts.slots_late == sum(MASK)
    assert len(log) == counts.pulses
    slots = [(row["t_us"] - start) // PERIOD_US for row in log]
    assert len(set(slots)) == len(slots)  # never twice in a slot
    assert all(MASK[slot] for slot in slots)
    assert {tuple(map(tuple, row["phases"])) for row in log} == {((-amplitude, width), (amplitude, width))}
    assert residuals(log) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_host_leaves_at_most_the_rest_of_one_train(kind: str, running: dict[str, Emulated]) -> None:
    device = running[kind].fresh()
    program = str(Path(__file__).parent / "stimulator_host.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    host = subprocess.Popen([sys.executable, program, kind, device.port], env=environment)
    try:
        wait_for(lambda: len(device.times()) >= 20, "the host does not stimulate")
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait()
    killed = now_us()
    time.sleep(2.5 * LEASE_MS / 1000)
    last = device.times()[-1]
    assert last <= killed + LEASE_MS * 1000
    if kind == "pulsepal":
        assert last <= killed + GRACE_US  # a trigger source has nothing in store
    assert device.process.poll() is None
    with driving(kind, device.port) as driver:  # and the next host finds it as it should be
        assert driver.state is State.ARMED


@pytest.mark.parametrize("kind", KINDS)
def test_without_renewal_the_lease_ends_and_only_a_handshake_resumes(kind: str, running: dict[str, Emulated]) -> None:
    device = running[kind].fresh()
    with driving(kind, device.port) as driver:
        until = driver.order(1, 0, 20_000, [1] * 100, *PULSE[kind], LEASE_MS).lease_until_us
        wait_for(lambda: driver.state is not State.CLOSED_LOOP, "the lease does not end")
        assert (driver.state, driver.cause) == (State.FALLBACK, Cause.LEASE_ENDED)
        assert driver.counters.slots_lapsed > 0
        time.sleep(0.1)
        assert device.times()[-1] < until + GRACE_US
        assert driver.renew(1).code is NackCode.STATE
        assert driver.order(2, 0, 20_000, [1], *PULSE[kind], LEASE_MS).code is NackCode.STATE
        driver.connect()
        assert driver.state is State.FALLBACK
        driver.arm()
        assert driver.order(1, 0, 20_000, [1], *PULSE[kind], LEASE_MS).code is None


@pytest.mark.parametrize("kind", KINDS)
def test_stop_ends_a_decision_under_way(kind: str, running: dict[str, Emulated]) -> None:
    device = running[kind].fresh()
    with driving(kind, device.port) as driver:
        driver.order(1, 0, 20_000, [1] * 200, *PULSE[kind], 1000)
        wait_for(lambda: len(device.times()) >= 3, "no pulses")
        driver.stop()
        stopped = now_us()
        driver.stop()
        assert (driver.state, driver.cause) == (State.IDLE, Cause.STOPPED)
        time.sleep(0.2)
        assert device.times()[-1] <= stopped
        assert driver.order(2, 0, 20_000, [1], *PULSE[kind], LEASE_MS).code is NackCode.STATE


@pytest.mark.parametrize("kind", KINDS)
def test_the_envelope_is_the_least_of_ours_and_the_devices(kind: str, running: dict[str, Emulated]) -> None:
    amplitude, width = PULSE[kind]
    device = running[kind].fresh()
    with driving(kind, device.port) as driver:
        for code, change in (
            (NackCode.AMPLITUDE, {"amplitude_uA": 5001}),
            (NackCode.WIDTH, {"width_us": 59}),
            (NackCode.SLOT_PERIOD, {"slot_period_us": 5000}),
            (NackCode.SLOTS, {"mask": [1] * 257}),
            (NackCode.LEASE, {"lease_ms": 1001}),
            (NackCode.START, {"start_us": now_us() + 60_000_000}),
        ):
            order = {
                "start_us": 0,
                "slot_period_us": 20_000,
                "mask": [1],
                "amplitude_uA": amplitude,
                "width_us": width,
                "lease_ms": LEASE_MS,
                **change,
            }
            assert driver.order(1, **order).code is code  # type: ignore[arg-type]
        with pytest.raises(UserError, match="0 and 1"):
            driver.order(1, 0, 20_000, [2], amplitude, width, LEASE_MS)
        assert not device.times()
        assert driver.counters.orders_refused == 6
        reply = driver.order(1, 0, 20_000, [1], 3500, width, LEASE_MS)
        if kind == "stimjim":  # above 3 mA its converter is wrong
            assert (reply.code, reply.amplitude_uA, reply.clamp) == (None, 3000, Clamp.RUN_TIME_AMPLITUDE)
            wait_for(lambda: len(device.pulses()) == 1, "no pulse")
            assert device.pulses()[0]["phases"] == [[-3000, width], [3000, width]]
        else:  # nobody but a person can set the isolator
            assert (reply.code, reply.low, reply.high) == (NackCode.AMPLITUDE, amplitude, amplitude)
            reply = driver.order(2, 0, 20_000, [1], amplitude, 60, LEASE_MS)
            assert (reply.code, reply.low, reply.high) == (NackCode.WIDTH, 100, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_one_decision_may_wait_and_ids_rise(kind: str, running: dict[str, Emulated]) -> None:
    device = running[kind].fresh()
    with driving(kind, device.port) as driver:
        pulse = PULSE[kind]
        start = now_us() + 100_000
        assert driver.order(5, start, 20_000, [0] * 10, *pulse, 1000).code is None
        assert driver.order(5, start + 200_000, 20_000, [1], *pulse, 1000).code is NackCode.DECISION
        assert driver.order(6, start + 100_000, 20_000, [1], *pulse, 1000).code is NackCode.START  # overlaps
        assert driver.order(6, start + 200_000, 20_000, [1], *pulse, 1000).code is None
        assert driver.order(7, start + 400_000, 20_000, [1], *pulse, 1000).code is NackCode.QUEUE_FULL
        assert driver.renew(9).code is NackCode.DECISION
        wait_for(lambda: len(device.times()) == 1, "the waiting decision is not given")
        assert device.times()[0] >= start + 200_000


@pytest.mark.parametrize(
    ("kind", "fault", "says"),
    [
        ("stimjim", "silent", "gave no answer to T-1 within 0.25 s"),
        ("stimjim", "garbage", "sends what is no text"),
        ("pulsepal", "handshake", "answered the handshake with 7 bytes"),
    ],
)
def test_a_device_that_answers_wrongly_is_not_armed(kind: str, fault: str, says: str, tmp_path: Path) -> None:
    with emulated(kind, tmp_path, "--misbehave", fault) as device:
        driver = make_driver(kind, device.port)
        with pytest.raises(UserError, match=says):
            driver.connect()
        assert driver.state is State.SAFE_OFF
        with pytest.raises(UserError, match="SAFE_OFF"):
            driver.arm()
        driver.close()
        assert not device.times()


@pytest.mark.parametrize(
    ("kind", "after", "fault"),
    [("stimjim", 8, "late"), ("stimjim", 8, "garbage"), ("pulsepal", 30, "silent"), ("pulsepal", 30, "late")],
)
def test_a_device_that_fails_under_way_ends_in_safe_off(kind: str, after: int, fault: str, tmp_path: Path) -> None:
    with emulated(kind, tmp_path, "--misbehave", fault, "--after", str(after)) as device:
        driver = make_driver(kind, device.port, **({"trains": False} if kind == "stimjim" else {}))
        driver.connect()
        driver.arm()
        driver.order(1, 0, 20_000, [1] * 250, *PULSE[kind], 1000)

        def over() -> bool:
            if driver.state is State.CLOSED_LOOP:
                try:
                    driver.renew(1)
                except UserError:
                    return True
            return driver.state is State.SAFE_OFF

        wait_for(over, "the fault is not seen")
        ended = now_us()
        assert driver.state is State.SAFE_OFF
        assert driver.fault is not None
        assert driver.order(2, 0, 20_000, [1], *PULSE[kind], LEASE_MS).code is NackCode.STATE
        driver.close()
        time.sleep(0.1)
        assert device.times()
        assert device.times()[-1] <= ended
        assert residuals(device.pulses()) == {0}


def test_a_definition_that_was_stored_wrongly_is_never_started(tmp_path: Path) -> None:
    with emulated("stimjim", tmp_path, "--misbehave", "corrupt") as device, driving("stimjim", device.port) as driver:
        with pytest.raises(UserError, match="did not store"):
            driver.order(1, 0, 20_000, [1] * 5, 3000, 60, LEASE_MS)
        assert driver.state is State.SAFE_OFF
        assert not any(re.match(rb"T\d", line) for line in writes(driver))
    assert not device.times()


def test_a_refused_parameter_is_named(tmp_path: Path) -> None:
    with emulated("pulsepal", tmp_path, "--misbehave", "corrupt") as device:
        driver = make_driver("pulsepal", device.port)
        driver.connect()
        with pytest.raises(UserError, match="refused parameter 1 = 0"):
            driver.arm()
        driver.close()


def test_no_train_outlasts_the_lease(running: dict[str, Emulated]) -> None:
    device = running["stimjim"].fresh()
    with driving("stimjim", device.port) as driver:
        for i, lease in enumerate((20, 100, 300, 1000)):
            driver.order(1 + i, 0, 20_000, [1] * 20, 3000, 60, lease)
            wait_for(lambda: driver.state is State.FALLBACK, "the lease does not end")
            driver.connect()
            driver.arm()
            lines = [line.decode() for line in writes(driver) if line.startswith(b"S") and b"," in line]
            writes(driver).clear()
            durations = [int(line.split(";")[0].split(",")[4]) for line in lines]
            assert durations
            assert max(durations) <= lease * 1000
            if lease >= 300:
                assert max(durations) > 20_000  # a train it is
        log = device.pulses()
    assert residuals(log) == {0}


def test_the_continuous_loop_is_never_asked_for(running: dict[str, Emulated]) -> None:
    device = running["pulsepal"].fresh()
    with driving("pulsepal", device.port) as driver:
        driver.order(1, 0, 20_000, [1] * 10, *PULSE["pulsepal"], LEASE_MS)
        driver.renew(1)
        wait_for(lambda: len(device.times()) == 10, "pulses are missing")
        sent = writes(driver)
    assert all(data[0] == 213 for data in sent)
    operations = {data[1] for data in sent}
    assert CONTINUOUS_NEVER not in operations
    assert operations == {72, 74, 77, 80, 81}
    assert not any(data[1:3] == bytes([74, 18]) and data[4] for data in sent)  # nor as a parameter


def test_outside_bench_mode_both_are_refused(running: dict[str, Emulated]) -> None:
    link = SpyLink(running["pulsepal"].port)
    with pytest.raises(UserError, match="bench mode only"):
        PulsePal(link, isolator_uA=3000)
    assert not link.writes
    link.close()


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=256),
    st.integers(LIMITS["SLOT_PERIOD_MIN_US"].value, LIMITS["SLOT_PERIOD_MAX_US"].value),
    st.integers(0, 1_000_000),
)
def test_the_shots_of_a_mask_are_its_pulses(mask: list[int], period: int, room: int) -> None:
    shots = plan_shots(mask, 1000, period, room)
    given_at = [shot.start_us + i * shot.spacing_us for shot in shots for i in range(shot.pulses)]
    assert given_at == [1000 + i * period for i, bit in enumerate(mask) if bit]
    assert given_at == [single.start_us for shot in shots for single in singles(shot)]
    for shot in shots:
        assert shot.pulses == 1 or shot.duration_us <= room
        assert -(-shot.duration_us // shot.spacing_us) == shot.pulses  # as the device counts
    for before, after in pairwise(shots):  # the device is idle again
        assert before.start_us + before.duration_us < after.start_us


@given(st.integers(0, 3000), st.integers(60, 120), st.integers(1, 20))
def test_what_a_stimjim_is_told_is_balanced(amplitude: int, width: int, pulses: int) -> None:
    line = definition(3, Program(20_000, pulses, 20_000 * pulses - 10_000, amplitude, width))
    head, *stages = line.split("; ")
    assert head == f"S3,1,3,20000,{20_000 * pulses - 10_000}"
    parts = [tuple(map(int, stage.split(","))) for stage in stages]
    assert sum(a0 * us for a0, _, us in parts) == 0
    assert parts == [(-amplitude, 0, width), (amplitude, 0, width)]
