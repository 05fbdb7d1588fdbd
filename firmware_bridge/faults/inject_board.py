"""Injections into the board itself and its electrode."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from envs.errors import UserError
from firmware_bridge.clock import ClockModel, ClockSample
from firmware_bridge.codes import Cause, ElectrodeFault, NackCode, State
from firmware_bridge.faults.driver import SLOT_US, Driver
from firmware_bridge.faults.expectation import Expectation
from firmware_bridge.faults.outcome import Outcome, injection
from firmware_bridge.faults.rig import Rig
from firmware_bridge.messages import Nack, SetStim, TimeSync, pack_mask

FLIPPED = {"image": 0, "memory": 1}  # which one of ElectrodeFault.MEMORY


@injection
def electrode(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The electrode breaks: open, shorted, an impedance that the voltage cannot drive, dead, or charge left behind."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.amplitude_uA = given.get("amplitude_uA", driver.amplitude_uA)
    driver.drive(given.get("ramp_ms", rng.randint(300, 900)) * 1000)
    fault = ElectrodeFault[given["fault"]]
    at = rig.mark()
    rig.bench.set_fault(
        fault,
        given.get("residual_pC", 0),
        impedance_ohm=given.get("impedance_ohm", 0),
        v_max_mV=given.get("v_max_mV", 0),
    )
    broken = rig.bench.now_us  # at the latest: the way there takes real time
    driver.drive(300_000)
    mended = rig.mark()
    rig.bench.set_fault(ElectrodeFault.NONE)
    driver.order()
    rig.advance(200_000)
    causes = tuple(given["causes"])
    late = 4 * SLOT_US if rig.stepped else 300_000  # three slots, and the way to the first; a busy host may leave a gap
    return Outcome(
        at,
        [
            Expectation(after_us=at, state="SAFE_OFF", causes=causes, within_us=broken - at + late),
            Expectation(after_us=broken, pulses_max=3),
            Expectation(after_us=mended, stays="SAFE_OFF", pulses_max=0),
        ],
        marks=[(mended, "electrode mended")],
    )


@injection
def dose(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The strongest pulses that are allowed, at 143 Hz: each is, the mean of them (429 µW) is not."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    left_out = rig.client.status().slots_dose
    driver.amplitude_uA, driver.width_us = given["amplitude_uA"], given["width_us"]
    driver.slot_us = given["slot_us"]
    at = rig.mark()
    driver.drive(given["for_ms"] * 1000)
    status = rig.client.status()
    outcome = Outcome(
        at, [Expectation(after_us=at, state="CLOSED_LOOP"), Expectation(after_us=at, stays="CLOSED_LOOP")]
    )
    outcome.shown_s = given["for_ms"] / 1e3
    outcome.said = {"left_out": status.slots_dose - left_out, "dose_uW": status.dose_uW}
    outcome.must(status.slots_dose > left_out, "no pulse was left out")
    return outcome


@injection
def firmware_hangs(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The firmware runs in an endless loop; only the watchdog can help."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.drive(300_000)
    how = given["ways"][rng.randrange(len(given["ways"]))]
    at = rig.now()
    took_ms = 1e3 * rig.bench.hang(deaf=how == "interrupts off")
    outcome = Outcome(at, [Expectation(restart=True, state="IDLE", causes=("WATCHDOG",), pulses_max=0)])
    outcome.said = {"how": how, "host_ms": round(took_ms)}
    outcome.must(took_ms <= given["within_ms"], f"it took {took_ms:.0f} ms of the host's time")
    rig.client.link.read(0.2)
    answer = rig.client.hello(rig.model, refuse=False)
    outcome.must(answer.cause == Cause.WATCHDOG, f"the board says {Cause(answer.cause).name}, not WATCHDOG")
    return outcome


@injection
def power_loss(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """Power goes while the loop is under way, and comes back."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.drive(rng.randint(150_000, 400_000))
    at = rig.mark()
    how = "power" if rig.kind == "host" else given["ways"][rng.randrange(len(given["ways"]))]
    rig.power_cycle(how)
    if how == "reset":
        time.sleep(0.3)
    rig.advance(100_000)
    answer = rig.client.hello(rig.model, refuse=False)
    outcome = Outcome(at, [Expectation(restart=True, state="IDLE", causes=("POWER_ON", "RESET"), pulses_max=0)])
    outcome.must(answer.state == State.IDLE, f"the board woke up in {State(answer.state).name}")
    refused = driver.order()
    outcome.must(isinstance(refused, Nack), "an order was taken by a board that nobody had armed")
    rig.advance(100_000)
    outcome.said = {"how": how}
    return outcome


