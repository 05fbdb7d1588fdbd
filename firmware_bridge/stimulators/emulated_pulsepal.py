"""An emulated Pulse Pal 2 with a stimulus isolator on output 1; see `firmware_bridge.stimulators.pulsepal` for the
documents. The isolator is set by hand to a current and answers a trigger of w µs with two balanced phases of w µs each.
"""

from __future__ import annotations

import struct

from firmware_bridge.stimulators.emulator import Given

MENU, HANDSHAKE, ONE_PARAMETER, TRIGGER, ABORT, DISCONNECT, CONTINUOUS = 213, 72, 74, 77, 80, 81, 82
CYCLE_US = 50  # µs
FIRMWARE = 22
GAP_US = 100_000  # µs without a byte inside a command: the device gives up
THRESHOLD_V = 2.0  # V at which the isolator sees a trigger
#: code -> bytes of its value; 128 (trigger mode) too
SIZES = dict.fromkeys(range(4, 12), 4) | {2: 2, 3: 2, 17: 2} | dict.fromkeys((1, 12, 13, 14, 15, 16, 18, 128), 1)
VOLTS_1, PHASE_1, INTERVAL, TRAIN, DELAY = 2, 4, 7, 10, 11
DEFAULTS = {
    1: 0,
    VOLTS_1: 49151,
    3: 16384,
    PHASE_1: 20,
    5: 20,
    6: 20,
    INTERVAL: 200,
    TRAIN: 20_000,
    DELAY: 0,
    17: 32768,
}


class EmulatedPulsePal:
    """See the module. Only output 1, monophasic, is played; ``isolator_uA`` is what its isolator is set to."""

    def __init__(self, isolator_uA: int) -> None:
        self.commands = 0
        self.corrupt = False
        self.isolator_uA = isolator_uA
        self._bytes = bytearray()
        self._last_us = 0
        self._parameters = dict(DEFAULTS)
        self._next: list[int] = []  # times of pulses to come

    @property
    def busy(self) -> bool:
        """Whether a train runs."""
        return bool(self._next)

    def feed(self, data: bytes, now_us: int) -> bytes:
        """See `Device.feed`."""
        self._give_up(now_us)
        self._bytes += data
        self._last_us = now_us
        out = b""
        while (size := self._size()) is not None and len(self._bytes) >= size:
            command, self._bytes = bytes(self._bytes[:size]), self._bytes[size:]
            if command[0] == MENU:
                self.commands += 1
                out += self._command(command[1], command[2:], now_us)
        return out

    def due(self, now_us: int) -> list[Given]:
        """See `Device.due`."""
        times = [t for t in self._next if t <= now_us]
        self._next = self._next[len(times) :]
        volts = self._parameters[VOLTS_1] * 20.0 / 65535 - 10.0
        width = self._parameters[PHASE_1] * CYCLE_US
        phases = ((-self.isolator_uA, width), (self.isolator_uA, width)) if volts >= THRESHOLD_V else ()
        return [Given(t, phases, round(volts, 3)) for t in times]

    def next_us(self) -> int | None:
        """See `Device.next_us`."""
        return self._next[0] if self._next else None

    def tick(self, now_us: int) -> bytes:
        """See `Device.tick`."""
        self._give_up(now_us)
        return b""

    def _give_up(self, now_us: int) -> None:
        if self._bytes and now_us - self._last_us > GAP_US:  # "COMM. FAILURE!": the defaults are loaded
            self._bytes.clear()
            self._parameters = dict(DEFAULTS)

    def _size(self) -> int | None:
        """Bytes of the command that begins here; None where that is not known yet."""
        if not self._bytes:
            return None
        if self._bytes[0] != MENU:
            return 1  # noise before a command
        if len(self._bytes) < 2:
            return None
        op = self._bytes[1]
        if op == ONE_PARAMETER:
            return None if len(self._bytes) < 3 else 4 + SIZES.get(self._bytes[2], 0)
        return {TRIGGER: 3, CONTINUOUS: 4}.get(op, 2)

    def _command(self, op: int, data: bytes, now_us: int) -> bytes:
        if op == HANDSHAKE:
            return b"K" + struct.pack("<I", FIRMWARE)
        if op == ONE_PARAMETER:
            return self._program(data)
        if op == TRIGGER and data[0] & 1:
            self._play(now_us)
        elif op in (ABORT, DISCONNECT):
            self._next = []
        elif op == CONTINUOUS:
            return b"\x01"  # accepted, not played: nobody may ever send it
        return b""

    def _program(self, data: bytes) -> bytes:
        code, channel, value = data[0], data[1], int.from_bytes(data[2:], "little")
        if self.corrupt or code not in SIZES or not 1 <= channel <= 4:
            return b"\x00"
        if channel == 1:
            self._parameters[code] = value
        return b"\x01"

    def _play(self, now_us: int) -> None:
        p = self._parameters
        period = (p[PHASE_1] + p[INTERVAL]) * CYCLE_US
        count = max(1, -(-p[TRAIN] * CYCLE_US // period))
        start = now_us + p[DELAY] * CYCLE_US
        self._next = [start + i * period for i in range(count)]
