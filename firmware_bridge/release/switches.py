"""Stimulation switched off and on: counted at the electrode, and asked whether an artefact did it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from firmware_bridge.limits import LIMITS

GAP_US = LIMITS["TOGGLE_GAP_US"].value  # µs without a pulse that are a pause, and at least two slots


def toggles(pulses_us: Iterable[int], slot_us: int) -> int:
    """Toggles in a train of pulses, counted as the board counts them: a pause is off and on again, two toggles."""
    gap, count, before = max(GAP_US, 2 * slot_us), 0, None
    for t in pulses_us:
        if before is not None and t - before >= gap:
            count += 2
        before = t
    return count


@dataclass
class Switch:
    """Whether stimulation is on, as decisions follow one another."""

    slot_us: int
    on: bool = False
    since_us: int = 0  # since the last pulse

    def feed(self, mask: Sequence[int]) -> tuple[int, int]:
        """Live through a decision; how often stimulation was switched (on, off) in it."""
        gap, ons, offs = max(GAP_US, 2 * self.slot_us), 0, 0
        for bit in mask:
            if self.on and self.since_us >= gap:
                self.on, offs = False, offs + 1
            if bit:
                ons += not self.on
                self.on, self.since_us = True, 0
            self.since_us += self.slot_us
        return ons, offs

    def driven(self, seen: Sequence[int], clean: Sequence[int]) -> int:
        """Switches in a decision that would not be in the one on the same plant without artefact. Changes nothing."""
        with_it, without = replace(self).feed(seen), replace(self).feed(clean)
        return sum(max(0, a - b) for a, b in zip(with_it, without, strict=True))
