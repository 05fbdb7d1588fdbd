"""What the emulated stimulators share: a process on two ptys, its clock, and the log of what it gave.

The first pty is the device's port. The second is an electrode channel as a board has it (`firmware_bridge.bench`): the
pulses that were really given, which alone drive the plant. The clock is the machine's monotonic clock, so that the
host's driver and the emulator count the same µs.
"""

from __future__ import annotations

import json
import os
import pty
import random
import select
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

from envs.errors import UserError
from firmware_bridge.board import runtime_dir
from firmware_bridge.codec import Decoder, Frame, encode
from firmware_bridge.codes import State
from firmware_bridge.layout import Message
from firmware_bridge.messages import Advance, At, Clock, Pulse
from sea_dbs.files import writing

MISBEHAVIOURS = ("silent", "handshake", "garbage", "late", "corrupt")
LATE_US = 400_000  # µs by which every answer of a late device is delayed
IDLE_S = 0.5  # s, longest sleep of the process
GARBAGE = 24  # bytes of garbage in the place of each answer


class Given(NamedTuple):
    """A pulse as it was given: its start (µs), and each phase as (µA, µs)."""

    t_us: int
    phases: tuple[tuple[int, int], ...]
    volts: float | None = None  # of the trigger, on a device with voltage output

    @property
    def residual_pC(self) -> int:
        """Charge left after all phases."""
        return sum(amplitude * width for amplitude, width in self.phases)


class Device(Protocol):
    """An emulated device: bytes in, bytes out, pulses when they are due."""

    commands: int  # whole commands taken so far
    corrupt: bool  # True: from now on it stores something else than it is told

    def feed(self, data: bytes, now_us: int) -> bytes:
        """Take bytes that came at this time; the answer."""

    def due(self, now_us: int) -> list[Given]:
        """Pulses that started up to now and were not told before, in order."""

    def next_us(self) -> int | None:
        """When something is due next."""

    def tick(self, now_us: int) -> bytes:
        """What the device says unasked."""

    @property
    def busy(self) -> bool:
        """Whether a train runs."""


class Misbehaving:
    """A device that goes wrong on request, after it has taken ``after`` commands properly."""

    def __init__(self, device: Device, kind: str | None, after: int) -> None:
        self.device, self.kind, self.after = device, kind, after
        self._delayed: list[tuple[int, bytes]] = []
        self._random = random.Random(0)

    def feed(self, data: bytes, now_us: int) -> bytes:
        """As `Device.feed`, with the fault."""
        wrong = self.kind is not None and self.device.commands >= self.after
        if wrong and self.kind == "silent":
            return b""  # it neither answers nor obeys
        self.device.corrupt = wrong and self.kind == "corrupt"
        return self._answer(self.device.feed(data, now_us), wrong, now_us)

    def tick(self, now_us: int) -> bytes:
        """As `Device.tick`, with the fault."""
        out = b"".join(answer for at, answer in self._delayed if at <= now_us)
        self._delayed = [(at, answer) for at, answer in self._delayed if at > now_us]
        wrong = self.kind is not None and self.device.commands >= self.after
        return out + self._answer(self.device.tick(now_us), wrong, now_us)

    def next_us(self) -> int | None:
        """When something is due next."""
        times = [at for at, _ in self._delayed]
        due = self.device.next_us()
        return min(times if due is None else [*times, due], default=None)

    def _answer(self, answer: bytes, wrong: bool, now_us: int) -> bytes:
        if not answer or not wrong:
            return answer
        if self.kind == "garbage":
            return self._random.randbytes(GARBAGE)
        if self.kind == "handshake":
            return b"AT+OK\r\n"  # another instrument on this port
        if self.kind == "late":
            self._delayed.append((now_us + LATE_US, answer))
            return b""
        return answer


