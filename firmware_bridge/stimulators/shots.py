"""A mask as shots: single pulses, and finite trains where slots are evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

TRAIN_MIN = 3  # pulses from which a train is worth a program of its own


class Shot(NamedTuple):
    """What one trigger gives: ``pulses`` pulses, ``spacing_us`` apart, the first at ``start_us``."""

    start_us: int
    pulses: int
    spacing_us: int  # µs; of a single pulse: the slot period
    tail_us: int  # µs from the last pulse's start to the train's end: half a slot, so that rounding can neither drop
    # the last pulse nor add one, and the device is idle again before the next slot

    @property
    def duration_us(self) -> int:
        """Length of the train."""
        return (self.pulses - 1) * self.spacing_us + self.tail_us


def plan_shots(mask: Sequence[int], start_us: int, period_us: int, room_us: int) -> list[Shot]:
    """The shots of a mask, in order; trains last at most ``room_us`` (0: single pulses only).

    Greedy: from each set slot, the next set slots that are evenly spaced make one train, if they are `TRAIN_MIN` or
    more; together the shots give exactly the mask's pulses.
    """
    slots = [i for i, bit in enumerate(mask) if bit]
    tail = period_us // 2
    shots = []
    while slots:
        length, spacing = 1, 1
        if len(slots) > 1:
            spacing = slots[1] - slots[0]
            most = 1 + max(0, room_us - tail) // (spacing * period_us)
            while length < min(len(slots), most) and slots[length] - slots[length - 1] == spacing:
                length += 1
        if length < TRAIN_MIN:
            length, spacing = 1, 1
        shots.append(Shot(start_us + slots[0] * period_us, length, spacing * period_us, tail))
        slots = slots[length:]
    return shots


def singles(shot: Shot) -> list[Shot]:
    """The same pulses, one trigger each."""
    period_us = 2 * shot.tail_us
    starts = [shot.start_us + i * shot.spacing_us for i in range(shot.pulses)]
    return [Shot(start, 1, period_us, shot.tail_us) for start in starts]
