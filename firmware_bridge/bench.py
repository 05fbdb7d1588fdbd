"""The electrode channel, seen from the bench: the pulses that were really given, and the hand on the virtual clock.

No fault of the link touches this channel; it alone drives the plant and feeds the checker.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import time
import tty
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.codec import Decoder, Frame, encode
from firmware_bridge.codes import Cause, ElectrodeFault, State
from firmware_bridge.layout import Message
from firmware_bridge.messages import Advance, At, Button, Clock, Electrode, Pulse, Status

ANSWER_S = 10.0  # host time within which a stepped board must have caught up


class ElectrodePulse(NamedTuple):
    """One biphasic pulse as the electrode saw it."""

    t_us: int  # device time of its start
    amplitude_uA: int  # first phase; cathodic is negative
    width_us: int
    second_amplitude_uA: int
    second_width_us: int
    residual_pC: int
    peak_uV: int = 0  # greatest voltage on the electrode; 0: not measured

    @property
    def charge(self) -> float:
        """Charge of the first phase in µC, without its sign."""
        return abs(self.amplitude_uA) * self.width_us * 1e-6


class Bench:
    """The electrode channel of a board, opened for us alone.

    With ``stepped`` (the default) the board's clock stands still and moves only by `advance`; a board that was started
    with ``--realtime`` keeps its own clock, and `advance` waits for it. When this object is closed, or its process is
    killed, the board's clock runs freely again: a lost host never freezes a lease.

    Open it before the link when bytes must be reproducible: a board's clock starts with the first use of either.

    Raises:
        UserError: the path does not exist, is busy, is no electrode channel, or does not answer.
    """

    def __init__(self, path: str, *, stepped: bool = True) -> None:
        self.path = path
        self._token = 0
        self._decoder = Decoder()
        self._pulses: list[ElectrodePulse] = []
        self._at: At | None = None
        self._fd = _open(path)
        try:
            at = self._ask(Clock(self._next(), int(stepped)), ANSWER_S)
        except BaseException:
            os.close(self._fd)
            raise
        self._pulses.clear()  # what was given before we looked is not ours
        self.stepped = bool(at.stepped)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the clock: it runs freely from here."""
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    @property
    def now_us(self) -> int:
        """Device time: exact on a stepped clock, the last answer on a real-time one."""
        assert self._at is not None
        return self._at.now_us

    @property
    def state(self) -> State:
        """The board's state at `now_us`."""
        assert self._at is not None
        return State(self._at.state)

    @property
    def grounded(self) -> bool:
        """Whether the electrode was shorted to ground at `now_us`."""
        assert self._at is not None
        return bool(self._at.grounded)

    def advance(self, to_us: int) -> list[ElectrodePulse]:
        """Let the board live until device time ``to_us``; the pulses given in [last ``to_us``, ``to_us``), in order.

        Raises:
            UserError: the time is past (stepped clock), the board went away or lost pulses.
        """
        if self.stepped and to_us < self.now_us:
            raise UserError(f"the board's clock cannot go back from {self.now_us} to {to_us} µs")
        before = self._at
        wait_s = 0.0 if self.stepped else max(0, to_us - self.now_us) * 1e-6
        at = self._ask(Advance(self._next(), to_us), ANSWER_S + wait_s)
        if before is not None and at.lost != before.lost:
            raise UserError(f"{at.lost - before.lost} pulses of the electrode channel {self.path} were lost unread")
        given = [pulse for pulse in self._pulses if pulse.t_us < to_us]
        self._pulses = [pulse for pulse in self._pulses if pulse.t_us >= to_us]
        return given

    def press_button(self) -> None:
        """A person presses the board's button: the only way out of SAFE_OFF."""
        self._ask(Button(self._next()), ANSWER_S)

    def set_fault(
        self, fault: ElectrodeFault, residual_pC: int = 0, *, impedance_ohm: int = 0, v_max_mV: int = 0
    ) -> None:
        """Break or mend the virtual electrode; an impedance or V_max of 0: as usual (1000 ohm, 10 V)."""
        self._ask(Electrode(self._next(), int(fault), residual_pC, impedance_ohm, v_max_mV), ANSWER_S)

    def _next(self) -> int:
        self._token += 1
        return self._token

    def hang(self, *, deaf: bool, timeout_s: float = 3.0) -> float:
        """Let the firmware of a test build hang, ``deaf`` with its interrupts off; host time (s) until it is up again.

        Raises:
            UserError: its watchdog did not reset it in time, or the board went away.
        """
        began = time.monotonic()
        self._write(
            encode(Electrode(self._next(), ElectrodeFault.HANG, int(deaf)), sequence=self._token, session=0),
            began + 2.0,
        )
        while (left := began + timeout_s - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                frames = [frame for frame in self._decoder.feed(self._read()) if isinstance(frame, Frame)]
                if any(isinstance(f.message, Status) and f.message.cause == Cause.WATCHDOG for f in frames):
                    return time.monotonic() - began
        raise UserError(f"the board at {self.path} hangs, and no watchdog has reset it within {timeout_s:g} s")

    def _ask(self, message: Message, timeout_s: float) -> At:
        end = time.monotonic() + timeout_s
        self._write(encode(message, sequence=self._token, session=0), end)
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._fd], [], [], left)[0]:
                break
            found = False
            for frame in self._decoder.feed(self._read()):
                found |= isinstance(frame, Frame) and self._take(frame)
            if found and self._at is not None:
                return self._at
        raise UserError(f"no answer from the electrode channel {self.path} within {timeout_s:g} s")

    def _take(self, frame: Frame) -> bool:
        """Keep a frame; True when it answers the last request."""
        message = frame.message
        if isinstance(message, Pulse):
            self._pulses.append(
                ElectrodePulse(
                    frame.time_us,
                    message.amplitude_1_uA,
                    message.width_1_us,
                    message.amplitude_2_uA,
                    message.width_2_us,
                    message.residual_pC,
                    message.peak_uV,
                )
            )
        if isinstance(message, At) and message.token == self._token:
            self._at = message
            return True
        return False

    def _read(self) -> bytes:
        try:
            data = os.read(self._fd, 65536)
        except OSError as error:
            raise UserError(f"the board at {self.path} went away: {error.strerror}") from None
        if not data:
            raise UserError(f"the board at {self.path} went away")
        return data

    def _write(self, data: bytes, end: float) -> None:
        try:
            while data:
                if not select.select([], [self._fd], [], max(0.0, end - time.monotonic()))[1]:
                    raise UserError(f"the electrode channel {self.path} takes no bytes")
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise UserError(f"the board at {self.path} went away: {error.strerror}") from None


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"cannot open the electrode channel {path}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tty.setraw(fd)
        termios.tcflush(fd, termios.TCIFLUSH)
    except (OSError, termios.error) as error:
        os.close(fd)
        busy = isinstance(error, OSError) and error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        why = "is busy: another program has it open" if busy else "is no electrode channel"
        raise UserError(f"{path} {why}") from None
    return fd
