"""What the tests of the ports share: an emulated board with a client and a bench that stay attached.

Device time is counted in instructions (a steady image), so that no stutter of the machine shows in it. QEMU looks for
the peer of a pty once a second, so attaching costs up to a second: a module does it once for each board.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from firmware_bridge.bench import Bench, ElectrodePulse
from firmware_bridge.client import BoardClient
from firmware_bridge.images import Image, compile_image
from firmware_bridge.links import SerialLink
from firmware_bridge.qemu import QemuBoard
from firmware_bridge.targets import TARGETS

KINDS = ("qemu-m4f", "qemu-m7", "qemu-m55")
HERE = Path(__file__).parent
MODEL = hashlib.sha256(b"the policy of the ports' tests").digest()
PATIENCE_S = 30.0  # host time: the link of a steady board is slow on a busy machine
TOLERANCE_US = 2_000  # the tick waits while an answer is written: at most 1.1 ms for a decision of 60 slots, else 5 µs
POLICY = HERE / "firmware" / "slow_policy.c"


class PortRig(NamedTuple):
    """An emulated board and everything attached to it."""

    board: QemuBoard
    bench: Bench
    client: BoardClient
    log: Path

    def arm(self) -> None:
        """A fresh session, armed."""
        self.client.stop()
        self.client.hello(MODEL, timeout_s=PATIENCE_S)
        self.client.arm()
        self.bench.advance(self.now())  # pulses of before are not ours

    def now(self) -> int:
        """Device time."""
        return self.client.time_sync().device_us


def image_with_policy(kind: str) -> Image:
    """A test build that decides, slowly."""
    return compile_image(TARGETS[kind], POLICY, MODEL, format="int8", test_build=True, steady=True)


@contextmanager
def port_rig(kind: str, folder: Path, power_on: int = 16) -> Iterator[PortRig]:
    """A running board with bench and link attached."""
    log = folder / f"{kind}.jsonl"
    with (
        QemuBoard(image_with_policy(kind), electrode_log=log, power_on=power_on) as board,
        Bench(board.electrode, stepped=False) as bench,
        BoardClient(SerialLink(board.port), timeout_s=PATIENCE_S) as client,
    ):
        yield PortRig(board, bench, client, log)


def check_on_grid(pulses: list[ElectrodePulse], due: list[int]) -> None:
    """Each ordered pulse once, in order, at its slot: late by no more than `TOLERANCE_US`."""
    assert len(pulses) == len(due), (len(pulses), len(due))
    for pulse, at in zip(pulses, due, strict=True):
        assert 0 <= pulse.t_us - at <= TOLERANCE_US


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
