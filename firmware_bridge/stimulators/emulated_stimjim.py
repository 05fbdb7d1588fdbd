"""An emulated StimJim, written from its public documents; see `firmware_bridge.stimulators.stimjim` for them.

It obeys: like the device it judges neither amplitudes nor balance, and knows no lease.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from firmware_bridge.stimulators.emulator import Given

TRAINS = 10  # parameter sets that it stores (README)
STAGES = 10  # most stages of a pulse (README)
STAGE_MIN_US = 20  # µs, shortest stage (README: "pulse width down to 0.02 ms")
LINE_MAX = 999  # bytes, of a line (tncslab's serial-protocol.md)
CURRENT = 1  # mode of an output
GROUND = 3  # mode of an output


class Train(NamedTuple):
    """A stored parameter set."""

    modes: tuple[int, int] = (GROUND, GROUND)
    period_us: int = 10_000
    duration_us: int = 0
    stages: tuple[tuple[int, int, int], ...] = ()  # (output 0, output 1, µs)


class EmulatedStimJim:
    """See the module. Only output 0 in current mode reaches the electrode."""

    def __init__(self) -> None:
        self.commands = 0
        self.corrupt = False
        self._line = bytearray()
        self._trains = [Train() for _ in range(TRAINS)]
        self._running: int | None = None
        self._start_us = 0
        self._told = 0  # pulses of the running train that were told

    @property
    def busy(self) -> bool:
        """Whether a train runs."""
        return self._running is not None

    def feed(self, data: bytes, now_us: int) -> bytes:
        """See `Device.feed`."""
        out = b""
        for byte in data:
            if byte == 0x0A:
                line, self._line = self._line.decode("ascii", "replace").strip(), bytearray()
                if line:
                    self.commands += 1
                    out += self._command(line, now_us)
            elif len(self._line) < LINE_MAX:
                self._line.append(byte)
        return out

    def due(self, now_us: int) -> list[Given]:
        """See `Device.due`."""
        if self._running is None:
            return []
        train, given = self._trains[self._running], []
        while self._told < self._count(train) and (t := self._start_us + self._told * train.period_us) <= now_us:
            self._told += 1
            phases = tuple((a0, us) for a0, _, us in train.stages)
            if train.modes[0] == CURRENT and phases:
                given.append(Given(t, phases))
        return given

    def next_us(self) -> int | None:
        """See `Device.next_us`."""
        if self._running is None:
            return None
        train = self._trains[self._running]
        if self._told < self._count(train):
            return self._start_us + self._told * train.period_us
        return self._end_us()

    def tick(self, now_us: int) -> bytes:
        """A train that is over says so."""
        if self._running is None or now_us < self._end_us():
            return b""
        done, self._running = self._running, None
        return f"Train #{done} complete. Delivered {self._told} pulses.\r\n".encode()

    def _end_us(self) -> int:
        assert self._running is not None
        return self._start_us + self._trains[self._running].duration_us

    @staticmethod
    def _count(train: Train) -> int:
        return -(-train.duration_us // train.period_us)  # pulses at 0, period … before the duration is over

    def _command(self, line: str, now_us: int) -> bytes:
        if line[0] == "S":
            return self._set(line[1:])
        if line[0] == "T":
            return self._trigger(line[1:], now_us)
        return b"Unknown command.\r\n"

    def _trigger(self, text: str, now_us: int) -> bytes:
        if re.fullmatch(r"-?\d+", text) is None or int(text) >= TRAINS:
            return b"Invalid PulseTrain index.\r\n"
        index = int(text)
        if index < 0:
            self._running = None
            return b"Forcing T train to stop\r\n"
        done = self.tick(now_us)  # a train that is over by now holds nobody up
        if self._running is not None:
            return b"WARN T: a train runs, start ignored\r\n"
        self._running, self._start_us, self._told = index, now_us, 0
        return done + f"\r\nStarted T train with parameters of PulseTrain {index}\r\n".encode()

    def _set(self, text: str) -> bytes:
        head, *rest = text.split(";")
        try:
            numbers = [int(part) for part in head.split(",")]
            stages = [tuple(int(part) for part in stage.split(",")) for stage in rest if stage.strip()]
        except ValueError:
            return b"Invalid parameters.\r\n"
        if not 0 <= numbers[0] < TRAINS:
            return b"Invalid PulseTrain index.\r\n"
        index = numbers[0]
        if len(numbers) > 1:
            wrong = len(numbers) != 5 or len(stages) > STAGES or any(len(stage) != 3 for stage in stages)
            if wrong or numbers[3] < 1 or any(stage[2] < STAGE_MIN_US for stage in stages):
                return b"Invalid parameters.\r\n"
            if self.corrupt:  # a flipped bit on a link without CRC
                stages = [(stage[0] ^ 64, *stage[1:]) for stage in stages]
            stored = tuple((stage[0], stage[1], stage[2]) for stage in stages)
            self._trains[index] = Train((numbers[1], numbers[2]), numbers[3], numbers[4], stored)
            return b""
        return self._print(index)

    def _print(self, index: int) -> bytes:
        train = self._trains[index]
        lines = [
            f"PulseTrain {index}: modes {train.modes[0]}, {train.modes[1]}",
            f"  period {train.period_us} us, duration {train.duration_us} us",
            *(f"  stage: {a0}, {a1}; {us} us" for a0, a1, us in train.stages),
        ]
        return ("\r\n".join(lines) + "\r\n").encode()
