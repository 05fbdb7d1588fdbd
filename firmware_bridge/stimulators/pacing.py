"""When a driver's pulses are sent: its thread, its lease, and what ends both."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from envs.errors import UserError
from firmware_bridge.codes import Cause, State
from firmware_bridge.limits import LIMITS
from firmware_bridge.links import SerialLink
from firmware_bridge.stimulators.interface import Capabilities, Counters
from firmware_bridge.stimulators.shots import Shot, singles

BAUD = 115_200  # both devices are USB serial ports, where the rate means nothing
ANSWER_S = 0.25  # s within which a device must have answered
PACE_S = 0.002  # s, longest sleep of the thread while a decision is under way
IDLE_S = 0.1  # s, and else
GAP_MIN_US = LIMITS["SLOT_PERIOD_MIN_US"].value  # µs from pulse to pulse
WAY_US = 5_000  # µs that a trigger may take to the device: none is sent so near the lease's end
T = TypeVar("T")


class PromptLink(SerialLink):
    """A serial port that can be asked for what has come without waiting."""

    def __init__(self, port: str) -> None:
        super().__init__(port, baud=BAUD)

    def waiting(self) -> bytes:
        """What has come; empty where nothing has.

        Raises:
            UserError: the port went away.
        """
        try:
            count = self._serial.in_waiting
            return bytes(self._serial.read(count)) if count else b""
        except OSError as error:
            raise UserError(f"the stimulator at {self.name} went away: {error}") from None


@dataclass
class Held:
    """A decision that the driver holds."""

    decision_id: int
    start_us: int
    period_us: int
    slots: int
    amplitude_uA: int
    width_us: int
    lease_us: int
    shots: deque[Shot]


class Paced(ABC):
    """A decision under way, one next, and the thread that triggers their pulses. It renews nothing."""

    capabilities: Capabilities

    def __init__(self, link: PromptLink) -> None:
        self.link, self.name = link, link.name
        self.fault: str | None = None
        self._state, self._cause = State.IDLE, Cause.POWER_ON
        self._counts = Counters()
        self._lock = threading.RLock()  # of the link and of all below
        self._wake = threading.Condition(self._lock)
        self._now: Held | None = None
        self._next: Held | None = None
        self._lease_until_us = 0
        self._last_pulse_us = -GAP_MIN_US
        self._latest_us = -GAP_MIN_US  # when the last pulse starts at the latest, where the device tells
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"{self.capabilities.device} pulses", daemon=True)

    # -- what a device adds --------------------------------------------------------------------------------------------

    @abstractmethod
    def _fire(self, held: Held, shot: Shot) -> bool:
        """Start a shot now; False where the device is not prepared for this train."""

    def _ready(self) -> bool:
        """Whether the device has dealt with the last trigger, as far as it tells."""
        return True

    def _revoke(self) -> None:  # noqa: B027 - a device whose shots are single pulses has nothing to end
        """The lease has ended: what is under way ends too. No answer is waited for."""

    def _pace_s(self) -> float:
        """Longest sleep of the thread while a decision is under way (s)."""
        return PACE_S

    @abstractmethod
    def _halt(self) -> None:
        """End what is under way."""

    @abstractmethod
    def _hear(self) -> None:
        """Take what the device said unasked."""

    # -- the pulses ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._lock:
            while not self._closing:
                wait_s = IDLE_S
                with suppress(UserError):  # `_guarded` has seen to it: SAFE_OFF
                    if self._state is State.CLOSED_LOOP:
                        self._guarded(self._hear)
                    wait_s = self._serve()
                if wait_s:
                    self._wake.wait(wait_s)

    def _serve(self) -> float:
        """Whatever is due now; how long to sleep then (s)."""
        now = now_us()
        if self._state is not State.CLOSED_LOOP:
            return IDLE_S
        self._expire(now)
        self._turn(now)
        held = self._now
        if held is None or not held.shots:
            return self._pace_s()
        if (early_us := held.shots[0].start_us - now) > 0:
            return min(self._pace_s(), early_us * 1e-6)
        self._shoot(held, held.shots.popleft(), now)
        return 0.0

    def _turn(self, now: int) -> None:
        """The next decision begins where it is due; what the one before has left came too late."""
        if self._next is not None and (self._now is None or now >= min(self._next.start_us, self._end(self._now))):
            self._leave()
            self._now, self._next = self._next, None

    def _leave(self) -> None:
        if self._now is not None:
            self._count(slots_late=sum(shot.pulses for shot in self._now.shots))

    def _pause(self, seconds: float) -> None:
        """Wait with the lock held, while pulses that are due are given all the same."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            wait_s = self._serve()
            time.sleep(min(left, wait_s))

    def _shoot(self, held: Held, shot: Shot, now: int) -> None:
        """Give a shot that is due: whole, slot by slot, or not at all."""
        end_us = now + shot.duration_us
        last_us = self._lease_until_us - WAY_US
        whole = shot.pulses > 1 and end_us <= last_us and now - shot.start_us <= held.period_us // 4
        whole = whole and (self._next is None or end_us <= self._next.start_us)
        ready = self._guarded(self._ready) and self._latest_us < shot.start_us  # else it may fall into this slot
        if shot.pulses > 1 and not (whole and ready and self._near(now) and self._send(held, shot, now)):
            held.shots.extendleft(reversed(singles(shot)))
        elif shot.pulses == 1:
            if now - shot.start_us > held.period_us // 2:
                self._count(slots_late=1)
            elif now > last_us:
                self._count(slots_lapsed=1)
            elif not ready:
                self._count(slots_busy=1)
            elif not self._near(now):
                self._count(slots_too_soon=1)
            else:
                self._send(held, shot, now)

    def _near(self, now: int) -> bool:
        """Whether the last pulse is far enough away."""
        return now - self._last_pulse_us >= GAP_MIN_US

    def _send(self, held: Held, shot: Shot, now: int) -> bool:
        sent = False

        def fire() -> None:
            nonlocal sent
            sent = self._fire(held, shot)

        self._guarded(fire)
        if sent:
            self._last_pulse_us = now + (shot.pulses - 1) * shot.spacing_us
            self._count(triggers=1, pulses=shot.pulses)
        return sent

    def _expire(self, now: int) -> None:
        """The lease has ended: nothing more is given until a fresh handshake."""
        if self._state is not State.CLOSED_LOOP or now < self._lease_until_us:
            return
        lapsed = sum(shot.pulses for held in (self._now, self._next) if held for shot in held.shots)
        self._count(slots_lapsed=lapsed)
        self._now = self._next = None
        self._become(State.FALLBACK, Cause.LEASE_ENDED)
        self._guarded(self._revoke)

    # -- bookkeeping ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _end(held: Held) -> int:
        return held.start_us + held.period_us * held.slots

    def _become(self, state: State, cause: Cause) -> None:
        if state is not self._state or state is State.SAFE_OFF:
            self._state, self._cause = state, cause

    def _count(self, **more: int) -> None:
        self._counts = self._counts._replace(**{name: getattr(self._counts, name) + n for name, n in more.items()})

    def _guarded(self, work: Callable[[], T]) -> T:
        """Talk to the device; whatever goes wrong ends in SAFE_OFF."""
        try:
            return work()
        except UserError as error:
            if self._state is not State.SAFE_OFF:
                self.fault = str(error)
                self._now = self._next = None
                self._become(State.SAFE_OFF, Cause.STIMULATOR)
                with suppress(UserError):
                    self._halt()
            raise


def now_us() -> int:
    """The host's monotonic clock (µs)."""
    return time.monotonic_ns() // 1000