class Emulator:
    """A device on two ptys; `run` serves it until the process is ended, or ``parent`` (a pipe's end) is closed."""

    def __init__(
        self,
        device: Device,
        kind: str,
        log: Path | None,
        misbehave: str | None = None,
        after: int = 0,
        parent: int | None = None,
    ) -> None:
        self.device, self.kind, self._parent = device, kind, parent
        self._wrong = Misbehaving(device, misbehave, after)
        self._master, self._slave, self.port = _open_pty()
        self._bench, self._bench_slave, self.electrode = _open_pty()
        self._decoder = Decoder()
        self._waiting: list[tuple[int, int]] = []  # (token, time) of ADVANCE
        self._claimed = False
        self._lost = 0
        self._log: TextIO | None = None
        if log is not None:
            with writing(log):
                self._log = log.open("a", buffering=1)

    def run(self) -> None:
        """Serve."""
        listened = [self._master, self._bench, *([] if self._parent is None else [self._parent])]
        while True:
            now = now_us()
            times = [at for _, at in self._waiting]
            due = self._wrong.next_us()
            wake = min(times if due is None else [*times, due], default=None)
            wait = IDLE_S if wake is None else min(IDLE_S, max(0.0, (wake - now) * 1e-6))
            ready = select.select(listened, [], [], wait)[0]
            if self._parent is not None and self._parent in ready and not os.read(self._parent, 4096):
                return
            now = now_us()
            self._give(now)  # what was due before the new command
            if self._master in ready:
                self._say(self._wrong.feed(_read(self._master), now))
                self._give(now)
            self._say(self._wrong.tick(now))
            if self._bench in ready:
                self._hear(_read(self._bench))
            self._answer(now)

    def _give(self, now: int) -> None:
        for given in self.device.due(now):
            self._write_log(given)
            if self._claimed:
                first, second = (*given.phases, (0, 0), (0, 0))[:2]
                message = Pulse(first[0], first[1], second[0], second[1], given.residual_pC, 0)
                self._lost += not _write(self._bench, encode(message, sequence=0, session=0, time_us=given.t_us))

    def _write_log(self, given: Given) -> None:
        if self._log is None:
            return
        row = {"t_us": given.t_us, "phases": [list(phase) for phase in given.phases], "residual_pC": given.residual_pC}
        if given.volts is not None:
            row["volts"] = given.volts
        self._log.write(json.dumps(row) + "\n")

    def _say(self, data: bytes) -> None:
        if data:
            _write(self._master, data)  # a host that does not read loses answers, as on a serial port

    def _hear(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if isinstance(frame, Frame) and isinstance(frame.message, Clock):
                self._claimed, self._waiting = True, [(frame.message.token, 0)]
            elif isinstance(frame, Frame) and isinstance(frame.message, Advance):
                self._waiting.append((frame.message.token, frame.message.to_us))

    def _answer(self, now: int) -> None:
        for token, at in [wait for wait in self._waiting if wait[1] <= now]:
            self._waiting.remove((token, at))
            state = State.CLOSED_LOOP if self.device.busy else State.IDLE
            self._send(At(token, now, 0, int(state), int(not self.device.busy), self._lost))

    def _send(self, message: Message) -> None:
        _write(self._bench, encode(message, sequence=0, session=0))


def now_us() -> int:
    """The machine's monotonic clock (µs)."""
    return time.monotonic_ns() // 1000


@contextmanager
def registered(emulator: Emulator) -> Iterator[None]:
    """Say in this user's runtime folder where a running emulator is, so that a session can tell it from a device."""
    entry = runtime_dir() / f"stimulator-{os.getpid()}.json"
    said = {"kind": emulator.kind, "port": emulator.port, "electrode": emulator.electrode}
    with writing(entry):
        entry.write_text(json.dumps(said))
    try:
        yield
    finally:
        entry.unlink(missing_ok=True)


def find_emulator(kind: str, port: str) -> str:
    """The electrode channel of the emulator that serves this port.

    Raises:
        UserError: no running emulator of this kind serves it: outside bench mode these devices are refused.
    """
    for entry in sorted(runtime_dir().glob("stimulator-*.json")):
        try:
            os.kill(int(entry.stem.removeprefix("stimulator-")), 0)
            said = json.loads(entry.read_text())
            found = (said["kind"], os.path.realpath(said["port"]))
        except (OSError, ValueError, KeyError):
            entry.unlink(missing_ok=True)
            continue
        if found[1] == os.path.realpath(port):
            if found[0] != kind:
                raise UserError(f"the port {port} belongs to an emulated {found[0]}, not to a {kind}")
            return str(said["electrode"])
    if not Path(port).exists():
        raise UserError(
            f"there is no port {port}: start 'python -m firmware_bridge.stimulators.emulate {kind}' and use its port"
        )
    raise UserError(
        f"the port {port} belongs to no running emulator: a stimulator without an envelope of its own is driven in "
        "bench mode only, where an emulator says which pulses it gave"
    )


def _open_pty() -> tuple[int, int, str]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave, os.ttyname(slave)  # our own slave stays open, so that a host may come and go


def _read(fd: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(fd, 65536)
    return b""


def _write(fd: int, data: bytes) -> bool:
    """All bytes, or none where nobody reads."""
    with suppress(BlockingIOError):
        return os.write(fd, data) == len(data)
    return False
