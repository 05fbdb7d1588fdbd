"""One decision as it was ordered, and what the board made of it."""

from __future__ import annotations

from typing import NamedTuple

from firmware_bridge.codes import Clamp, NackCode, State
from firmware_bridge.messages import Nack
from firmware_bridge.observation import Decided
from firmware_bridge.reasons import nack_text


class Order(NamedTuple):
    """See the module; times in µs of device time unless said."""

    decision_id: int
    plant_us: int  # plant time of the newest sample
    sample_us: int  # the same in device time
    start_us: int  # device time of slot 0
    slot_period_us: int
    mask: tuple[int, ...]
    applied_mask: tuple[int, ...]  # all zero where the order was refused
    amplitude_uA: int  # applied
    width_us: int  # applied
    clamp: Clamp
    nack: Nack | None
    sent_us: int  # device time
    ack_us: int  # device time
    host_sent: float  # s since 1970
    host_ack: float  # s since 1970
    decided: Decided | None = None  # by the board; ack_us is then when it had decided

    @property
    def end_us(self) -> int:
        """Device time at which the last slot ends."""
        return self.start_us + self.slot_period_us * len(self.mask)

    @property
    def reason(self) -> str:
        """Why the applied values are what they are, for people."""
        if self.nack is not None:
            return f"refused: {nack_text(self.nack)}"
        if self.clamp:
            return "clamped: " + " and ".join(bit.doc for bit in Clamp if bit & self.clamp)
        return "as decided"

    def refused_in(self, state: State) -> bool:
        """Whether the board refused it because of its state."""
        return self.nack is not None and self.nack.code == NackCode.STATE and self.nack.value == state
