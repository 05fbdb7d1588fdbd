"""Orders of a session: one frame a decision, its answer, and the renewals that keep its lease alive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.bench import Bench
from firmware_bridge.board_time import BoardTime
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Clamp, NackCode, State
from firmware_bridge.messages import Ack, Nack, ObserveHead
from firmware_bridge.observation import Decided, Sampling
from firmware_bridge.order import Order
from firmware_bridge.reasons import nack_text
from firmware_bridge.recorder import Recorder
from firmware_bridge.sensing import judge_sensing

RENEW_US = 100_000  # µs of device time from an order or renewal to the next renewal: a third of the default lease
MAX_LAG_US = 5_000_000  # µs behind real time at which a session gives up: seventeen leases


@dataclass(frozen=True)
class Asked:
    """What every order of a session asks for."""

    slot_us: int  # slot period
    amplitude_uA: int  # of each phase
    width_us: int  # of each phase
    lease_ms: int
    latency_us: int  # from sample to slot 0; 0 in lockstep, and in real time for a decision that starts as it arrives
    slots: int  # of a decision, needed where the board decides


class Orders:
    """Sends a session's decisions and remembers the newest ones.

    Args:
        client, bench, recorder, clock: of the session.
        asked: what each order asks for.
        resume: arms a board in FALLBACK afresh.
        refused: called where a board takes no more orders, before that is raised.
    """

    def __init__(
        self,
        client: BoardClient,
        bench: Bench,
        recorder: Recorder,
        clock: BoardTime,
        asked: Asked,
        resume: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        self.client, self.bench, self.recorder, self.clock = client, bench, recorder, clock
        self.asked = asked
        self.resume, self.refused = resume, refused
        self.deadline_misses = 0
        self.resumptions = 0
        self.lag_us = 0  # newest: how far the plant was behind the device when it decided
        self._decision_id = 0
        self._contact_us = 0  # device time at which the lease was last set
        self._seen: ObserveHead | None = None  # the observation before, since ARM
        self._orders: deque[Order] = deque(maxlen=4)

    def forget(self) -> None:
        """The board was armed: no observation came before."""
        self._seen = None

    def next_id(self) -> int:
        """A new decision id."""
        self._decision_id += 1
        return self._decision_id

    def stim(self, mask: Sequence[int], plant_us: int, seen: ObserveHead | None = None) -> Order:
        """Send one decision, whose newest sample is that at ``plant_us``. A board in FALLBACK is armed afresh once.

        ``seen``: what was observed (its age is filled in); its verdict goes with the order.

        Raises:
            UserError: a value out of range, the board does not answer, it is in SAFE_OFF or was stopped, or the plant
                is hopelessly behind real time.
        """
        return self._place(lambda: self._send(mask, plant_us, seen))

    def observe(self, values: NDArray[np.int8], sampling: Sampling, plant_us: int) -> Order:
        """Let the board decide on an observation, (n_obs,) int8, whose newest sample is that at ``plant_us``.

        Raises:
            UserError: as `stim`.
        """
        return self._place(lambda: self._send_observation(values, sampling, plant_us))

    def renewal_due(self) -> int | None:
        """Device time of the next renewal; None where no decision is under way then."""
        if not self._orders or self._orders[-1].nack is not None:
            return None
        due = self._contact_us + RENEW_US
        return due if due < self._orders[-1].end_us else None

    def _under_way(self) -> int:
        """The decision whose lease counts now; a renewal of it renews the queued one too."""
        newest = self._orders[-1]
        if len(self._orders) > 1 and self.clock.now_us() < newest.start_us and self._orders[-2].nack is None:
            return self._orders[-2].decision_id
        return newest.decision_id

    def renew(self) -> None:
        """Renew the lease of the decision under way; a refusal is recorded.

        Raises:
            UserError: the board does not answer.
        """
        decision_id = self._under_way()
        reply = self.client.renew(decision_id)
        if isinstance(reply, Nack) and reply.code == NackCode.DECISION:  # the queued one took over meanwhile
            decision_id = self._orders[-1].decision_id
            reply = self.client.renew(decision_id)
        self._contact_us = self.clock.seen_us()
        if isinstance(reply, Nack):
            text = f"RENEW was refused: {nack_text(reply)}"
            self.recorder.event(self._contact_us, "nack", text, decision_id=decision_id, code=reply.code)
        else:
            self.recorder.event(self._contact_us, "renew", "lease renewed", decision_id=decision_id)

    def whose(self, t_us: int) -> int | None:
        """The decision whose slots hold a device time; None: nobody's."""
        for order in reversed(self._orders):
            if order.start_us <= t_us < order.end_us:
                return order.decision_id
        return None

    # -- behind it ---------------------------------------------------------------------------------------------------

    def _place(self, send: Callable[[], Order]) -> Order:
        order = send()
        if order.refused_in(State.FALLBACK):
            self.resumptions += 1
            self.recorder.event(order.ack_us, "nack", f"{order.reason}: shaking hands afresh", code=NackCode.STATE)
            self.resume()
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
            self.refused()
            raise UserError(f"the board at {self.client.link.name} takes no more orders: {nack_text(order.nack)}")
        self._orders.append(order)
        return order

    def _next_decision(self, plant_us: int) -> tuple[int, int, int, float]:
        """A new decision id: device time of the sample, of slot 0 (0: at once), and now; the host's time."""
        sample_us = plant_us + self.clock.offset_us
        start_us = sample_us + self.asked.latency_us if self.bench.stepped or self.asked.latency_us else 0
        self.next_id()
        sent_us, host_sent = self.clock.now_us(), time.time()
        self.lag_us = sent_us - sample_us
        if self.lag_us > MAX_LAG_US:
            raise UserError(
                f"the plant cannot keep up with real time: it is {self.lag_us / 1e6:.1f} s behind after "
                f"{self._decision_id - 1} decisions; run the session without --realtime, or on a faster machine"
            )
        return sample_us, start_us, sent_us, host_sent

    def _send_observation(self, values: NDArray[np.int8], sampling: Sampling, plant_us: int) -> Order:
        sample_us, start_us, sent_us, host_sent = self._next_decision(plant_us)
        seen = sampling._replace(age_us=max(0, sent_us - sample_us))
        under_way = None if self.bench.stepped or self.renewal_due() is None else self._under_way()
        reply = self.client.observe(self._decision_id, values, start_us, self.asked.lease_ms, seen, under_way)
        if (renewed := self.client.renewed) is not None:  # before whatever else the record says of this decision
            at = renewed.lease_until_us - 1000 * self.asked.lease_ms
            self.recorder.event(at, "renew", "lease renewed with the observation", decision_id=under_way)
        decided = reply if isinstance(reply, Decided) else None
        nack = reply if isinstance(reply, Nack) else reply.nack
        mask = () if decided is None else decided.mask
        ack_us = self.clock.seen_us() if decided is None else decided.decision.decided_us
        if nack is None:
            self._contact_us = ack_us
        return Order(
            self._decision_id,
            plant_us,
            sample_us,
            (start_us or sample_us) if decided is None or nack is not None else decided.decision.start_us,
            self.asked.slot_us,
            mask or (0,) * self.asked.slots,
            mask if nack is None else (0,) * self.asked.slots,
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

    def _send(self, mask: Sequence[int], plant_us: int, seen: ObserveHead | None) -> Order:
        bits = tuple(int(bit) for bit in mask)
        sample_us, start_us, sent_us, host_sent = self._next_decision(plant_us)
        reply = self.client.set_stim(
            self._decision_id,
            start_us,
            self.asked.slot_us,
            bits,
            self.asked.amplitude_uA,
            self.asked.width_us,
            self.asked.lease_ms,
            sensing=self._verdict(seen),
        )
        ack_us = self.clock.seen_us()
        accepted = isinstance(reply, Ack)
        if accepted:
            self._contact_us = ack_us
        return Order(
            self._decision_id,
            plant_us,
            sample_us,
            reply.start_us if isinstance(reply, Ack) else start_us or sample_us,
            self.asked.slot_us,
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
