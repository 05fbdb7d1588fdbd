"""A board as a controller: the host decides, the board is told, and what the board took on is the answer."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.electrode import Electrode
from firmware_bridge.integer_policy import IntegerPolicy
from firmware_bridge.observation import Sampling
from firmware_bridge.order import Order
from firmware_bridge.recorder import DecisionRow, Recorder, blob, digest
from firmware_bridge.records import NO_SHADOW, Shadow
from firmware_bridge.sensing import head_of
from sea_dbs.controllers import Action, Controller, Observation, Policy, check_observation, decide


class BoardPolicy:
    """Wraps any controller, so that the one rollout loop runs a session.

    `act` answers the mask that the board acknowledged: the decided one, or none at all where it refused. Each decision
    is recorded, with its reason, before the environment lives through it.

    Args:
        inner: decides on the host: a policy with logits, or a classical controller.
        electrode: where the orders go.
        recorder: where the decisions are written.
        slots: slots of a decision.
        n_obs: values of an observation.
        own: how many of them, the first, are duties of what the board gave: nothing that was sensed.
        new_samples: values of an observation that the one before did not hold; None: sensing is not judged.
    """

    def __init__(
        self,
        inner: Controller,
        electrode: Electrode,
        recorder: Recorder,
        *,
        slots: int,
        n_obs: int,
        new_samples: int | None = None,
        own: int = 0,
    ) -> None:
        self.name = f"{inner.name} on a board"
        self.inner, self.electrode, self.recorder = inner, electrode, recorder
        self.slots, self.n_obs, self.new_samples, self.own = slots, n_obs, new_samples, own
        self.decisions = 0
        self.last: Order | None = None

    def init_state(self, n: int = 1) -> None:
        """Forget everything.

        Raises:
            UserError: more than one environment: a board drives one electrode.
        """
        if n != 1:
            raise UserError(f"a board drives one environment, not {n}")
        self.inner.init_state(1)
        self.decisions, self.last = 0, None

    def act(self, observation: Observation) -> Action:
        """(1, n_obs) -> (1, slots), as acknowledged by the board.

        Raises:
            UserError: a wrong shape or a value that is not finite (nothing is ordered then), or what
                `Electrode.order` raises.
        """
        checked = check_observation(observation, n=1, n_obs=self.n_obs)
        order, logits, decide_us, values = self._ordered(checked)
        self._record(order, checked[0], logits, decide_us, values=values)
        self.last = order
        return np.array([order.applied_mask], np.int8)

    def _ordered(self, checked: Observation) -> tuple[Order, NDArray[np.float32] | None, int, NDArray[np.int8] | None]:
        """Decide and order: the order, logits (slots, 2), time taken (µs), int8 observation (n_obs,)."""
        start = time.perf_counter_ns()
        logits = self.inner.logits(checked) if isinstance(self.inner, Policy) else None
        mask = self.inner.act(checked) if logits is None else decide(logits)
        decide_us = (time.perf_counter_ns() - start) // 1000
        if not isinstance(mask, np.ndarray) or mask.shape != (1, self.slots) or mask.dtype != np.int8:
            found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise UserError(
                f"the controller '{self.inner.name}' answered with {found} where int8 {(1, self.slots)} is expected"
            )
        values = self.inner.last[0][0] if isinstance(self.inner, IntegerPolicy) and self.inner.last else None
        seen = None
        if self.new_samples is not None:
            sensed = (checked[0] if values is None else values)[self.own :]
            seen = head_of(sensed, self.sampling(self.new_samples))
        order = self.electrode.order([int(bit) for bit in mask[0]], seen)
        return order, None if logits is None else logits[0], decide_us, values

    def sampling(self, new_samples: int) -> Sampling:
        """Which samples the present observation holds."""
        first = self.decisions * new_samples
        return Sampling(first, first + self.n_obs - self.own - 1)

    def _record(
        self,
        order: Order,
        observation: NDArray[np.float32],
        logits: NDArray[np.float32] | None,
        decide_us: int,
        *,
        values: NDArray[np.int8] | None = None,
        differ: int | None = None,
        shadow: Shadow = NO_SHADOW,
    ) -> None:
        seen = blob(observation)
        integers = None if order.decided is None else order.decided.logits
        if integers is None and isinstance(self.inner, IntegerPolicy) and self.inner.last and order.nack is None:
            integers = self.inner.last[1][0]
        self.recorder.decision(
            DecisionRow(
                decision_index=self.decisions,
                decision_id=order.decision_id,
                plant_us=order.plant_us,
                sample_us=order.sample_us,
                observation=seen,
                observation_sha256=digest(seen),
                logits=None if logits is None else blob(logits),
                mask="".join(map(str, order.mask)),
                start_us=order.start_us,
                slot_period_us=order.slot_period_us,
                reason=order.reason,
                clamp=int(order.clamp),
                nack=None if order.nack is None else int(order.nack.code),
                applied_mask="".join(map(str, order.applied_mask)),
                applied_amplitude_uA=order.amplitude_uA,
                applied_width_us=order.width_us,
                sent_us=order.sent_us,
                ack_us=order.ack_us,
                host_sent=order.host_sent,
                host_ack=order.host_ack,
                host_decide_us=decide_us,
                whole_us=None if order.decided is None else order.decided.decision.whole_us,
                observation_int8=None if values is None else values.tobytes(),
                logits_int32=None if integers is None else integers.astype("<i4").tobytes(),
                margins_int16=None if order.decided is None else order.decided.decision.margins,
                logits_differ=differ,
                **asdict(shadow),
            )
        )
        self.decisions += 1
