"""StimJim: two isolated outputs, current mode, trains defined and started by lines of ASCII.

Public documents that this follows (none of their code):

- https://github.com/open-ephys/stimjim/blob/0295f8aa967aa0070155fddea375d42f5c980073/README.md
  ``S<i>,mode0,mode1,period,duration; a0,a1,us; …`` defines one of 10 trains, a bare ``S<i>`` prints it, ``T<i>`` starts
  it; modes 0 voltage, 1 current, 2 disconnected, 3 grounded; ±3.33 mA, ±13.7 V, stages from 20 µs, at most 10 of them.
- https://github.com/tncslab/stimjim/blob/00dc2fae93f86c3dcd3462bf8554091388d8dcbe/docs/serial-protocol.md
  §3 (a sibling firmware, which describes the first one's replies): ``T-1`` stops; ``Started T train …``, ``Invalid
  PulseTrain index.``, ``Train #<n> complete. Delivered <p> pulses.``; a start while a train runs is dropped.
- https://github.com/tncslab/stimjim/blob/00dc2fae93f86c3dcd3462bf8554091388d8dcbe/docs/hardware-notes.md
  amplitudes above 3000 µA are converted wrongly.

What could not be verified without a device stands in docs/stimulators.md. The link has no CRC, so each definition is
read back before it is used; nothing on the device looks at balance, so that is done here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.codes import NackCode
from firmware_bridge.stimulators.driver import HostTimed
from firmware_bridge.stimulators.interface import Capabilities, Reply
from firmware_bridge.stimulators.pacing import ANSWER_S, GAP_MIN_US, PACE_S, Held, PromptLink, now_us
from firmware_bridge.stimulators.shots import Shot, singles

STATED_MAX_UA = 3_330  # µA, README
CONVERTED_MAX_UA = 3_000  # µA, hardware-notes.md: above it the DAC's value is wrong
STAGE_MIN_US = 20  # µs, README
TRAINS = 10  # parameter sets, README
MODE_CURRENT, MODE_GROUND = 1, 3  # README
QUIET_S = 0.005  # s of silence that ends what a device says
NEW_PROGRAMS = 3  # new trains that one order may load: each costs some 10 ms of the time before slot 0
ASKED_PACE_S = 0.0005  # s, longest sleep of the thread while a trigger is unanswered
REST_US = 10_000  # µs after a train's latest end from which a refused start is a fault: two clocks may differ
SAID_MAX = 4096  # bytes kept of what the device said, for whoever asked


class Program(NamedTuple):
    """A train as the device holds it."""

    spacing_us: int
    pulses: int
    duration_us: int
    amplitude_uA: int
    width_us: int


class Asked(NamedTuple):
    """A trigger that is not answered yet."""

    sent_us: int
    held: Held
    shot: Shot
    last_pulse_us: int  # of the trigger before


def _program_of(held: Held, shot: Shot) -> Program:
    spacing = shot.spacing_us if shot.pulses > 1 else held.period_us
    return Program(spacing, shot.pulses, shot.duration_us, held.amplitude_uA, held.width_us)


def definition(index: int, program: Program) -> str:
    """The line that defines train ``index``: cathodic first, both phases alike, output 1 grounded.

    Raises:
        UserError: the charges of the phases do not sum to zero, or a phase is too short for the device.
    """
    amplitude, width = program.amplitude_uA, program.width_us
    stages = ((-amplitude, 0, width), (amplitude, 0, width))
    if sum(a0 * us for a0, _, us in stages) or any(a1 for _, a1, _ in stages) or width < STAGE_MIN_US:
        raise UserError(f"a pulse of {amplitude} µA × {width} µs cannot be given balanced by a StimJim")
    head = f"S{index},{MODE_CURRENT},{MODE_GROUND},{program.spacing_us},{program.duration_us}"
    return "; ".join([head, *(f"{a0},{a1},{us}" for a0, a1, us in stages)])


class StimJim(HostTimed):
    """See the module, and `HostTimed` for the arguments.

    ``trains``: runs of evenly spaced slots go as finite trains, timed by the device; without, each slot is a trigger.
    """

    capabilities = Capabilities("StimJim", min(STATED_MAX_UA, CONVERTED_MAX_UA), 1, True, True)

    def __init__(self, link: PromptLink, *, bench: bool = False, trains: bool = True) -> None:
        if not trains:
            self.capabilities = self.capabilities._replace(trains=False)
        super().__init__(link, bench=bench)
        self._programs: dict[Program, int] = {}
        self._running: Program | None = None  # last started
        self._text = b""
        self._said = b""  # the newest of what was heard
        self._asked: Asked | None = None
        self._ends_us = 0  # when the last train that was started ends, at the latest
        self._pulses_due: dict[int, int] = {}  # train -> pulses that its last start must deliver

    def _handshake(self) -> str:
        self._halt()
        said = self._ask("S0")
        if not re.search(r"\d", said):
            raise UserError(f"the device at {self.name} is no StimJim: it answered {said[:40]!r} to S0")
        return "StimJim (its protocol names no version)"

    def _settings(self) -> None:
        self._programs, self._pulses_due, self._asked, self._ends_us = {}, {}, None, 0

    def _check(self, amplitude_uA: int, width_us: int) -> Reply | None:
        if width_us < STAGE_MIN_US:
            return Reply(NackCode.WIDTH, width_us, STAGE_MIN_US, width_us)
        return None

    def _program(self, held: Held) -> None:
        single = _program_of(held, Shot(0, 1, held.period_us, held.period_us // 2))
        wanted = [single, *(_program_of(held, shot) for shot in held.shots if shot.pulses > 1)]
        in_use = {*wanted, *(_program_of(now, shot) for now in (self._now, self._next) if now for shot in now.shots)}
        in_use |= {self._running} if self._running else set()
        new = [program for program in dict.fromkeys(wanted) if program not in self._programs]
        for program in new[: NEW_PROGRAMS + 1]:
            if (index := self._free(in_use)) is None:
                break  # these trains go slot by slot
            self._load(index, program)
        if single not in self._programs:
            raise UserError(f"the {self._who} has no room for one more pulse shape while a train runs")

    def _free(self, in_use: set[Program]) -> int | None:
        taken = set(self._programs.values())
        if len(taken) < TRAINS:
            return next(i for i in range(TRAINS) if i not in taken)
        old = next((program for program in self._programs if program not in in_use), None)
        return None if old is None else self._programs.pop(old)

    def _load(self, index: int, program: Program) -> None:
        line = definition(index, program)
        self._write(line)
        self._drain()  # an echo of the line proves nothing
        wanted = [int(number) for number in re.findall(r"-?\d+", line.split(",", 3)[3])]

        def stored(said: str) -> bool:
            found = iter(int(number) for number in re.findall(r"-?\d+", said))
            return all(number in found for number in wanted)  # in this order; text, other numbers may stand between

        said = self._ask(f"S{index}", stored)
        if not stored(said):
            raise UserError(f"the {self._who} did not store what it was told ({line!r}): it prints {said!r}")
        self._programs[program] = index

    def _fire(self, held: Held, shot: Shot) -> bool:
        program = _program_of(held, shot)
        index = self._programs.get(program)
        if index is None:
            return False
        self._write(f"T{index}")
        self._asked = Asked(now_us(), held, shot, self._last_pulse_us)
        self._pulses_due[index] = shot.pulses
        self._running = program
        return True

    def _ready(self) -> bool:
        self._hear()
        return self._asked is None

    def _revoke(self) -> None:
        if self._asked is not None or now_us() < self._ends_us:
            self._write("T-1")

    def _pace_s(self) -> float:
        return PACE_S if self._asked is None else ASKED_PACE_S

    def _halt(self) -> None:
        self._said = b""
        self._write("T-1")
        self._pulses_due = {}
        try:
            self._collect("to T-1", lambda said: self._asked is None)  # the trigger before it is answered first
        finally:
            self._asked = None

    def _alive(self) -> None:
        """A trigger is answered; without triggers there is nothing to lose."""

    def _hear(self) -> None:
        data = self.link.waiting()
        self._said = (self._said + data)[-SAID_MAX:]
        self._text += data
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            self._line(self._ascii(line).strip())
        self._ascii(self._text)
        if self._asked is not None and now_us() - self._asked.sent_us > ANSWER_S * 1e6:
            raise UserError(f"the {self._who} has not answered a trigger within {ANSWER_S:g} s")

    def _line(self, line: str) -> None:
        if "Started" in line:
            self._started()
        elif re.match(r"WARN T\b.*\bignored", line) and self._explained():
            self._refused()
        elif re.search(r"Invalid|ERR|WARN|ignored", line):
            raise UserError(f"the {self._who} refused a trigger: {line}")
        elif done := re.search(r"Train #(\d+) complete\. Delivered (\d+) pulse", line):
            index, pulses = int(done[1]), int(done[2])
            if pulses != self._pulses_due.get(index, pulses):
                due = self._pulses_due[index]
                raise UserError(f"the {self._who} delivered {pulses} pulses of a train of {due}")

    def _started(self) -> None:
        self._count(answers=1)
        asked, self._asked = self._asked, None
        if asked is None:
            return
        latest, shot = now_us(), asked.shot  # of the train's start
        self._ends_us = latest + shot.duration_us
        self._latest_us = latest + (shot.pulses - 1) * shot.spacing_us
        if shot.tail_us < GAP_MIN_US:  # else the device itself is busy for longer than that after the last pulse
            self._last_pulse_us = self._latest_us

    def _explained(self) -> bool:
        """Whether the trigger that is not answered yet may have met a train of ours that was started late."""
        return self._asked is not None and self._asked.sent_us < self._ends_us + REST_US

    def _refused(self) -> None:
        """The first slot of the shot is not given; the others of a train get a trigger each."""
        assert self._asked is not None
        self._count(answers=1, pulses=-self._asked.shot.pulses, slots_busy=1)
        (_, held, shot, self._last_pulse_us), self._asked = self._asked, None
        rest = singles(shot)[1:]
        if held is self._now:
            held.shots.extendleft(reversed(rest))
        else:
            self._count(slots_late=len(rest))

    def _ascii(self, data: bytes) -> str:
        if any(byte not in (9, 10, 13) and not 32 <= byte < 127 for byte in data):
            raise UserError(f"the {self._who} sends what is no text: {data[:16].hex(' ')}")
        return data.decode("ascii")

    def _write(self, line: str) -> None:
        self.link.write(line.encode("ascii") + b"\n")

    def _ask(self, line: str, enough: Callable[[str], bool] = bool) -> str:
        self._hear()
        self._said = b""
        self._write(line)
        return self._collect(f"to {line}", enough)

    def _collect(self, what: str, enough: Callable[[str], bool]) -> str:
        """Text up to a silence, or all that comes in time where it is not enough. Lines about triggers count."""
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            before = self._said
            self._pause(QUIET_S if before.strip() else 0.001)
            self._hear()
            if self._said == before and before.strip() and enough(self._ascii(before)):
                break
        if not self._said.strip():
            raise UserError(f"the {self._who} gave no answer {what} within {ANSWER_S:g} s")
        return self._ascii(self._said)

    def _drain(self) -> None:
        self._pause(QUIET_S)
        self._hear()
