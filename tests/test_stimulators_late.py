"""Triggers that reach a StimJim late, on a clock of the test's own: slots are lost and counted, no more."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from firmware_bridge.codes import Cause, Fault, State
from firmware_bridge.limits import LIMITS
from firmware_bridge.stimulators import pacing, stimjim
from firmware_bridge.stimulators.client import StimulatorClient
from firmware_bridge.stimulators.emulated_stimjim import EmulatedStimJim
from firmware_bridge.stimulators.stimjim import StimJim

PERIOD_US = 20_000
GAP_US = LIMITS["SLOT_PERIOD_MIN_US"].value
STEP_US = 100  # of the test's clock, where nothing sleeps


class Bed:
    """A StimJim driver, an emulator without a process, and between them a link that holds triggers up.

    ``delays``: µs of each trigger's way, in order; nothing overtakes it. ``says``: what the device answers to a trigger
    in the place of its own answer.
    """

    name = "the test's link"

    def __init__(self, delays: list[int], *, says: bytes | None = None, **options: Any) -> None:
        self.us = 1_000_000
        self.delays, self.says = list(delays), says
        self.device = EmulatedStimJim()
        self.pulses: list[int] = []
        self._way: list[tuple[int, bytes]] = []
        self._out = b""
        self.driver = StimJim(self, bench=True, **options)  # type: ignore[arg-type]
        self.driver._thread = SimpleNamespace(is_alive=lambda: True)  # type: ignore[assignment]
        clock = SimpleNamespace(monotonic=lambda: self.us / 1e6, monotonic_ns=lambda: self.us * 1000, sleep=self.sleep)
        self._patches = [patch.object(module, "time", clock) for module in (pacing, stimjim)]

    def __enter__(self) -> Bed:
        for each in self._patches:
            each.start()
        self.driver.connect()
        self.driver.arm()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()

    def sleep(self, seconds: float) -> None:
        self.us += max(STEP_US, round(seconds * 1e6))

    def write(self, data: bytes) -> None:
        trigger = data[:1] == b"T" and data[1:2] != b"-"
        delay = self.delays.pop(0) if trigger and self.delays else 0
        arrives = max([self.us + delay, *(at for at, _ in self._way)])
        self._way.append((arrives, data))

    def waiting(self) -> bytes:
        while self._way and self._way[0][0] <= self.us:
            at, data = self._way.pop(0)
            self._live(at)
            answer = self.device.feed(data, at)
            trigger = data[:1] == b"T" and data[1:2] != b"-"
            self._out += self.says if trigger and self.says is not None else answer
            self._live(at)
        self._live(self.us)
        out, self._out = self._out, b""
        return out

    def _live(self, until: int) -> None:
        while (due := self.device.next_us()) is not None and due <= until:
            self.pulses += [pulse.t_us for pulse in self.device.due(due)]
            self._out += self.device.tick(due)

    def run(self, us: int, *, renew: bool = True) -> None:
        """What the driver's thread does, for so long."""
        end = self.us + us
        while self.us < end and self.driver.state is State.CLOSED_LOOP:
            if renew:
                self.driver.renew(1)
            self.driver._guarded(self.driver._hear)
            self.sleep(self.driver._serve())
        self.us = max(self.us, end)
        self.waiting()

    def order(self, mask: list[int], period_us: int = PERIOD_US, lease_ms: int = 1000) -> int:
        start = self.us + 100_000
        assert self.driver.order(1, start, period_us, mask, 3000, 60, lease_ms).code is None
        return start


def test_a_punctual_trigger_that_meets_a_late_train_is_a_slot_not_given() -> None:
    with Bed([0, 12_000], trains=False) as bed:
        start = bed.order([1] * 5)
        bed.run(300_000)
        assert (bed.driver.state, bed.driver.fault) == (State.CLOSED_LOOP, None)
        slots = [(t - start) / PERIOD_US for t in bed.pulses]
        assert slots == pytest.approx([0, 1.6, 3, 4], abs=0.05)  # slot 2 met the train of slot 1
        counts = bed.driver.counters
        assert (counts.pulses, counts.slots_busy, counts.slots_late, counts.triggers) == (4, 1, 0, 5)
        status = StimulatorClient(bed.driver).status()  # what a session records
        assert (status.pulses, status.slots_late, status.faults) == (4, 1, int(Fault.LATE))


def test_no_trigger_is_sent_behind_one_that_is_not_answered() -> None:
    with Bed([0, 55_000], trains=False) as bed:
        start = bed.order([1] * 6)
        bed.run(300_000)
        assert bed.driver.fault is None
        slots = [(t - start) / PERIOD_US for t in bed.pulses]
        assert slots == pytest.approx([0, 3.75, 5], abs=0.05)  # 2 and 3 not sent, 4 refused
        counts = bed.driver.counters
        assert (counts.pulses, counts.slots_busy, counts.triggers) == (3, 3, 4)


