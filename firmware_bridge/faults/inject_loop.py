"""Injections into what the loop senses and decides; the board decides, so that it must judge."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from firmware_bridge.codes import NackCode, State
from firmware_bridge.faults import driver as host
from firmware_bridge.faults.driver import PATIENT_MS, Driver
from firmware_bridge.faults.expectation import Expectation
from firmware_bridge.faults.outcome import Outcome, injection
from firmware_bridge.faults.rig import N_OBS, Rig
from firmware_bridge.messages import Nack, Renew
from firmware_bridge.observation import Decided


def _code(answer: Decided | Nack | None) -> int | None:
    """Why a decision was refused; 0: it was applied; None: no answer."""
    if answer is None:
        return None
    return answer.code if isinstance(answer, Nack) else answer.decision.code


def _started(rig: Rig, rng: random.Random, us: int = 500_000) -> Driver:
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.watch(us)
    return driver


@injection
def policy_output(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The policy answers NaN (as its C code says it), or saturates."""
    driver = _started(rig, rng)
    kind = host.NOT_A_NUMBER if given["kind"] == "nan" else host.SATURATED
    at = rig.mark()
    outcome = Outcome(at)
    for k in range(3):
        answer = driver.observe(driver.values(kind))
        code = _code(answer)
        outcome.must(code == NackCode.NOT_FINITE, f"answer {k + 1} was not refused as it must be: code {code}")
        within = rig.now() - at  # of the third answer
        rig.advance(50_000)
    rig.advance(100_000)
    outcome.expect.append(Expectation(after_us=at, state="FALLBACK", causes=("NOT_FINITE",), within_us=within + 20_000))
    end = rig.now()
    outcome.expect.append(Expectation(after_us=end, pulses_max=0))
    rig.advance(100_000)
    return outcome


@injection
def sensor(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The sensor is stuck (no new sample), flat, or at an end of its range."""
    driver = _started(rig, rng)
    kinds = given["kinds"]
    kind = kinds[rng.randrange(len(kinds))]
    last, good = driver.values(), driver.decision_id
    at = rig.mark()
    outcome = Outcome(
        at, [Expectation(after_us=at, state="FALLBACK", causes=("SENSING",), within_us=1_000_000)], said={"kind": kind}
    )
    for k in range(5):
        if kind == "stuck":
            answer = driver.observe(last, new=0)
        else:
            level = 5 if kind == "flat" else rng.choice((-128, 127))
            answer = driver.observe(np.full(N_OBS, level, np.int8))
        code = _code(answer)
        outcome.must(code in (NackCode.SENSING, NackCode.STATE), f"observation {k + 1} was acted on: code {code}")
        driver.send(Renew(good))  # a host that notices nothing
        rig.advance(80_000)
    return outcome


@injection
def sample_gap(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """Samples are lost before an observation, or it is too old: nothing is done on it, and the loop goes on."""
    driver = _started(rig, rng)
    at = rig.mark()
    kind = given["kinds"][rng.randrange(len(given["kinds"]))]
    how: dict[str, Any] = {"skip": rng.randint(1, 1000)} if kind == "gap" else {"age_us": 1_500_000}
    answer = driver.observe(driver.values(), **how)
    outcome = Outcome(at, said={"kind": kind, **how})
    outcome.must(_code(answer) == NackCode.SENSING, f"it was acted on: code {_code(answer)}")
    driver.watch(400_000)
    outcome.must(rig.client.status().state == State.CLOSED_LOOP, "the loop did not go on after a single gap")
    outcome.expect.append(Expectation(after_us=at, stays="CLOSED_LOOP"))
    return outcome


@injection
def artefact(rig: Rig, rng: random.Random, _: dict[str, Any]) -> Outcome:
    """A burst of artefact: most values had to be blanked. No toggle may come of it."""
    driver = _started(rig, rng)
    at = rig.mark()
    toggles = rig.client.status().toggles
    answer = driver.observe(driver.values(host.QUIET), blanked=rng.randint(N_OBS // 2 + 1, N_OBS))
    outcome = Outcome(at, [Expectation(after_us=at, stays="CLOSED_LOOP")])
    outcome.must(_code(answer) == NackCode.SENSING, f"it was acted on: code {_code(answer)}")
    driver.watch(400_000)
    outcome.must(rig.client.status().toggles <= toggles, "the artefact toggled stimulation")
    return outcome


@injection
def limit_cycle(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The loop switches on and off again and again, faster than the set rate."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    if rig.client.status().toggles:
        rig.advance(given["window_ms"] * 1000)
        driver.begin()
    driver.mask = [1] * given["on_slots"] + [0] * given["off_slots"]
    within = given["within_ms"] * 1000
    at = rig.mark()
    while rig.bench.state is not State.FALLBACK and rig.now() < at + within:
        driver.drive(100_000)
    return Outcome(at, [Expectation(after_us=at, state="FALLBACK", causes=("LIMIT_CYCLE",), within_us=within)])


@injection
def inference_overrun(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The policy takes too long: for its lease, which ends; or, again and again, for the start of its decision.

    A late answer is skipped and counted, what was decided before is held, and the third in a row leads to FALLBACK.
    """
    kind = given["kinds"][rng.randrange(len(given["kinds"]))]
    board = "host" if rig.kind == "host" else "qemu"  # an emulated UART takes its time
    driver = Driver(rig, rng, given["lease_ms"][board] if kind == "lease" else PATIENT_MS)
    driver.begin()
    driver.observe(driver.values())
    rig.advance(10_000)
    before = rig.client.status().decisions_late
    at = rig.mark()
    if kind == "lease":
        wanted = Expectation(after_us=0, state="FALLBACK", causes=("LEASE_ENDED",), lease_ms=driver.lease_ms)
        codes = [_code(driver.observe(driver.values(host.SLOW)))]
        rig.advance(given["for_ms"] * 1000)
    else:
        codes, good = [], driver.decision_id
        while codes[-3:] != [NackCode.INFERENCE] * 3 and len(codes) < given["tries"]:
            driver.send(Renew(good))  # what is under way is held: its lease is not the matter here
            start_us = rig.now() + given["ahead_us"][board]
            codes.append(_code(driver.observe(driver.values(host.SLOW), start_us=start_us)))
            good = driver.decision_id if codes[-1] == 0 else good
        within = rig.now() - at + 20_000  # with the third answer
        wanted = Expectation(after_us=at, state="FALLBACK", causes=("INFERENCE",), within_us=within)
    outcome, late = Outcome(at, [wanted]), codes.count(NackCode.INFERENCE)
    counted = rig.client.status().decisions_late - before
    outcome.must(counted == late, f"{late} answers came late, {counted} were counted")
    outcome.said = {"kind": kind, "late": counted, "answers": len(codes)}
    return outcome
