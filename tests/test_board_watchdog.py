"""The host board's watchdog and its patrol over its own image: a process, its ptys, real faults."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Cause, ElectrodeFault, Refusal, State
from firmware_bridge.images import build_image
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack
from tests.board_tools import no_ramp, rig

TURNS_US = 640_000  # two turns of the patrol


@pytest.mark.parametrize("stepped", [True, False], ids=["stepped clock", "real time"])
@pytest.mark.parametrize("deaf", [False, True])
def test_a_hung_board_is_reset_by_its_watchdog(tmp_path: Path, stepped: bool, deaf: bool) -> None:
    log = tmp_path / "electrode.jsonl"
    with (
        HostBoard(electrode_log=log, image=no_ramp()) as board,
        Bench(board.electrode, stepped=stepped) as bench,
        BoardClient(SerialLink(board.port)) as client,
    ):
        client.hello()
        client.arm()
        assert isinstance(client.set_stim(1, 0, 20_000, [1] * 50, 3000, 60, 1000), Ack)
        bench.advance(50_000)
        session, process = client.connection.session, board.process.pid
        bench.hang(deaf=deaf, timeout_s=20.0)
        answer = client.hello()
        assert (answer.state, answer.cause) == (State.IDLE, Cause.WATCHDOG)
        assert client.connection.session >> 16 == (session >> 16) + 1, "sessions of this start have new numbers"
        assert board.process.pid == process
        assert board.process.poll() is None
        assert bench.advance(bench.now_us + 100_000) == []
        assert bench.grounded
        client.arm()  # the board is as good as new
        assert isinstance(client.set_stim(1, bench.now_us + 50_000, 20_000, [1] * 5, 3000, 60, 1000), Ack)
        assert len(bench.advance(bench.now_us + 400_000)) == 5
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (woke,) = (i for i, line in enumerate(lines) if line.get("cause") == "WATCHDOG")
    assert (lines[woke]["state"], lines[woke]["t_us"]) == ("IDLE", 0)


def test_a_board_that_gets_no_time_does_not_hang(tmp_path: Path) -> None:
    with rig() as board:
        board.order(1, [1] * 50, lease_ms=1000)
        board.bench.advance(50_000)
        os.kill(board.board.process.pid, signal.SIGSTOP)
        time.sleep(0.8)
        os.kill(board.board.process.pid, signal.SIGCONT)
        assert board.client.status().state == State.CLOSED_LOOP
        board.bench.advance(900_000)  # nor does one that lives through much at once
        assert board.client.status().pulses == 45


@pytest.mark.parametrize("which", [0, 1], ids=["image", "core"])
def test_a_flipped_bit_is_found(which: int) -> None:
    with rig() as board:
        board.order(1, [1] * 50, lease_ms=1000)
        board.bench.advance(100_000)
        board.bench.set_fault(ElectrodeFault.MEMORY, which)
        board.bench.advance(100_000 + TURNS_US)
        status = board.client.status()
        assert (status.state, status.cause) == (State.SAFE_OFF, Cause.MEMORY)
        board.bench.press_button()
        assert board.client.hello(refuse=False).refusal == Refusal.SAFE_OFF
        assert board.bench.grounded


def test_only_a_test_build_can_be_broken_so() -> None:
    with rig(image=build_image("host")) as board:
        board.order(1, [1] * 50, lease_ms=1000)
        for which in (0, 1):
            board.bench.set_fault(ElectrodeFault.MEMORY, which)
            board.bench.set_fault(ElectrodeFault.HANG, which)
        board.bench.advance(TURNS_US)
        assert board.client.status().state == State.CLOSED_LOOP
