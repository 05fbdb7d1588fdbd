"""When the slots of a decision begin, and which of its pulses are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.plant.inputs import round_half_up

Ints = NDArray[np.int64]


def slot_edges(config: EnvConfig, first: int, n: int) -> Ints:
    """Samples from the end of the reset at which slots ``first`` .. ``first + n`` begin, in real-time phase.

    At 130 Hz and 0.02 ms slots are 384 or 385 samples long, and the k-th begins at round(k · 1000/130/0.02).
    """
    at = np.arange(first, first + n + 1) * config.slot_ms / config.dt_ms
    return np.asarray(np.floor(at + 0.5), dtype=np.int64)  # `round_half_up` of each


def slot_samples(config: EnvConfig, decision: int) -> list[int]:
    """First sample of each slot of a decision (counted from 0), from its start, and its length as the last value."""
    c = config
    if c.mode == "reference":
        n = round(c.decision_ms / c.dt_ms) + 1  # the released code's extra sample
        gap = round_half_up(n / c.slots)
        width = round(c.width_ms / c.dt_ms)
        slots = [j * gap for j in range(c.slots)]
        slots[-1] = min(slots[-1], n - width - 1)  # the released code moves a late last pulse
        return [*slots, n]
    edges = slot_edges(c, decision * c.slots, c.slots)  # slots keep their phase in real time
    return [int(edge - edges[0]) for edge in edges]


def spaced(config: EnvConfig, mask: NDArray[np.int8], decision: int, last: int | None) -> NDArray[np.int8]:
    """The mask of a decision without the pulses that follow another by less than ``gap_slots``.

    Args:
        config: of the environment.
        mask: (slots,), 1 = pulse.
        decision: its number, from 0.
        last: slot of the last pulse before it, counted from the first slot of the episode; None: there is none.
    """
    if config.gap_slots == 1:
        return mask
    first = decision * config.slots
    given = mask.copy()
    for place in np.flatnonzero(mask):
        slot = first + int(place)
        if last is not None and slot - last < config.gap_slots:
            given[place] = 0
        else:
            last = slot
    return given