def test_a_slot_into_which_a_late_pulse_fell_gets_no_second_one() -> None:
    with Bed([0, 20_200, 3_000], trains=False) as bed:
        start = bed.order([1] * 5)
        bed.run(start + 25_000 - bed.us)
        while bed.us < start + 49_000:
            bed.us += STEP_US  # the host comes late as well
        bed.run(200_000)
        slots = [(t - start) // PERIOD_US for t in bed.pulses]
        assert len(set(slots)) == len(slots)
        assert bed.driver.fault is None
        assert bed.driver.counters.slots_busy >= 1


def test_a_train_that_is_refused_goes_on_slot_by_slot() -> None:
    with Bed([15_000]) as bed:
        start = bed.order([1, 1, 0, 1, 0, 1, 0, 1])  # a pulse, then a train of 1, 3, 5, 7
        bed.run(300_000)
        assert bed.driver.fault is None
        slots = [(t - start) / PERIOD_US for t in bed.pulses]
        assert slots == pytest.approx([0.75, 3, 5, 7], abs=0.05)
        counts = bed.driver.counters
        assert (counts.pulses, counts.slots_busy) == (4, 1)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=40),
    st.integers(GAP_US, 50_000),
    st.lists(st.one_of(st.just(0), st.integers(0, 30_000), st.integers(0, 230_000)), max_size=40),
    st.booleans(),
)
def test_however_late_triggers_are_each_slot_is_accounted_for_and_none_bunched(
    mask: list[int], period_us: int, delays: list[int], trains: bool
) -> None:
    with Bed(delays, trains=trains) as bed:
        start = bed.order(mask, period_us)
        bed.run(100_000 + period_us * len(mask) + 500_000)
        counts = bed.driver.counters
        assert (bed.driver.state, bed.driver.fault) == (State.CLOSED_LOOP, None)
        not_given = counts.slots_late + counts.slots_busy + counts.slots_too_soon + counts.slots_lapsed
        assert counts.pulses + not_given == sum(mask)
        assert len(bed.pulses) == counts.pulses
        assert len({(t - start) // period_us for t in bed.pulses}) == len(bed.pulses)  # never twice in a slot
        assert all(after - before >= GAP_US for before, after in pairwise(bed.pulses))


@pytest.mark.parametrize("delay_us", [0, 20_000, 90_000, 130_000])
def test_a_train_that_began_late_is_stopped_at_the_end_of_the_lease(delay_us: int) -> None:
    with Bed([delay_us]) as bed:
        start = bed.order([1] * 20, lease_ms=240)
        bed.run(1_000_000, renew=False)
        assert (bed.driver.state, bed.driver.cause) == (State.FALLBACK, Cause.LEASE_ENDED)
        assert bed.pulses
        assert bed.pulses[-1] <= bed.driver._lease_until_us + 2 * 1000  # the thread looks each 2 ms
        assert bed.pulses[0] == pytest.approx(start + delay_us, abs=1000)


@pytest.mark.parametrize(
    "says",
    [
        b"Invalid PulseTrain index.\r\n",
        b"ERR T\r\n",
        b"WARN T: output off\r\n",
        b"WARN T: a train runs, start ignored\r\n",
    ],
)
def test_a_refusal_that_no_train_of_ours_explains_is_fatal(says: bytes) -> None:
    with Bed([], says=says, trains=False) as bed:
        bed.order([1] * 5)
        with pytest.raises(UserError, match="refused a trigger"):
            bed.run(300_000)
        assert bed.driver.state is State.SAFE_OFF
        assert bed.driver.fault is not None


def test_a_device_that_refuses_for_ever_is_a_fault() -> None:
    with Bed([], trains=False) as bed:
        bed.order([1] * 10)
        bed.run(130_000)
        assert bed.pulses
        before = bed.driver.counters.triggers
        bed.says = b"WARN T: a train runs, start ignored\r\n"
        with pytest.raises(UserError, match="refused a trigger"):
            bed.run(300_000)
        assert bed.driver.state is State.SAFE_OFF
        assert bed.driver.counters.triggers - before <= 2


def test_the_emulator_takes_a_trigger_as_soon_as_a_train_is_over() -> None:
    device = EmulatedStimJim()
    device.feed(b"S0,1,3,20000,10000; -100,0,60; 100,0,60\nT0\n", 0)
    assert b"ignored" in device.feed(b"T0\n", 9_999)
    device.due(10_000)
    answer = device.feed(b"T0\n", 10_001)  # it was not looked after in between
    assert answer.index(b"Train #0 complete. Delivered 1 pulses") < answer.index(b"Started")
