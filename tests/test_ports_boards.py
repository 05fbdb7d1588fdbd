"""The firmware on three emulated Cortex-M boards: the same rules as on the host board, in device time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from envs.errors import UserError
from firmware_bridge.boards import start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.codec import encode
from firmware_bridge.codes import Cause, ElectrodeFault, State
from firmware_bridge.layout import Message
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack, Electrode, Heartbeat
from firmware_bridge.qemu import QemuBoard
from tests.board_tools import check_pulses
from tests.observe_tools import TinyPolicy, observation
from tests.ports_tools import (
    HERE,
    KINDS,
    MODEL,
    PATIENCE_S,
    PortRig,
    check_on_grid,
    image_with_policy,
    port_rig,
    wait_for,
)

PERIOD_US = 20_000
SLOW_US = 40_000  # slot period of the slow policy
LEASE_US, MARGIN_US = 300_000, 20_000
HANG_LOOP, HANG_DEAF = 0, 1  # ElectrodeFault.HANG


@pytest.fixture(scope="module", params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortRig]:
    with port_rig(request.param, tmp_path_factory.mktemp("ports")) as made:
        yield made


def test_it_shakes_hands_and_says_what_it_is(rig: PortRig) -> None:
    answer = rig.client.hello(MODEL)
    assert answer.firmware_build.hex() == rig.board.image_sha256
    assert answer.model_hash == MODEL
    assert (answer.state, answer.cause) == (State.IDLE, Cause.POWER_ON)
    assert rig.client.connection.session >> 16 == 16, "the number of this power-on"
    assert rig.bench.grounded


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"schema_hash": bytes(32)}, "another message schema"),
        ({"limits_hash": bytes(32)}, "another limits"),
        ({"model_hash": bytes(32)}, "another model"),
    ],
)
def test_it_refuses_whoever_differs(rig: PortRig, wrong: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        rig.client.hello(**{"model_hash": MODEL, **wrong})
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="refused ARM"):
        rig.client.arm()


def test_it_gives_exactly_the_ordered_pulses(rig: PortRig) -> None:
    rig.arm()
    mask = [1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1]
    start = rig.now() + 600_000
    assert isinstance(rig.client.set_stim(1, start, PERIOD_US, mask, 3000, 60, 1000), Ack)
    due = [start + i * PERIOD_US for i, bit in enumerate(mask) if bit]
    pulses = rig.bench.advance(start + 16 * PERIOD_US)
    check_on_grid(pulses, due)
    check_pulses(pulses)
    given = [-pulse.amplitude_uA for pulse in pulses]  # the set point climbs from 0
    assert given == sorted(given)
    steps = [b - a for a, b in pairwise(given)]
    apart = [b.t_us - a.t_us for a, b in pairwise(pulses)]
    assert all(step <= us // 2000 + 1 for step, us in zip(steps, apart, strict=True)), "0.5 mA/s"
    assert rig.bench.now_us >= start + 16 * PERIOD_US
    status = rig.client.status()
    assert (status.pulses, status.slots_late, status.slots_lapsed) == (len(due), 0, 0)


def test_stop_ends_it(rig: PortRig) -> None:
    rig.arm()
    start = rig.now() + 300_000
    rig.client.set_stim(1, start, PERIOD_US, [1] * 20, 3000, 60, 1000)
    assert rig.bench.advance(start + 3 * PERIOD_US)
    stopped = (rig.client.stop(), rig.client.device_time_us)[1]
    later = rig.bench.advance(stopped + 4 * PERIOD_US)
    assert all(pulse.t_us <= stopped for pulse in later)
    assert (rig.bench.state, rig.bench.grounded) == (State.IDLE, True)
    assert isinstance(rig.client.stop(), Ack)


def test_noise_costs_no_more_than_the_frame_it_hits(rig: PortRig) -> None:
    rig.client.hello(MODEL)
    before = rig.client.status()
    noise = random.Random(2)
    for _ in range(10):  # 10 kB, as fast as a slow link takes them
        rig.client.link.write(noise.randbytes(1000) + b"\x00")
        after = rig.client.status()
    assert after.frames_bad > before.frames_bad
    assert after.state == State.IDLE


def test_back_to_back_frames_are_all_answered(rig: PortRig) -> None:
    rig.client.hello(MODEL)
    sent = {}
    data = b""
    for _ in range(60):
        data += rig.client.connection.send(Heartbeat())
        sent[rig.client.connection.sequence] = True
    rig.client.link.write(data)
    answered: set[int] = set()

    def all_there() -> bool:
        for event in rig.client.connection.receive(rig.client.link.read(0.2)):
            message = getattr(event, "message", None)
            if isinstance(message, Ack):
                answered.add(message.of_sequence)
        return answered >= sent.keys()

    wait_for(all_there, "60 answers")


def test_it_decides_while_its_pulses_go_on(rig: PortRig) -> None:
    """A decision takes 128 ms; the slots of the one before lie 40 ms apart meanwhile."""
    rig.arm()
    twin = TinyPolicy(60, 60)
    start = rig.now() + 400_000  # an answer that comes after its start is not applied
    first, second = np.abs(observation(1, 60)), observation(2, 60)
    decided = rig.client.observe(1, first, start, 1000)
    assert decided.nack is None
    assert decided.mask == (1,) * 60
    assert np.array_equal(decided.logits, twin.infer(first))
    pulses = rig.bench.advance(start + SLOW_US)
    next_one = rig.client.observe(2, second, start + 12 * SLOW_US, 1000)
    answered_us = rig.client.device_time_us
    assert next_one.nack is None
    assert np.array_equal(next_one.logits, twin.infer(second)), "its recurrent state went on"
    due = list(range(start, start + 12 * SLOW_US, SLOW_US))
    assert any(next_one.decision.whole_us < at < answered_us for at in due), "a slot was due while it decided"
    pulses += rig.bench.advance(start + 12 * SLOW_US)
    check_on_grid(pulses, due)


def test_a_dead_output_latches_until_a_person_comes(rig: PortRig) -> None:
    rig.arm()
    rig.bench.set_fault(ElectrodeFault.DEAD)
    start = rig.now() + 600_000
    assert isinstance(rig.client.set_stim(1, start, PERIOD_US, [1] * 4, 3000, 60, 1000), Ack)
    assert rig.bench.advance(start + 4 * PERIOD_US) == []
    assert rig.bench.state is State.SAFE_OFF
    rig.bench.set_fault(ElectrodeFault.NONE)
    rig.bench.press_button()
    assert rig.bench.state is State.IDLE


def test_an_emulator_that_stands_still_is_a_board_that_stands_still(rig: PortRig) -> None:
    rig.client.hello(MODEL)
    begun, before = time.monotonic(), rig.now()
    rig.board.qmp("stop")
    stopped = time.monotonic()
    rig.client.timeout_s = 0.5
    with pytest.raises(UserError, match="no answer to STATUS_REQUEST"):
        rig.client.status()
    rig.client.timeout_s = PATIENCE_S
    assert rig.board.qmp("query-status")["running"] is False
    standing = time.monotonic() - stopped
    rig.board.qmp("cont")
    gone = rig.now() - before
    # On a busy machine an emulator makes up for some ms that it owed before: far from the half second that it stood.
    assert gone <= (time.monotonic() - begun - standing) * 1e6 + 100_000, "device time stood still with it"
    with pytest.raises(UserError, match="QEMU refuses 'no-such-command'"):
        rig.board.qmp("no-such-command")


def _tell(rig: PortRig, message: Message) -> None:
    rig.bench._write(encode(message, sequence=1, session=0), time.monotonic() + 5)


@pytest.mark.parametrize("how", [HANG_DEAF, HANG_LOOP])
def test_a_hung_firmware_is_reset_and_says_so(rig: PortRig, how: int) -> None:
    rig.arm()
    session = rig.client.connection.session
    rig.client.set_stim(1, rig.now(), PERIOD_US, [1] * 20, 3000, 60, 300)
    _tell(rig, Electrode(0, ElectrodeFault.HANG, how))
    wait_for(lambda: _woke(rig, Cause.WATCHDOG), "the watchdog")
    lines = [json.loads(line) for line in rig.log.read_text().splitlines()]
    reset = max(i for i, line in enumerate(lines) if line.get("cause") == "WATCHDOG")
    assert lines[reset]["state"] == "IDLE"
    assert not [line for line in lines[reset:] if "pulse" in line]
    answer = rig.client.hello(MODEL)
    assert (answer.state, answer.cause) == (State.IDLE, Cause.WATCHDOG)
    assert rig.client.connection.session >> 16 == (session >> 16) + 1, "sessions of this start have new numbers"
    rig.bench.advance(0)
    assert rig.bench.grounded


def _woke(rig: PortRig, cause: Cause) -> bool:
    lines = rig.log.read_text().splitlines(keepends=True)
    states = [line for line in lines if '"state"' in line and line.endswith("\n")]
    return bool(states) and json.loads(states[-1])["cause"] == cause.name


def test_a_reset_from_outside_is_told_from_power(rig: PortRig) -> None:
    rig.arm()
    rig.board.qmp("system_reset")
    wait_for(lambda: _woke(rig, Cause.RESET), "the reset")
    answer = rig.client.hello(MODEL)
    assert (answer.state, answer.cause) == (State.IDLE, Cause.RESET)
    status = rig.client.status()
    assert (status.pulses, status.frames_old_session, status.decision_id) == (0, 0, 0), "nothing of before is left"


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_host_is_outlived_by_its_lease_alone(kind: str, tmp_path: Path) -> None:
    log = tmp_path / "electrode.jsonl"
    with start_board(kind, electrode_log=log, steady=True) as board:
        host = subprocess.Popen(
            [sys.executable, str(HERE / "board_host.py"), board.port], stdout=subprocess.PIPE, text=True
        )
        assert host.stdout is not None
        for _ in range(2):
            assert host.stdout.readline() == "renewed\n"
        host.kill()
        host.wait()
        host.stdout.close()
        wait_for(lambda: '"FALLBACK"' in log.read_text(), "FALLBACK")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = max(line["t_us"] for line in lines if line.get("lease_until_us"))
    pulses = [line["t_us"] for line in lines if "pulse" in line]
    fallback = next(line for line in lines if line.get("state") == "FALLBACK")
    assert last < pulses[-1] < last + LEASE_US
    assert last + LEASE_US <= fallback["t_us"] <= last + LEASE_US + MARGIN_US
    assert fallback["cause"] == "LEASE_ENDED"


def test_a_board_that_loses_power_is_noticed(tmp_path: Path) -> None:
    with port_rig("qemu-m4f", tmp_path) as rig:
        rig.client.hello(MODEL)
        rig.board.qmp("quit")
        with pytest.raises(UserError, match=r"went away|no answer"):
            rig.client.status()
        with pytest.raises(UserError, match="does not answer"):
            rig.board.qmp("stop")
    with (
        QemuBoard(image_with_policy("qemu-m4f"), power_on=48) as board,
        BoardClient(SerialLink(board.port)) as client,
    ):
        client.hello(MODEL)
        assert client.connection.session >> 16 == 48
