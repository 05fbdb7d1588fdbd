"""Pulse Pal 2: a source of voltage triggers. The current is set by hand on the stimulus isolator that it triggers.

Public documents that this follows (none of their code):

- https://github.com/sanworks/PulsePal/blob/000c7940f09d23bd035c949bac22629739083a59/Firmware/PROTOCOL.md
  A command is 213, an op code and its data, little-endian, in one piece; 72 handshake (answer 75, u32 firmware), 74 one
  parameter (code, channel, value; answer 1 or 0), 77 soft trigger (no answer), 80 stop, 81 disconnect; times in cycles
  of 50 µs, voltages 0 … 65535 for −10 … +10 V; parameter codes.
- https://sites.google.com/site/pulsepalwiki/usb-serial-interface/usb-interface-v2-x
  The same op codes.
- https://murineshiftwork.github.io/pypulsepal/concepts/
  Firmware below 20 is a Pulse Pal 1.

Op code 82 (continuous loop) is never sent. One trigger gives one pulse of 100 µs, the only width between 60 and 120 µs
on its grid; balance is the isolator's.
"""

from __future__ import annotations

import struct
import time

from envs.errors import UserError
from firmware_bridge.codes import NackCode
from firmware_bridge.stimulators.driver import HostTimed
from firmware_bridge.stimulators.interface import Capabilities, Reply
from firmware_bridge.stimulators.pacing import ANSWER_S, Held, PromptLink
from firmware_bridge.stimulators.shots import Shot

MENU, HANDSHAKE, ONE_PARAMETER, TRIGGER, ABORT, DISCONNECT = 213, 72, 74, 77, 80, 81
CONTINUOUS_NEVER = 82  # would stimulate without end: never sent
HELLO = 75  # answer to the handshake
CYCLE_US = 50  # µs
WIDTH_US = 100  # µs, the only multiple of 50 µs from 60 to 120
FIRMWARE_2 = 20  # first firmware of a Pulse Pal 2
FIRMWARE_LOOP = 22  # first firmware whose document has parameter 18, continuous loop
CHANNEL = 1
TRIGGER_V = 5.0  # V, a TTL level


def volts(value: float) -> int:
    """DAC code of a voltage."""
    return round((value + 10.0) * 65535 / 20.0)


#: Code, bytes, value: monophasic, 5 V for one pulse of 100 µs from rest at 0 V, and no other way to start or repeat it.
SETTINGS = (
    (1, 1, 0),  # monophasic
    (2, 2, volts(TRIGGER_V)),  # phase 1 voltage
    (17, 2, volts(0.0)),  # resting voltage
    (4, 4, WIDTH_US // CYCLE_US),  # phase 1 duration
    (7, 4, 10_000 // CYCLE_US),  # inter-pulse interval: longer than the train
    (8, 4, 0),  # no bursts
    (10, 4, WIDTH_US // CYCLE_US),  # train duration: one pulse
    (11, 4, 0),  # no delay
    (12, 1, 0),  # not started by trigger input 1
    (13, 1, 0),  # nor by 2
    (14, 1, 0),  # no custom train
)
LOOP_OFF = (18, 1, 0)  # from firmware 22 on


class PulsePal(HostTimed):
    """See the module, and `HostTimed` for the arguments.

    ``isolator_uA``: what a person has set on the isolator; orders of another amplitude are refused.
    """

    capabilities = Capabilities("Pulse Pal 2", 1 << 31, CYCLE_US, False, False)

    def __init__(self, link: PromptLink, *, isolator_uA: int, bench: bool = False) -> None:
        super().__init__(link, bench=bench)
        self.isolator_uA = isolator_uA
        self.firmware = 0

    def _handshake(self) -> str:
        self.link.waiting()
        self._tell(HANDSHAKE)
        answer = self._receive(5, "the handshake")
        if answer[0] != HELLO:
            raise UserError(
                f"the device at {self.name} is no Pulse Pal: it answered {answer.hex(' ')} to the handshake"
            )
        (self.firmware,) = struct.unpack("<I", answer[1:])
        if not FIRMWARE_2 <= self.firmware < 1000:
            raise UserError(f"the device at {self.name} names firmware {self.firmware}: a Pulse Pal 2 names 20 or more")
        return f"Pulse Pal 2, firmware {self.firmware}"

    def _settings(self) -> None:
        for code, size, value in (*SETTINGS, *([LOOP_OFF] if self.firmware >= FIRMWARE_LOOP else [])):
            self._tell(ONE_PARAMETER, bytes([code, CHANNEL]) + value.to_bytes(size, "little"))
            answer = self._receive(1, f"parameter {code}")
            if answer != b"\x01":
                raise UserError(f"the {self._who} refused parameter {code} = {value} (answer {answer.hex()})")

    def _check(self, amplitude_uA: int, width_us: int) -> Reply | None:
        if width_us != WIDTH_US:
            return Reply(NackCode.WIDTH, width_us, WIDTH_US, WIDTH_US)
        if amplitude_uA != self.isolator_uA:
            return Reply(NackCode.AMPLITUDE, amplitude_uA, self.isolator_uA, self.isolator_uA)
        return None

    def _program(self, held: Held) -> None:
        """Nothing: one pulse was programmed when it was armed."""

    def _fire(self, held: Held, shot: Shot) -> bool:
        self._tell(TRIGGER, bytes([1 << (CHANNEL - 1)]))
        return True

    def _halt(self) -> None:
        self._tell(ABORT)
        self._alive()  # the stop itself has no answer

    def _goodbye(self) -> None:
        self._tell(DISCONNECT)

    def _alive(self) -> None:
        before = self.firmware
        self._handshake()
        if before and self.firmware != before:
            raise UserError(f"the {self._who} named firmware {before}, now {self.firmware}: it is another device")

    def _hear(self) -> None:
        if said := self.link.waiting():  # a trigger has no answer
            raise UserError(f"the {self._who} sends what nobody asked for: {said[:16].hex(' ')}")

    def _tell(self, op: int, data: bytes = b"") -> None:
        self.link.write(bytes([MENU, op]) + data)  # in one piece: it gives up after 100 ms

    def _receive(self, size: int, what: str) -> bytes:
        end, answer = time.monotonic() + ANSWER_S, b""
        while len(answer) < size and time.monotonic() < end:
            more = self.link.waiting()
            answer += more
            if not more:
                self._pause(0.0005)
        if len(answer) < size:
            raise UserError(f"the {self._who} gave no answer to {what} within {ANSWER_S:g} s")
        if len(answer) > size:
            raise UserError(f"the {self._who} answered {what} with {len(answer)} bytes where {size} are expected")
        self._count(answers=1)
        return answer