@injection
def memory_flip(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """A bit of the image (code, weights) or of the core's memory flips; not even a person arms such a board again."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.drive(rng.randint(200_000, 500_000))
    where = given["where"][rng.randrange(len(given["where"]))]
    at = rig.mark()
    rig.bench.set_fault(ElectrodeFault.MEMORY, FLIPPED[where])
    driver.drive(1_100_000)
    found = rig.mark()
    rig.bench.press_button()
    driver.order()
    rig.advance(100_000)
    rig.lines()
    outcome = Outcome(
        at,
        [
            Expectation(after_us=at, state="SAFE_OFF", causes=("MEMORY",), within_us=1_000_000),
            Expectation(after_us=found, stays="SAFE_OFF", pulses_max=0),
        ],
        said={"where": where},
    )
    rig.power_cycle("power" if rig.kind == "host" else "reset")
    if rig.kind != "host":
        time.sleep(0.3)
    rig.advance(100_000)
    answer = rig.client.hello(rig.model, refuse=False)
    outcome.must(answer.state == State.IDLE, f"the board woke up in {State(answer.state).name}")
    return outcome


@injection
def clock(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The clocks of host and board drift apart by up to 200 ppm; orders of another time are refused.

    Where the board's clock is stepped, an hour passes; the host's clock is simulated beside it, with uneven delays.
    """
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    at = rig.mark()
    drift, phase = rng.uniform(-200e-6, 200e-6), rng.uniform(0, 6.28)
    model, worst = ClockModel(), 0.0
    seconds = given["seconds"] if rig.stepped else given["real_seconds"]
    for _ in range(seconds):
        t2 = rig.now()

        def host_time(board_us: int) -> int:
            return 5_000_000 + round(board_us * (1 + drift) + 300 * (phase % 1))

        reply = rig.client._ask(
            TimeSync(0, 0, 0, 0, 0), lambda m, sent: isinstance(m, TimeSync) and m.of_sequence in sent
        )
        assert isinstance(reply, TimeSync)
        there, back = (round(300 + rng.expovariate(1 / 400)) for _ in range(2))
        sample = ClockSample(
            host_time(reply.t2_board_us) - there,
            reply.t2_board_us,
            reply.t3_board_us,
            host_time(reply.t3_board_us) + back,
        )
        model.add(sample)
        estimate = model.at(sample.t4_us)
        truth = reply.t3_board_us + back / (1 + drift) - sample.t4_us
        if _ > 5:
            worst = max(worst, abs(estimate.offset_us - truth))
        rig.until(t2 + 1_000_000)
    outcome = Outcome(at, said={"drift_ppm": round(drift * 1e6, 1), "seconds": seconds, "worst_us": round(worst)})
    outcome.must(worst < 2_000, f"the offset was wrong by {worst:.0f} µs")
    now = rig.now()
    for start in (max(1, now - 10_000_000), now + 5_000_000, 2**63):
        slots, bits = pack_mask([1] * 5)
        driver.decision_id += 1
        answer = driver.send(SetStim(driver.decision_id, start, 20_000, slots, bits, 3000, 60, 300, 0))
        refused = isinstance(answer, Nack) and answer.code == NackCode.START
        outcome.must(refused, f"an order for {start - now:+d} µs from now was taken")
    rig.advance(100_000)
    outcome.expect.append(Expectation(after_us=at, pulses_max=0, stays="ARMED"))
    return outcome


HAND_S = 20  # time for a person to do it
SETTLE_US = 1_000_000


def by_hand(rig: Rig, rng: random.Random, hands: dict[str, Any], said: Callable[[str], None]) -> Outcome:
    """A person breaks something while the loop is under way; when, only the trace can say."""
    driver = Driver(rig, rng)
    driver.begin()
    at = rig.mark()
    said(f"now: {hands['do']} (within {HAND_S} s)")
    before = len(rig.lines())
    end = time.monotonic() + HAND_S
    with suppress(UserError):  # a pulled cable takes the port away
        while time.monotonic() < end:
            driver.drive(200_000)
            if any("state" in line and line["state"] != "CLOSED_LOOP" for line in rig.lines()[before + 1 :]):
                break
    said("now: put everything back as it was")
    with suppress(UserError):
        rig.advance(SETTLE_US)
    restart = bool(hands.get("restart"))
    lease_ms = driver.lease_ms if "LEASE_ENDED" in hands["causes"] else None
    return Outcome(
        at,
        [
            Expectation(
                after_us=at,
                state=hands["state"],
                causes=tuple(hands["causes"]),
                lease_ms=lease_ms,
                restart=restart,
            )
        ],
    )
