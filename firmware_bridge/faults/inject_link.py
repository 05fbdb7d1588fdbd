"""Injections on the link: what a cable, a receiver and a stranger can do to frames."""

from __future__ import annotations

import random
from typing import Any

from firmware_bridge.codec import encode
from firmware_bridge.codes import ElectrodeFault, NackCode, State
from firmware_bridge.faults import link as faulty
from firmware_bridge.faults.driver import Driver
from firmware_bridge.faults.expectation import Expectation
from firmware_bridge.faults.inject_host import LEASE_US, loop_at_work, lost_host
from firmware_bridge.faults.outcome import Outcome, injection
from firmware_bridge.faults.rig import Rig
from firmware_bridge.messages import Arm, Heartbeat, Nack, Status, Stop

STOP_WAY_US = 500_000  # there and back on a busy machine; a STOP that nobody answered is no STOP
NOISE = {"host": (500, 6_000), "qemu": (250, 10_000)}  # bytes and µs: as fast as the wire, and as an emulator takes it


def _status(rig: Rig) -> Status:
    rig.link.clean()
    return rig.client.status()


@injection
def bit_errors(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """Bits of both directions flip; each frame that was hit must be dropped, each other one taken."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.order()
    before = _status(rig)
    rate = given["rates"][rng.randrange(len(given["rates"]))]
    flip = faulty.flip_bits(rng, rate)
    hit = [0, 0]  # frames that passed, frames that were hit

    def out(data: bytes) -> faulty.Pieces:
        damaged = flip(data)
        hit[int(damaged != data)] += 1
        return [(0, damaged)]

    rig.link.out, rig.link.back = out, faulty.flip_bits(rng, rate)
    at = rig.mark()
    for k in range(given["frames"]):
        driver.send(Heartbeat(), wait=False)
        if k % 20 == 19:
            rig.advance(20_000)
            driver.keep(wait=False)
    rig.advance(20_000)
    rig.link.raw(b"\x00")
    after = _status(rig)
    outcome = Outcome(at, said={"bit_error_rate": rate, "frames": sum(hit), "hit": hit[1]})
    taken = after.frames - before.frames - 1  # without the STATUS_REQUEST itself
    outcome.must(taken == hit[0], f"{taken} frames were taken where {hit[0]} passed undamaged")
    outcome.must(hit[1] == 0 or after.frames_bad > before.frames_bad, "no damaged frame was counted")
    return outcome


@injection
def broken_frames(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """Truncated, split and joined frames, and 10 kB of noise between whole ones."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.order()
    before = rig.client.status().frames
    at = rig.mark()
    connection = rig.client.connection
    outcome = Outcome(at)
    size, pause = NOISE["host" if rig.kind == "host" else "qemu"]
    for kind in ("truncated", "split", "joined", "noise"):
        frames = [connection.send(Heartbeat()) for _ in range(3)]
        if kind == "truncated":
            rig.link.raw(frames[0][: rng.randint(2, len(frames[0]) - 2)])
            rig.link.raw(frames[1] + frames[2])
            whole = 2
        elif kind == "split":
            for frame in frames:
                point = rng.randint(1, len(frame) - 1)
                rig.link.raw(frame[:point])
                rig.advance(5_000)
                rig.link.raw(frame[point:])
            whole = 3
        elif kind == "joined":
            rig.link.raw(b"".join(frames).replace(b"\x00\x00", b"\x00"))
            whole = 3
        else:
            for _k in range(given["noise_bytes"] // size):
                rig.link.raw(rng.randbytes(size))
                rig.advance(pause)
            driver.keep(wait=False)
            rig.link.raw(b"".join(frames))
            whole = 3 + 1
        rig.advance(10_000)
        rig.client.poll(0.0)
        after = rig.client.status().frames
        taken, before = after - before - 1, after  # without the request for the status itself
        outcome.said[kind] = [whole, taken]
        outcome.must(whole - 1 <= taken <= whole, f"{kind}: {whole - taken} of {whole} whole frames were lost")
    return outcome


@injection
def replay(rig: Rig, rng: random.Random, _: dict[str, Any]) -> Outcome:
    """Every frame of two sessions comes again: repeated, reordered, and from the old session. None is applied."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    rig.link.forget()
    driver.drive(300_000)
    old = list(rig.link.sent)
    driver.begin()
    rig.link.forget()
    driver.drive(300_000)
    rig.link.out = faulty.twice
    driver.drive(100_000)
    rig.link.out = faulty.swap()
    for _k in range(4):
        driver.send(Heartbeat(), wait=False)
    rig.link.clean()
    mine = list(rig.link.sent)
    rig.client.stop()
    at = rig.mark()
    before = rig.client.status()
    frames = old + mine
    rng.shuffle(frames)
    for frame in frames:
        rig.link.raw(frame)
    rig.advance(100_000)
    rig.client.poll(0.0)
    after = rig.client.status()
    outcome = Outcome(at, [Expectation(after_us=at, pulses_max=0, stays="IDLE")], said={"replayed": len(frames)})
    ignored = after.frames_old_sequence + after.frames_old_session
    ignored -= before.frames_old_sequence + before.frames_old_session
    outcome.must(ignored == len(frames), f"{ignored} of {len(frames)} replayed frames were counted as ignored")
    outcome.must(after.state == State.IDLE, f"the board went to {State(after.state).name} on replayed frames")
    return outcome


@injection
def delay_and_loss(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """Frames come 20 to 500 ms late, overtake each other, and 1 to 50 % are lost; then nothing comes any more."""
    driver = Driver(rig, rng)
    began = loop_at_work(rig, driver, 300_000)
    low, high = sorted(rng.randint(given["low_ms"], given["high_ms"]) * 1000 for _ in range(2))
    share = rng.uniform(*given["loss"])
    rig.link.out = faulty.delay(rng, low, high, share)
    at = rig.mark()
    driver.drive(given["for_ms"] * 1000, wait=False)
    rig.link.cut = True
    silent = rig.now() if rig.stepped else None  # where time is real, frames may still be on the wire
    rig.advance(LEASE_US + 150_000)
    said = {"delay_ms": [low // 1000, high // 1000], "loss": round(share, 3)}
    return Outcome(at, [lost_host(at if rig.stepped else began, silent)], said=said)


@injection
def receiver_overrun(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """The board's receiver loses bytes: once is counted, repeatedly is FALLBACK."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    if rig.client.status().overruns:
        rig.advance(given["window_ms"] * 1000)
        driver.begin()
    driver.drive(300_000)
    before = rig.client.status()
    outcome = Outcome(rig.mark())
    rig.bench.set_fault(ElectrodeFault.OVERRUN)
    once = rig.client.status()
    outcome.must(once.state == State.CLOSED_LOOP, "a single overrun ended the loop")
    for _ in range(given["times"] - 1):
        rig.advance(1_000)
        rig.bench.set_fault(ElectrodeFault.OVERRUN)
    within = rig.now() - outcome.fault_us + 100_000
    rig.advance(10_000)
    after = rig.client.status()
    counted = after.overruns - before.overruns
    outcome.must(counted == given["times"], f"{counted} overruns were counted, not {given['times']}")
    outcome.expect.append(
        Expectation(after_us=outcome.fault_us, state="FALLBACK", causes=("OVERRUN",), within_us=within)
    )
    outcome.said["overruns"] = counted
    return outcome


@injection
def wrong_hash(rig: Rig, rng: random.Random, given: dict[str, Any]) -> Outcome:
    """A host with another schema, other limits or another model asks to arm."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    rig.client.stop()
    at = rig.mark()
    name = given["hashes"][rng.randrange(len(given["hashes"]))]
    values: dict[str, Any] = {"model_hash": rig.model, name: rng.randbytes(32)}
    model = values.pop("model_hash")
    answer = rig.client.hello(model, refuse=False, **values)
    outcome = Outcome(at, [Expectation(after_us=at, pulses_max=0, stays="IDLE")], said={"wrong": name})
    outcome.must(answer.refusal != 0, f"HELLO with another {name} was not refused")
    reply = driver.send(Arm(answer.board_nonce))
    outcome.must(isinstance(reply, Nack) and reply.code == NackCode.REFUSED, f"ARM with another {name} was not refused")
    driver.order()
    rig.advance(100_000)
    return outcome


@injection
def stop_always(rig: Rig, rng: random.Random, _: dict[str, Any]) -> Outcome:
    """A STOP from somebody who never shook hands, while the loop is under way."""
    driver = Driver(rig, rng, patient=True)
    driver.begin()
    driver.drive(rng.randint(200_000, 500_000))
    rig.client.poll(0.0)
    at = rig.mark()
    rig.link.raw(encode(Stop(reason=9), sequence=rng.randrange(2**32), session=rng.randrange(2**32)))
    rig.client.poll(1.0)  # its answer: a stepped clock must not advance before the board has read the frame
    answered = rig.now()  # the way there and back takes real time
    slack = 2_000 if rig.stepped else min(max(30_000, answered - at), STOP_WAY_US)
    outcome = Outcome(
        at,
        [
            Expectation(after_us=at, state="IDLE", causes=("STOPPED",), within_us=slack),
            Expectation(after_us=at + slack, pulses_max=0, stays="IDLE"),
        ],
    )
    if not rig.stepped:  # a stepped bench tells the state of its last step
        outcome.must(rig.bench.state is State.IDLE, f"the board is in {rig.bench.state.name} when its answer is here")
    rig.advance(200_000)
    rig.client.poll(0.0)
    return outcome
