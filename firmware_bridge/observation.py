"""An observation for a board that decides itself: cut into OBSERVE frames; its DECISION and LOGITS put together."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from firmware_bridge.layout import TYPES, Message
from firmware_bridge.messages import Ack, Decision, Logits, Nack, Observe, ObserveHead

FULL = Observe.layout.fields["data"].size  # bytes of a full fragment
LOGITS_A_FRAME = Logits.layout.fields["values"].size // 4
OBSERVATION_MAX = 1024  # values: SEA_POLICY_MAX_OBS of sea_policy.h


class Sampling(NamedTuple):
    """What an observation was made of; all of it is for the record and for the board's own checks."""

    first: int = 0  # counter of the oldest sample, modulo 2^32
    last: int = 0  # counter of the newest one
    blanked: int = 0  # values that were blanked around a pulse
    age_us: int = 0  # of the newest sample, when it is sent


def cut(
    decision_id: int, values: NDArray[np.int8], *, start_us: int, lease_ms: int, sampling: Sampling | None = None
) -> list[Observe]:
    """The frames of one observation, (n_obs,) int8 at the policy's input scale.

    Raises:
        UserError: another type or shape, no or too many values, or more values blanked than there are.
    """
    if values.dtype != np.int8 or values.ndim != 1 or not 1 <= len(values) <= OBSERVATION_MAX:
        raise UserError(f"an observation takes 1 to {OBSERVATION_MAX} int8 values, not {values.dtype} {values.shape}")
    seen = sampling or Sampling(decision_id, decision_id + len(values) - 1)  # as if one sample came with each
    if not 0 <= seen.blanked <= len(values):
        raise UserError(f"{seen.blanked} values blanked is outside 0 to {len(values)}, the values of the observation")
    head = ObserveHead(
        start_us=start_us,
        lease_ms=lease_ms,
        sample_first=seen.first % 2**32,
        sample_last=seen.last % 2**32,
        valid=len(values) - seen.blanked,
        blanked=seen.blanked,
        minimum=int(values.min()),
        maximum=int(values.max()),
        age_us=min(max(seen.age_us, 0), 2**32 - 1),
    )
    blob = head.pack() + values.tobytes()
    pieces = [blob[at : at + FULL] for at in range(0, len(blob), FULL)]
    crc = zlib.crc32(blob)
    return [Observe(decision_id, i, len(pieces), crc, piece) for i, piece in enumerate(pieces)]


class Decided(NamedTuple):
    """What a board decided, and what became of it."""

    decision: Decision
    logits: NDArray[np.int32]  # (slots, 2): no pulse, pulse

    @property
    def mask(self) -> tuple[int, ...]:
        """The decision, 0 or 1 a slot."""
        bits = int.from_bytes(self.decision.mask, "little")
        return tuple(bits >> slot & 1 for slot in range(self.decision.slots))

    @property
    def margins(self) -> NDArray[np.int16]:
        """Of the first slots, as many as fit the frame: above 0 speaks for a pulse."""
        return np.frombuffer(self.decision.margins, "<i2").astype(np.int16)

    @property
    def nack(self) -> Nack | None:
        """Why it was refused; None: it is applied."""
        answer = self.decision
        if answer.code == 0:
            return None
        return Nack(answer.of_sequence, _OBSERVE, answer.code, answer.value, answer.low, answer.high)


class Gather:
    """Collects the frames of one answer: a NACK, or DECISION and all of its LOGITS."""

    def __init__(self, decision_id: int) -> None:
        self.decision_id = decision_id
        self.nack: Nack | None = None
        self.decision: Decision | None = None
        self.renewed: Ack | None = None  # a RENEW that was sent along
        self._parts: dict[int, bytes] = {}
        self._fragments = 0

    def __call__(self, message: Message, sent: set[int]) -> bool:
        """Take a message; True when the answer is whole."""
        if isinstance(message, Nack) and message.of_sequence in sent and message.of_type == _OBSERVE:
            self.nack = message
            return True
        if isinstance(message, Ack) and message.of_sequence in sent:
            self.renewed = message
        if isinstance(message, Decision) and message.decision_id == self.decision_id:
            self.decision = message
        elif isinstance(message, Logits) and message.decision_id == self.decision_id:
            self._parts[message.fragment] = message.values
            self._fragments = message.fragments
        return self.decision is not None and 0 < self._fragments == len(self._parts)

    def decided(self) -> Decided:
        """The whole answer.

        Raises:
            UserError: the frames do not fit one another.
        """
        assert self.decision is not None
        data = b"".join(self._parts[i] for i in sorted(self._parts))
        if sorted(self._parts) != list(range(self._fragments)) or len(data) != 8 * self.decision.slots:
            raise UserError(
                f"the board's logits of decision {self.decision_id} are {len(data)} bytes in fragments "
                f"{sorted(self._parts)}, not {8 * self.decision.slots} in {self._fragments}"
            )
        logits = np.frombuffer(data, "<i4").astype(np.int32).reshape(-1, 2)
        return Decided(self.decision, logits)


def decide_integer(logits: NDArray[np.int32]) -> NDArray[np.int8]:
    """(…, slots, 2) int32 -> (…, slots) int8: a pulse where its logit is the greater; a tie gives none."""
    return (logits[..., 1] > logits[..., 0]).astype(np.int8)


_OBSERVE = next(type_id for type_id, row in TYPES.items() if row.cls is Observe)
