"""Shadow mode: a classical controller drives the board; beside it a policy decides, is recorded, and moves nothing.

Where the board decides, the session is one in SHADOW (`Feature.SHADOW`): the board itself applies nothing that its
policy says, whatever the host asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.codes import Clamp
from firmware_bridge.electrode import Electrode
from firmware_bridge.integer_policy import IntegerPolicy
from firmware_bridge.messages import Nack
from firmware_bridge.policy import BoardPolicy
from firmware_bridge.reasons import nack_text
from firmware_bridge.recorder import Recorder
from firmware_bridge.records import Shadow, blob
from sea_dbs.controllers import Action, Controller, Observation, Policy, check_observation, decide


@dataclass
class _Said:
    """What the policy made of an observation."""

    mask: tuple[int, ...] | None
    reason: str
    logits: NDArray[np.float32] | None = None
    integers: NDArray[np.int32] | None = None
    values: NDArray[np.int8] | None = None
    differ: int | None = None


class Shadowed(BoardPolicy):
    """`BoardPolicy` of the controller that drives, with a policy in its shadow.

    The order leaves first, then the policy is asked: what drives never waits for what is only recorded.

    Args:
        inner: the classical controller that drives.
        policy: decides in its shadow, on the host; an `IntegerPolicy` where the board decides, as the reference.
        on_board: whether the board decides in shadow.
        checked: whether the board's logits must equal the reference bit by bit.
    """

    def __init__(
        self,
        inner: Controller,
        policy: Controller,
        electrode: Electrode,
        recorder: Recorder,
        *,
        slots: int,
        n_obs: int,
        new_samples: int,
        own: int = 0,
        on_board: bool = False,
        checked: bool = True,
    ) -> None:
        super().__init__(inner, electrode, recorder, slots=slots, n_obs=n_obs, new_samples=new_samples, own=own)
        self.policy, self.on_board, self.checked = policy, on_board, checked

    def init_state(self, n: int = 1) -> None:
        """Forget everything.

        Raises:
            UserError: more than one environment.
        """
        super().init_state(n)
        self.policy.init_state(1)

    def act(self, observation: Observation) -> Action:
        """(1, n_obs) -> (1, slots), as acknowledged by the board: the controller's alone.

        Raises:
            UserError: as `BoardPolicy.act`; the board applied what its policy decided.
        """
        checked = check_observation(observation, n=1, n_obs=self.n_obs)
        resumed = self.electrode.orders.resumptions
        order, logits, decide_us, _ = self._ordered(checked)
        if self.electrode.orders.resumptions != resumed:
            self.policy.init_state(1)  # the board was armed afresh, and has forgotten
        said = self._by_board(checked) if self.on_board else self._by_host(checked)
        shadow = Shadow(
            shadow_mask=None if said.mask is None else "".join(map(str, said.mask)),
            shadow_reason=said.reason,
            shadow_logits=None if said.logits is None else blob(said.logits),
            shadow_logits_int32=None if said.integers is None else said.integers.astype("<i4").tobytes(),
            shadow_logits_differ=said.differ,
        )
        self._record(order, checked[0], logits, decide_us, values=said.values, shadow=shadow)
        self.last = order
        return np.array([order.applied_mask], np.int8)

    def _by_host(self, observation: Observation) -> _Said:
        logits = self.policy.logits(observation) if isinstance(self.policy, Policy) else None
        mask = self.policy.act(observation) if logits is None else decide(logits)
        said = _Said(tuple(int(bit) for bit in mask[0]), "decided by the host, not applied")
        if logits is not None:
            said.logits = logits[0]
        if isinstance(self.policy, IntegerPolicy) and self.policy.last is not None:
            said.values, said.integers = self.policy.last[0][0], self.policy.last[1][0]
        return said

    def _by_board(self, observation: Observation) -> _Said:
        assert isinstance(self.policy, IntegerPolicy)
        values = self.policy.quantise(observation)
        asked = self.electrode.asked
        answer = self.electrode.client.observe(
            self.decisions + 1, values[0], 0, asked.lease_ms, self.sampling(self.new_samples or 0)
        )
        if isinstance(answer, Nack):
            return _Said(None, f"refused: {nack_text(answer)}", values=values[0])
        expected = self.policy.infer(values)[0]
        differ = int(np.count_nonzero(answer.logits != expected)) if self.checked else None
        if answer.nack is None and not answer.decision.clamp & Clamp.SHADOW:
            raise UserError(f"the board at {self.electrode.client.link.name} applied what its policy decided in shadow")
        reason = "decided by the board, not applied" if answer.nack is None else f"refused: {nack_text(answer.nack)}"
        return _Said(answer.mask, reason, integers=answer.logits, values=values[0], differ=differ)
