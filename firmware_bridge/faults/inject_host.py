"""Injections into the host: killed, stalled, cut off, or without a disk to record on."""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from firmware_bridge.codes import NackCode, State
from firmware_bridge.faults import link as faulty
from firmware_bridge.faults.driver import LEASE_MS, RENEW_US, Driver
from firmware_bridge.faults.expectation import Expectation
from firmware_bridge.faults.host import Hosts
from firmware_bridge.faults.outcome import Outcome, injection
from firmware_bridge.faults.rig import Rig
from firmware_bridge.messages import Ack, Heartbeat, Nack, Renew

LEASE_US = 1000 * LEASE_MS
DEADLINE_US = 20_000
ATTEMPTS = 5  # to break a loop before a busy machine has stalled it for a whole lease


def lost_host(at_us: int, silent_us: int | None = None) -> Expectation:
    """FALLBACK by the lease. ``silent_us``: nothing can have come since then, whatever the board says of its lease."""
    within = None if silent_us is None else silent_us - at_us + LEASE_US + DEADLINE_US
    return Expectation(after_us=at_us, state="FALLBACK", causes=("LEASE_ENDED",), within_us=within, lease_ms=LEASE_MS)


def loop_at_work(rig: Rig, driver: Driver, us: int) -> int:
    """Drive a loop for so long; device time of its begin. One that a busy machine has ended is no trial."""
    began = 0
    for _ in range(ATTEMPTS):
        driver.begin()
        began = rig.mark()
        driver.drive(us)
        rig.now()
        if rig.bench.state is State.CLOSED_LOOP:
            break
    return began


def _wait_for_loop(rig: Rig, host_s: float = 10) -> int:
    """Device time at which another program's loop was seen at work."""
    end = time.monotonic() + host_s
    rig.now()
    while rig.bench.state is not State.CLOSED_LOOP and time.monotonic() < end:
        rig.advance(20_000)
    return rig.now()


class _Killed(NamedTuple):
    began_us: int  # device time: its loop was seen at work
    at_us: int
    at_s: float  # host time
    stalled: int  # hosts before it whose lease had ended by themselves: the machine was busy


def _kill(rig: Rig, low_us: int, wait: Callable[[], int], record: Path | None = None, disk: int = 0) -> _Killed:
    """A host in a process of its own, on the other end of a pty, is killed with SIGKILL while its loop is at work."""
    rig.halt()
    if rig.hosts is None:
        rig.hosts = rig.keep(Hosts(rig.model))
    for stalled in range(ATTEMPTS):
        cable = faulty.Proxy(rig.link.inner)
        try:
            rig.hosts.start(cable.port, record, disk)
            began = _wait_for_loop(rig)
            rig.advance(low_us + wait())
            rig.hosts.kill()
            at_s = time.time()
            at_us, lost = rig.now(), rig.bench.state is not State.CLOSED_LOOP
            if disk or not lost or stalled == ATTEMPTS - 1:
                rig.advance(LEASE_US + 150_000)
                break
        finally:
            rig.hosts.kill()
            cable.close()
        rig.halt()
        if record is not None:
            record.unlink()
    return _Killed(began, at_us, at_s, stalled)


@injection
def host_killed(rig: Rig, rng: random.Random, _: dict[str, Any]) -> Outcome:
    """A host is killed amid its renewals."""
    killed = _kill(rig, 50_000, lambda: rng.randint(0, 350_000))
    outcome = Outcome(killed.at_us, [lost_host(killed.began_us)], said={"stalled": killed.stalled})
    outcome.must(rig.bench.state is State.FALLBACK, f"the board is in {rig.bench.state.name}")
    return outcome


@injection
def cable_pulled(rig: Rig, rng: random.Random, _: dict[str, Any]) -> Outcome:
    """Nothing passes any more, in neither direction; the host goes on talking."""
    driver = Driver(rig, rng)
    began = loop_at_work(rig, driver, rng.randint(300_000, 900_000))
    rig.link.cut = True
    pulled = rig.mark()
    driver.drive(LEASE_US + 150_000, wait=False)
    return Outcome(pulled, [lost_host(pulled if rig.stepped else began, pulled)])


@injection
def host_stalls(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The host's loop stops for 50 ms to 5 s, then goes on as if nothing had been; its heartbeat may go on."""
    driver = Driver(rig, rng)
    began = loop_at_work(rig, driver, 400_000)
    stall = rng.randint(given["low_ms"], given["high_ms"]) * 1000
    beats = rng.random() < 0.5
    at = rig.mark()
    while (left := at + stall - rig.now()) > 0:
        if beats:
            driver.send(Heartbeat(), wait=False)
        rig.advance(min(left, RENEW_US))
    held = driver.orders[-1][0]
    answer = driver.send(Renew(held))
    outcome = Outcome(at, said={"stall_ms": stall // 1000, "heartbeat": beats})
    if stall < LEASE_US - RENEW_US - 20_000:
        outcome.must(isinstance(answer, Ack), f"the lease was over after a stall of {stall // 1000} ms")
        return outcome
    if stall <= LEASE_US + 20_000:
        return outcome  # too near the end to be told in advance
    outcome.expect.append(lost_host(at if rig.stepped else began, at))
    outcome.must(isinstance(answer, Nack) and answer.code == NackCode.STATE, "a RENEW revived the loop after FALLBACK")
    refused = driver.order()
    outcome.must(isinstance(refused, Nack), "an order was taken without a fresh handshake")
    silent = rig.mark()
    rig.advance(100_000)
    outcome.expect.append(Expectation(after_us=silent, pulses_max=0, stays="FALLBACK"))
    outcome.must(rig.bench.state is State.FALLBACK, f"the board is in {rig.bench.state.name}, not FALLBACK")
    return outcome


@injection
def fallback_setting(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The host is lost; the board has a setting that it may give all the same."""
    driver = Driver(rig, rng)
    began = loop_at_work(rig, driver, given["drive_ms"] * 1000 + rng.randint(0, 500_000))
    rig.link.cut = True
    at = rig.mark()
    rig.advance(LEASE_US + given["watch_ms"] * 1000)
    settled = Expectation(after_us=at + LEASE_US, stays="FALLBACK", pulses_min=given["pulses_min"])
    return Outcome(at, [lost_host(at if rig.stepped else began, at), settled], shown_s=3.5)


@injection
def recorder(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """A host that records is killed with SIGKILL, or its disk fills up."""
    full = bool(rng.randrange(2))
    with tempfile.TemporaryDirectory(prefix="sea-record-") as folder:
        record = Path(folder) / "notes.sqlite"
        killed = _kill(rig, 800_000, lambda: rng.randint(0, 700_000), record, given["disk_bytes"] if full else 0)
        with closing(sqlite3.connect(record)) as db:
            newest = db.execute("SELECT max(host_time) FROM notes").fetchone()[0]
    outcome = Outcome(killed.at_us, [] if full else [lost_host(killed.began_us)])
    outcome.said = {"disk": "full" if full else "killed", "stalled": killed.stalled}
    outcome.must(newest is not None, "nothing can be read of the record")
    if newest is not None and not full:
        lost_s = killed.at_s - newest
        outcome.said["lost_ms"] = round(1e3 * lost_s)
        outcome.must(lost_s <= given["lost_max_s"], f"{lost_s:.2f} s of records were lost")
    outcome.must(rig.bench.state in (State.FALLBACK, State.IDLE), f"the board is in {rig.bench.state.name}")
    return outcome
