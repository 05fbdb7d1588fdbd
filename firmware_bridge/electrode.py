"""The electrode as the plant's source of pulses: orders go to the board, its ELECTRODE channel says what was given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.stimulation import DEVICE_AMPLITUDE_UA, DEVICE_WIDTH_US, Pulse
from firmware_bridge.bench import Bench, ElectrodePulse
from firmware_bridge.board_time import BoardTime
from firmware_bridge.board_watch import BoardWatch
from firmware_bridge.client import NO_MODEL, BoardClient
from firmware_bridge.codes import State
from firmware_bridge.limits import LIMITS
from firmware_bridge.messages import HelloAck, Nack, ObserveHead
from firmware_bridge.observation import Sampling
from firmware_bridge.order import Order
from firmware_bridge.ordering import RENEW_US, Asked, Orders
from firmware_bridge.permit import Permit
from firmware_bridge.reasons import nack_text
from firmware_bridge.recorder import PulseRow, Recorder

LEASE_MS = LIMITS["LEASE_DEFAULT_MS"].value
SLOT_US = 20_000  # µs, slot period of the presets paper and realtime
SLOT_SLACK_US = 100  # µs by which the plant's slots (whole samples) may differ from the board's (whole µs)
PRELUDE_LEASE_MS = LIMITS["LEASE_MAX_MS"].value  # of an order of the prelude: nothing is given under it
PRELUDE_SLOTS = 50
SETTLE_US = 100_000  # µs of device time watched after STOP


def shake_hands(client: BoardClient, bench: Bench, model_hash: bytes = NO_MODEL, *, shadow: bool = False) -> HelloAck:
    """HELLO, checking every hash; the lease of an older session is waited for, if need be on the stepped clock.

    Raises:
        UserError: no answer, or the board would not be armed; what differs is named.
    """
    left = LIMITS["LEASE_MAX_MS"].value * 1000
    while bench.stepped and bench.state is State.CLOSED_LOOP and left > 0:
        bench.advance(bench.now_us + RENEW_US)
        left -= RENEW_US
    return client.hello(model_hash, shadow=shadow)


class Electrode:
    """A `PulseSource` for the environment: a decision is one SET_STIM, kept alive by a RENEW each 100 ms (device time).

    Device time is plant time plus ``offset_us``, fixed by `synchronise`. On a stepped clock board and plant advance in
    lockstep and a decision's slots start with the decision. On a board that keeps real time, `until` waits for it, and
    slots start ``latency_us`` after the sample that they were decided on: the plant lives through the same delay.

    Args:
        client: the link, after `shake_hands`.
        bench: the electrode channel.
        recorder: every pulse and event is written to it.
        slot_us: slot period.
        amplitude_uA: ordered amplitude of each phase.
        width_us: ordered width of each phase.
        lease_ms: lease of each decision.
        permit: what the board was shaken hands with and is armed with, also afresh after FALLBACK.
        latency_us: from sample to slot 0; 0 in lockstep, and in real time for a decision that starts as it arrives.
        slots: slots of a decision, needed where the board decides.
    """

    def __init__(
        self,
        client: BoardClient,
        bench: Bench,
        recorder: Recorder,
        *,
        slot_us: int = SLOT_US,
        amplitude_uA: int = round(DEVICE_AMPLITUDE_UA),
        width_us: int = round(DEVICE_WIDTH_US),
        lease_ms: int = LEASE_MS,
        latency_us: int = 0,
        slots: int = 1,
        permit: Permit | None = None,
    ) -> None:
        self.client, self.bench, self.recorder = client, bench, recorder
        self.asked = Asked(slot_us, amplitude_uA, width_us, lease_ms, latency_us, slots)
        self.clock = BoardTime(client, bench, recorder)
        self.watch = BoardWatch(client, bench, recorder)
        self.orders = Orders(client, bench, recorder, self.clock, self.asked, self._resume, self.watch.read)
        self.plant_us = 0  # where the plant stands
        self.pulse_count = 0
        self.permit = permit or Permit()
        self._waiting: Order | None = None  # ordered by a controller, not yet begun by the environment

    # -- the board ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The board's state, as last seen."""
        return self.watch.state

    def arm(self) -> None:
        """Arm the board.

        Raises:
            UserError: it refuses, or does not answer.
        """
        self.client.arm(*self.permit.arms_with)
        self.orders.forget()
        self.recorder.event(self.clock.seen_us(), "armed", self.permit.mode)
        self.watch.read()

    def prelude(self) -> int:
        """Let the set point climb to the session's amplitude before its first decision, under orders without a pulse.

        Returns how long it took (µs of device time).

        Raises:
            UserError: the board refuses an order, does not answer, or does not get there.
        """
        began, amplitude = self.clock.seen_us(), self.asked.amplitude_uA
        self.recorder.event(began, "prelude", f"the set point climbs to {amplitude} µA; no pulse is ordered")
        limit = began + 2 * amplitude * 1_000_000 // LIMITS["RAMP_UP_UA_S"].value + 5_000_000
        target = amplitude
        while True:
            reply = self.client.set_stim(
                self.orders.next_id(),
                0,
                SLOT_US,
                (0,) * PRELUDE_SLOTS,
                amplitude,
                self.asked.width_us,
                PRELUDE_LEASE_MS,
            )
            if isinstance(reply, Nack):
                raise UserError(f"the board at {self.client.link.name} refuses the prelude: {nack_text(reply)}")
            target = reply.amplitude_uA
            now = reply.lease_until_us - 1000 * PRELUDE_LEASE_MS  # when the board took it
            reached = self.client.status().set_point_uA
            self.recorder.event(now, "prelude", f"the set point stands at {reached} of {target} µA")
            missing = target - reached
            if missing <= 0:
                break
            if now > limit:
                raise UserError(
                    f"the board at {self.client.link.name} does not ramp to {target} µA: {missing} are missing"
                )
            wait = min(missing * 1_000_000 // LIMITS["RAMP_UP_UA_S"].value + 1_000, SLOT_US * PRELUDE_SLOTS // 2)
            self._take(self.bench.advance(now + wait))
        self.watch.read()
        return self.clock.seen_us() - began

    def _resume(self) -> None:
        """A board in FALLBACK: shake hands afresh, and arm it."""
        permit = self.permit
        self.watch.state = State(shake_hands(self.client, self.bench, permit.model_hash, shadow=permit.shadow).state)
        self.recorder.event(self.clock.seen_us(), "handshake", "afresh, after FALLBACK")
        self.arm()

    def synchronise(self) -> int:
        """Agree on time: the plant's clock is at 0 now. Returns the offset (µs).

        Raises:
            UserError: the board does not answer.
        """
        self.plant_us, self._waiting = 0, None
        return self.clock.synchronise()

    def stop(self) -> None:
        """STOP, then watch the electrode a little longer: no pulse may follow.

        Raises:
            UserError: the board does not answer.
        """
        self.client.stop()
        self.settle()

    def settle(self) -> None:
        """After STOP: watch the electrode a little longer, and record what is seen.

        Raises:
            UserError: the board went away.
        """
        at = self.clock.seen_us()
        self.recorder.event(at, "stop", "STOP was acknowledged")
        self._take(self.bench.advance(at + SETTLE_US))
        self.watch.read()

    # -- decisions ---------------------------------------------------------------------------------------------------

    def order(self, mask: Sequence[int], seen: ObserveHead | None = None) -> Order:
        """Send one decision, whose newest sample is the plant's present one. A board in FALLBACK is armed afresh once.

        ``seen``: what was observed (its age is filled in); its verdict goes with the order.

        Raises:
            UserError: a value out of range, the board does not answer, it is in SAFE_OFF or was stopped, or the plant
                is hopelessly behind real time.
        """
        self._waiting = self.orders.stim(mask, self.plant_us, seen)
        return self._waiting

    def observe(self, values: NDArray[np.int8], sampling: Sampling) -> Order:
        """Let the board decide on an observation, (n_obs,) int8, whose newest sample is the plant's present one.

        Raises:
            UserError: as `order`.
        """
        self._waiting = self.orders.observe(values, sampling, self.plant_us)
        return self._waiting

    # -- PulseSource -------------------------------------------------------------------------------------------------

    def begin(self, action: NDArray[np.int8], start_us: int, slot_us: tuple[int, ...]) -> None:
        """See `envs.stimulation.PulseSource.begin`. A mask that a controller has ordered already is not sent again.

        Raises:
            UserError: the slots are not evenly spaced, or the environment takes another mask than was ordered.
        """
        waiting, self._waiting = self._waiting, None
        bits = tuple(int(bit) for bit in action)
        if waiting is not None and (waiting.plant_us != start_us or waiting.applied_mask != bits):
            raise UserError("the environment began another decision than the board was given")
        if any(abs(t - start_us - i * self.asked.slot_us) > SLOT_SLACK_US for i, t in enumerate(slot_us)):
            raise UserError(
                f"the slots of this decision are not {self.asked.slot_us} µs apart, as the board would give them"
            )
        if waiting is None:
            self.plant_us = start_us
            self.order(bits)
            self._waiting = None

    def until(self, t_us: int) -> list[Pulse]:
        """See `envs.stimulation.PulseSource.until`. Lets the board live until then, renewing the lease on the way.

        Raises:
            UserError: the board went away, lost pulses, or latched SAFE_OFF.
        """
        end = t_us + self.clock.offset_us
        given: list[Pulse] = []
        while (due := self.orders.renewal_due()) is not None and due < end:
            given += self._take(self.bench.advance(min(max(due, self.bench.now_us), end)))
            self.orders.renew()
        given += self._take(self.bench.advance(end))
        self.clock.keep()
        self.watch.look()
        self.plant_us = t_us
        self.recorder.tick()
        return given

    def _take(self, given: Sequence[ElectrodePulse]) -> list[Pulse]:
        """Record what came on the electrode, and map it to the plant."""
        self.pulse_count += len(given)
        rows = [
            PulseRow(
                device_us=pulse.t_us,
                plant_us=pulse.t_us - self.clock.offset_us,
                decision_id=self.orders.whose(pulse.t_us),
                amplitude_uA=pulse.amplitude_uA,
                width_us=pulse.width_us,
                second_amplitude_uA=pulse.second_amplitude_uA,
                second_width_us=pulse.second_width_us,
                residual_pC=pulse.residual_pC,
                peak_uV=pulse.peak_uV or None,
            )
            for pulse in given
        ]
        self.recorder.pulses(rows)
        return [Pulse.from_device(row.plant_us, row.amplitude_uA, row.width_us) for row in rows]
