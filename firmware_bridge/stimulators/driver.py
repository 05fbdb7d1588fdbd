"""What the drivers share: the envelope and the lease, on the host.

The device does what it is told, so this file says no in its place: `judge` by the least of our limits and the
device's, one decision under way and one next, nothing past the lease, nothing twice. A thread sends the triggers; it
renews nothing, so a hung controller ends with its lease. Whatever is sent ahead of time (a finite train) ends within
the lease too: a killed host leaves at most the rest of one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from envs.errors import UserError
from firmware_bridge.codes import Cause, NackCode, State
from firmware_bridge.limits import LIMITS, Effective, judge
from firmware_bridge.stimulators.interface import Counters, Reply
from firmware_bridge.stimulators.pacing import Held, Paced, PromptLink, now_us
from firmware_bridge.stimulators.shots import plan_shots

AHEAD_MAX_US = LIMITS["START_AHEAD_MAX_US"].value
OVERLAP_US = 1_000  # µs by which a decision may begin before the end of the one before: two clocks' rounding
TRAIN_SHARE = 2  # a train lasts at most this part of a lease, so that renewals leave room for it


class HostTimed(Paced):
    """Base of the drivers; see `firmware_bridge.stimulators.interface.Stimulator` for the meaning of each method.

    Args:
        link: the device's port, for us alone.
        bench: True says that nothing but an emulator or a test load hangs on the device.

    Raises:
        UserError: not in bench mode.
    """

    def __init__(self, link: PromptLink, *, bench: bool = False) -> None:
        if not bench:
            raise UserError(
                f"a {self.capabilities.device} has no envelope of its own (no limits, no lease, no check of balance): "
                "it is driven in bench mode only"
            )
        super().__init__(link)
        self.effective = Effective(amplitude_uA=min(Effective().amplitude_uA, self.capabilities.amplitude_max_uA))
        self._last_id = 0

    # -- what a device adds --------------------------------------------------------------------------------------------

    @abstractmethod
    def _handshake(self) -> str:
        """Find the device; what it says of itself.

        Raises:
            UserError: no answer, or another device's.
        """

    @abstractmethod
    def _settings(self) -> None:
        """Bring the device to safe settings."""

    @abstractmethod
    def _check(self, amplitude_uA: int, width_us: int) -> Reply | None:
        """Refuse what this device cannot do."""

    @abstractmethod
    def _program(self, held: Held) -> None:
        """Load what the shots of a decision need."""

    @abstractmethod
    def _alive(self) -> None:
        """Look whether the device still answers, once a renewal."""

    def _goodbye(self) -> None:
        """Let go of the device."""

    # -- the interface -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """See `Stimulator.state`."""
        return self._state

    @property
    def cause(self) -> Cause:
        """See `Stimulator.cause`."""
        return self._cause

    @property
    def counters(self) -> Counters:
        """See `Stimulator.counters`."""
        return self._counts

    def connect(self) -> str:
        """See `Stimulator.connect`."""
        with self._lock:
            said = self._guarded(self._handshake)
            if not self._thread.is_alive():
                self._thread.start()
            return said

    def arm(self) -> None:
        """See `Stimulator.arm`."""
        with self._lock:
            if self._state not in (State.IDLE, State.FALLBACK):
                raise UserError(f"the {self._who} cannot be armed: it is in state {self._state.name}")
            self._guarded(self._halt)
            self._guarded(self._settings)
            self._last_id = 0
            self._become(State.ARMED, Cause.ARMED_BY_HOST)

    def order(
        self,
        decision_id: int,
        start_us: int,
        slot_period_us: int,
        mask: Sequence[int],
        amplitude_uA: int,
        width_us: int,
        lease_ms: int,
    ) -> Reply:
        """See `Stimulator.order`."""
        with self._lock:
            now = now_us()
            reply = self._judge(decision_id, start_us, slot_period_us, mask, amplitude_uA, width_us, lease_ms, now)
            if reply.code is not None:
                self._count(orders_refused=1)
                return reply
            room_us = lease_ms * 1000 // TRAIN_SHARE if self.capabilities.trains else 0
            shots = deque(plan_shots(mask, reply.start_us, slot_period_us, room_us))
            held = Held(
                decision_id,
                reply.start_us,
                slot_period_us,
                len(mask),
                reply.amplitude_uA,
                width_us,
                lease_ms * 1000,
                shots,
            )
            self._guarded(lambda: self._program(held))
            now = now_us()  # loading takes time
            if start_us == 0:  # "now"
                later_us = now - held.start_us
                held.start_us = now
                held.shots = deque(shot._replace(start_us=shot.start_us + later_us) for shot in held.shots)
                reply = reply._replace(start_us=now)
            self._expire(now)
            if self._state not in (State.ARMED, State.CLOSED_LOOP):
                return Reply(NackCode.STATE, int(self._state))
            self._turn(now)
            if self._now is None or now >= self._end(self._now):
                self._leave()
                self._now = held
            else:
                self._next = held
            self._last_id = decision_id
            self._become(State.CLOSED_LOOP, Cause.ORDERED)
            return self._extend(held, reply)

    def renew(self, decision_id: int) -> Reply:
        """See `Stimulator.renew`."""
        with self._lock:
            if self._state is not State.CLOSED_LOOP:
                return Reply(NackCode.STATE, int(self._state))
            held = next((held for held in (self._next, self._now) if held and held.decision_id == decision_id), None)
            if held is None:
                return Reply(NackCode.DECISION, decision_id)
            self._guarded(self._alive)
            applied = Reply(amplitude_uA=held.amplitude_uA, width_us=held.width_us, start_us=held.start_us)
            return self._extend(held, applied)

    def stop(self) -> None:
        """See `Stimulator.stop`."""
        with self._lock:
            self._now = self._next = None
            self._guarded(self._halt)
            if self._state is not State.SAFE_OFF:
                self._become(State.IDLE, Cause.STOPPED)

    def close(self) -> None:
        """See `Stimulator.close`."""
        with suppress(UserError):
            self.stop()
        with self._lock:
            with suppress(UserError):
                self._goodbye()
            self._closing = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self.link.close()

    # -- judging -------------------------------------------------------------------------------------------------------

    @property
    def _who(self) -> str:
        return f"{self.capabilities.device} at {self.name}"

    def _judge(
        self,
        decision_id: int,
        start_us: int,
        period_us: int,
        mask: Sequence[int],
        amplitude_uA: int,
        width_us: int,
        lease_ms: int,
        now: int,
    ) -> Reply:
        self._expire(now)
        if self._state not in (State.ARMED, State.CLOSED_LOOP):
            return Reply(NackCode.STATE, int(self._state))
        if decision_id <= self._last_id:
            return Reply(NackCode.DECISION, decision_id)
        if any(bit not in (0, 1) for bit in mask):
            raise UserError("a mask holds 0 and 1 only")
        verdict = judge(amplitude_uA, width_us, period_us, len(mask), lease_ms, self.effective)
        if verdict.code is not None:
            return Reply(verdict.code, verdict.value, verdict.low, verdict.high)
        if (refused := self._check(verdict.amplitude_uA, width_us)) is not None:
            return refused
        start_us = start_us or now
        held = self._next or self._now
        if held is not None and start_us < self._end(held) - OVERLAP_US:
            return Reply(NackCode.START, start_us, self._end(held), now + AHEAD_MAX_US)
        if not now - period_us * (len(mask) - 1) <= start_us <= now + AHEAD_MAX_US:
            return Reply(NackCode.START, start_us, max(0, now - period_us * (len(mask) - 1)), now + AHEAD_MAX_US)
        if self._next is not None and self._now is not None and now < self._end(self._now):
            return Reply(NackCode.QUEUE_FULL)
        return Reply(amplitude_uA=verdict.amplitude_uA, width_us=width_us, clamp=verdict.clamp, start_us=start_us)

    def _extend(self, held: Held, reply: Reply) -> Reply:
        self._lease_until_us = now_us() + held.lease_us
        self._wake.notify_all()
        return reply._replace(lease_until_us=self._lease_until_us)
