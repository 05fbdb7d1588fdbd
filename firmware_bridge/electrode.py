"""The electrode as the plant's source of pulses: orders go to the board, its ELECTRODE channel says what was given."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.stimulation import DEVICE_AMPLITUDE_UA, DEVICE_WIDTH_US, Pulse
from firmware_bridge.bench import Bench, ElectrodePulse
from firmware_bridge.client import NO_MODEL, BoardClient, host_us
from firmware_bridge.clock import ClockModel, Verdict
from firmware_bridge.codes import Cause, Clamp, Fault, NackCode, State
from firmware_bridge.limits import LIMITS
from firmware_bridge.messages import Ack, HelloAck, Nack, ObserveHead
from firmware_bridge.observation import Decided, Sampling
from firmware_bridge.order import Order
from firmware_bridge.reasons import nack_text
from firmware_bridge.recorder import ClockRow, PulseRow, Recorder
from firmware_bridge.sensing import judge_sensing

BENCH_MODE = "bench mode: simulated electrode only; research use only"
LEASE_MS = LIMITS["LEASE_DEFAULT_MS"].value
SLOT_US = 20_000  # µs, slot period of the presets paper and realtime
RENEW_US = 100_000  # µs of device time from an order or renewal to the next renewal: a third of the default lease
SYNCS = 8  # exchanges of times at the start
SYNC_US = 500_000  # µs of host time from one exchange of times to the next
MAX_LAG_US = 5_000_000  # µs behind real time at which a session gives up: seventeen leases
SLOT_SLACK_US = 100  # µs by which the plant's slots (whole samples) may differ from the board's (whole µs)
PRELUDE_LEASE_MS = LIMITS["LEASE_MAX_MS"].value  # of an order of the prelude: nothing is given under it
PRELUDE_SLOTS = 50
SETTLE_US = 100_000  # µs of device time watched after STOP


def shake_hands(client: BoardClient, bench: Bench, model_hash: bytes = NO_MODEL) -> HelloAck:
    """HELLO, checking every hash; the lease of an older session is waited for, if need be on the stepped clock.

    Raises:
        UserError: no answer, or the board would not be armed; what differs is named.
    """
    left = LIMITS["LEASE_MAX_MS"].value * 1000
    while bench.stepped and bench.state is State.CLOSED_LOOP and left > 0:
        bench.advance(bench.now_us + RENEW_US)
        left -= RENEW_US
    return client.hello(model_hash)


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
        model_hash: what the board was shaken hands with, for a fresh handshake after FALLBACK.
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
        model_hash: bytes = NO_MODEL,
    ) -> None:
        self.client, self.bench, self.recorder = client, bench, recorder
        self.slot_us = slot_us
        self.amplitude_uA, self.width_us, self.lease_ms = amplitude_uA, width_us, lease_ms
        self.latency_us, self.slots = latency_us, slots
        self.offset_us = 0
        self.plant_us = 0  # where the plant stands
        self.deadline_misses = 0
        self.resumptions = 0
        self.pulse_count = 0
        self.lag_us = 0  # newest: how far the plant was behind the device when it decided
        self._model_hash = model_hash
        self.clock = ClockModel()  # real time only
        self._compared_us = 0  # host time of the last comparison of the clocks
        self._state = State.BOOT if client.board is None else State(client.board.state)
        self._fault_bits = 0
        self._decision_id = 0
        self._contact_us = 0  # device time at which the lease was last set
        self._seen: ObserveHead | None = None  # the observation before, since ARM
        self._waiting: Order | None = None  # ordered by a controller, not yet begun by the environment
        self._orders: deque[Order] = deque(maxlen=4)

    # -- the board ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The board's state, as last seen."""
        return self._state

    def arm(self) -> None:
        """Arm the board.

        Raises:
            UserError: it refuses, or does not answer.
        """
        self.client.arm()
        self._seen = None
        self.recorder.event(self._seen_us(), "armed", BENCH_MODE)
        self._read_status()

    def prelude(self) -> int:
        """Let the set point climb to the session's amplitude before its first decision, under orders without a pulse.

        Returns how long it took (µs of device time).

        Raises:
            UserError: the board refuses an order, does not answer, or does not get there.
        """
        began = self._seen_us()
        self.recorder.event(began, "prelude", f"the set point climbs to {self.amplitude_uA} µA; no pulse is ordered")
        limit = began + 2 * self.amplitude_uA * 1_000_000 // LIMITS["RAMP_UP_UA_S"].value + 5_000_000
        target = self.amplitude_uA
        while True:
            self._decision_id += 1
            reply = self.client.set_stim(
                self._decision_id, 0, SLOT_US, (0,) * PRELUDE_SLOTS, self.amplitude_uA, self.width_us, PRELUDE_LEASE_MS
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
        self._read_status()
        return self._seen_us() - began

    def synchronise(self) -> int:
        """Agree on time: the plant's clock is at 0 now. Returns the offset (µs)."""
        if not self.bench.stepped:
            for _ in range(SYNCS):
                self._compare_clocks()
        self.plant_us, self._waiting = 0, None
        self.offset_us = self.now_us()
        return self.offset_us

    def now_us(self) -> int:
        """Device time now: exact on a stepped clock, else by the model of the board's clock."""
        if self.bench.stepped:
            return self.bench.now_us
        modelled = round(self.clock.board_us(host_us())) if self.clock.ready else 0
        return max(self.client.device_time_us, modelled)

    def _compare_clocks(self) -> None:
        """One TIME_SYNC for the clock model; recorded."""
        sample = self.client.time_sync()
        self._compared_us = sample.t4_us
        verdict = self.clock.add(sample)
        estimate = self.clock.at(sample.t4_us)
        self.recorder.clock(
            ClockRow(
                device_us=sample.t3_us,
                host_us=sample.t4_us,
                host_round_trip_us=sample.round_trip_us,
                offset_us=estimate.offset_us,
                offset_low_us=estimate.low_us,
                offset_high_us=estimate.high_us,
                drift_ppm=estimate.drift_ppm,
                drift_low_ppm=estimate.drift_low_ppm,
                drift_high_ppm=estimate.drift_high_ppm,
                verdict=verdict.name,
            )
        )
        if verdict in (Verdict.JUMP, Verdict.WRAP):
            by = f" by {self.clock.jump_us:+.0f} µs" if verdict is Verdict.JUMP else ""
            self.recorder.event(sample.t3_us, "clock", f"{verdict.value}{by}")

    def _seen_us(self) -> int:
        """Device time of the board's newest answer."""
        return self.bench.now_us if self.bench.stepped else self.client.device_time_us

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
        at = self._seen_us()
        self.recorder.event(at, "stop", "STOP was acknowledged")
        self._take(self.bench.advance(at + SETTLE_US))
        self._read_status()

    # -- decisions ---------------------------------------------------------------------------------------------------

    def order(self, mask: Sequence[int], seen: ObserveHead | None = None) -> Order:
        """Send one decision, whose newest sample is the plant's present one. A board in FALLBACK is armed afresh once.

        ``seen``: what was observed (its age is filled in); its verdict goes with the order.

        Raises:
            UserError: a value out of range, the board does not answer, it is in SAFE_OFF or was stopped, or the plant
                is hopelessly behind real time.
        """
        return self._place(lambda: self._send(mask, seen))

    def observe(self, values: NDArray[np.int8], sampling: Sampling) -> Order:
        """Let the board decide on an observation, (n_obs,) int8, whose newest sample is the plant's present one.

        Raises:
            UserError: as `order`.
        """
        return self._place(lambda: self._send_observation(values, sampling))

    def _place(self, send: Callable[[], Order]) -> Order:
        order = send()
        if order.refused_in(State.FALLBACK):
            self.resumptions += 1
            self.recorder.event(order.ack_us, "nack", f"{order.reason}: shaking hands afresh", code=NackCode.STATE)
            self._state = State(shake_hands(self.client, self.bench, self._model_hash).state)
            self.recorder.event(self._seen_us(), "handshake", "afresh, after FALLBACK")
            self.arm()
            order = send()
        late_us = order.ack_us - order.start_us
        if order.nack is not None:
            code = order.nack.code
            self.recorder.event(order.ack_us, "nack", order.reason, decision_id=order.decision_id, code=code)
        elif order.clamp:
            self.recorder.event(
                order.ack_us, "clamp", order.reason, decision_id=order.decision_id, code=int(order.clamp)
            )
        if late_us > 0:
            self.deadline_misses += 1
            text = f"the order reached the board {late_us} µs after its slot 0"
            self.recorder.event(order.ack_us, "deadline", text, decision_id=order.decision_id, code=late_us)
        if order.nack is not None and order.nack.code == NackCode.STATE:
            self._read_status()
            raise UserError(f"the board at {self.client.link.name} takes no more orders: {nack_text(order.nack)}")
        self._orders.append(order)
        self._waiting = order
        return order

    def _next_decision(self) -> tuple[int, int, int, float]:
        """A new decision id: device time of the sample, of slot 0 (0: at once), and now; the host's time."""
        sample_us = self.plant_us + self.offset_us
        start_us = sample_us + self.latency_us if self.bench.stepped or self.latency_us else 0
        self._decision_id += 1
        sent_us, host_sent = self.now_us(), time.time()
        self.lag_us = sent_us - sample_us
        if self.lag_us > MAX_LAG_US:
            raise UserError(
                f"the plant cannot keep up with real time: it is {self.lag_us / 1e6:.1f} s behind after "
                f"{self._decision_id - 1} decisions; run the session without --realtime, or on a faster machine"
            )
        return sample_us, start_us, sent_us, host_sent

    def _send_observation(self, values: NDArray[np.int8], sampling: Sampling) -> Order:
        sample_us, start_us, sent_us, host_sent = self._next_decision()
        seen = sampling._replace(age_us=max(0, sent_us - sample_us))
        under_way = None if self.bench.stepped or self._renewal_due() is None else self._under_way()
        reply = self.client.observe(self._decision_id, values, start_us, self.lease_ms, seen, under_way)
        if (renewed := self.client.renewed) is not None:  # before whatever else the record says of this decision
            at = renewed.lease_until_us - 1000 * self.lease_ms
            self.recorder.event(at, "renew", "lease renewed with the observation", decision_id=under_way)
        decided = reply if isinstance(reply, Decided) else None
        nack = reply if isinstance(reply, Nack) else reply.nack
        mask = () if decided is None else decided.mask
        ack_us = self._seen_us() if decided is None else decided.decision.decided_us
        if nack is None:
            self._contact_us = ack_us
        return Order(
            self._decision_id,
            self.plant_us,
            sample_us,
            (start_us or sample_us) if decided is None or nack is not None else decided.decision.start_us,
            self.slot_us,
            mask or (0,) * self.slots,
            mask if nack is None else (0,) * self.slots,
            0 if decided is None else decided.decision.amplitude_uA,
            0 if decided is None else decided.decision.width_us,
            Clamp(0) if decided is None else Clamp(decided.decision.clamp),
            nack,
            sent_us,
            ack_us,
            host_sent,
            time.time(),
            decided,
        )

    def _verdict(self, seen: ObserveHead | None) -> int:
        """What the board's own function says of an observation, aged as it is now; 0: fit, or not known."""
        if seen is None:
            return 0
        head = replace(seen, age_us=max(0, self.lag_us))
        verdict = judge_sensing(head, self._seen)
        self._seen = head
        return int(verdict)

    def _send(self, mask: Sequence[int], seen: ObserveHead | None = None) -> Order:
        bits = tuple(int(bit) for bit in mask)
        sample_us, start_us, sent_us, host_sent = self._next_decision()
        reply = self.client.set_stim(
            self._decision_id,
            start_us,
            self.slot_us,
            bits,
            self.amplitude_uA,
            self.width_us,
            self.lease_ms,
            sensing=self._verdict(seen),
        )
        ack_us = self._seen_us()
        accepted = isinstance(reply, Ack)
        if accepted:
            self._contact_us = ack_us
        return Order(
            self._decision_id,
            self.plant_us,
            sample_us,
            reply.start_us if isinstance(reply, Ack) else start_us or sample_us,
            self.slot_us,
            bits,
            bits if accepted else (0,) * len(bits),
            reply.amplitude_uA if isinstance(reply, Ack) else 0,
            reply.width_us if isinstance(reply, Ack) else 0,
            Clamp(reply.clamp) if isinstance(reply, Ack) else Clamp(0),
            None if isinstance(reply, Ack) else reply,
            sent_us,
            ack_us,
            host_sent,
            time.time(),
        )

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
        if any(abs(t - start_us - i * self.slot_us) > SLOT_SLACK_US for i, t in enumerate(slot_us)):
            raise UserError(f"the slots of this decision are not {self.slot_us} µs apart, as the board would give them")
        if waiting is None:
            self.plant_us = start_us
            self.order(bits)
            self._waiting = None

    def until(self, t_us: int) -> list[Pulse]:
        """See `envs.stimulation.PulseSource.until`. Lets the board live until then, renewing the lease on the way.

        Raises:
            UserError: the board went away, lost pulses, or latched SAFE_OFF.
        """
        end = t_us + self.offset_us
        given: list[Pulse] = []
        while (due := self._renewal_due()) is not None and due < end:
            given += self._take(self.bench.advance(min(max(due, self.bench.now_us), end)))
            self._renew()
        given += self._take(self.bench.advance(end))
        if not self.bench.stepped and host_us() - self._compared_us >= SYNC_US:
            self._compare_clocks()
        self._watch_state()
        self.plant_us = t_us
        self.recorder.tick()
        return given

    def _renewal_due(self) -> int | None:
        """Device time of the next renewal; None where no decision is under way then."""
        if not self._orders or self._orders[-1].nack is not None:
            return None
        due = self._contact_us + RENEW_US
        return due if due < self._orders[-1].end_us else None

    def _under_way(self) -> int:
        """The decision whose lease counts now; a renewal of it renews the queued one too."""
        newest = self._orders[-1]
        if len(self._orders) > 1 and self.now_us() < newest.start_us and self._orders[-2].nack is None:
            return self._orders[-2].decision_id
        return newest.decision_id

    def _renew(self) -> None:
        decision_id = self._under_way()
        reply = self.client.renew(decision_id)
        if isinstance(reply, Nack) and reply.code == NackCode.DECISION:  # the queued one took over meanwhile
            decision_id = self._orders[-1].decision_id
            reply = self.client.renew(decision_id)
        self._contact_us = self._seen_us()
        if isinstance(reply, Nack):
            text = f"RENEW was refused: {nack_text(reply)}"
            self.recorder.event(self._contact_us, "nack", text, decision_id=decision_id, code=reply.code)
        else:
            self.recorder.event(self._contact_us, "renew", "lease renewed", decision_id=decision_id)

    def _take(self, given: Sequence[ElectrodePulse]) -> list[Pulse]:
        """Record what came on the electrode, and map it to the plant."""
        self.pulse_count += len(given)
        rows = [
            PulseRow(
                device_us=pulse.t_us,
                plant_us=pulse.t_us - self.offset_us,
                decision_id=self._whose(pulse.t_us),
                amplitude_uA=pulse.amplitude_uA,
                width_us=pulse.width_us,
                second_amplitude_uA=pulse.second_amplitude_uA,
                second_width_us=pulse.second_width_us,
                residual_pC=pulse.residual_pC,
            )
            for pulse in given
        ]
        self.recorder.pulses(rows)
        return [Pulse.from_device(row.plant_us, row.amplitude_uA, row.width_us) for row in rows]

    def _whose(self, t_us: int) -> int | None:
        for order in reversed(self._orders):
            if order.start_us <= t_us < order.end_us:
                return order.decision_id
        return None

    def _watch_state(self) -> None:
        """Look whether the board changed its state since it was last asked (as the electrode channel shows it).

        Unasked STATUS frames are not used: when one is read depends on the host's timing, and records must repeat.
        """
        if self.bench.state is not self._state:
            self._read_status()

    def _read_status(self) -> None:
        """Ask for the state; record it with its cause if it is new, and new faults.

        Raises:
            UserError: the board latched SAFE_OFF.
        """
        self.client.notices.clear()
        status = self.client.status()
        at = self.client.device_time_us
        cause = Cause(status.cause)
        if status.state != self._state:
            self._state = State(status.state)
            self.recorder.event(at, "state", f"{self._state.name}: {cause.doc}", code=status.state)
        for bit in Fault:
            if bit & status.faults & ~self._fault_bits:
                self.recorder.event(at, "fault", bit.doc, code=int(bit))
        self._fault_bits = status.faults
        if self._state is State.SAFE_OFF:
            raise UserError(f"the board at {self.client.link.name} latched SAFE_OFF ({cause.doc}): press its button")
