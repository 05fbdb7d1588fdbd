"""The pulse trains that ``actor=trains`` chooses from for each decision (`sea_dbs.trains_actor`). All ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError


class Train(NamedTuple):
    """A pulse in each of the first ``on`` slots of every ``period``."""

    name: str  # in slots of 130 Hz
    period: int  # slots
    on: int  # slots


# No pulse; the regular trains of 130 Hz slots that lower beta, and groups at a fifth of 130 Hz's pulses, which lower it
# too where the regular train of that rate raises it (docs/RESULTS.md). In 130 slots "43-hz" gives 44 pulses: the last
# is followed at once by the first of the next decision. A policy knows them by their place: read_policy compares.
TRAINS = (
    Train("none", 1, 0),
    Train("130-hz", 1, 1),
    Train("65-hz", 2, 1),
    Train("43-hz", 3, 1),
    Train("groups-26-hz", 65, 13),
)
# One longer group a second in place of two. A board counts a long pause as an on-off cycle and allows 20 in 10 s,
# which two groups a second pass (docs/RESULTS.md).
ONE_GROUP = (*TRAINS[:-1], Train("group-16-hz", 130, 16))
BANKS = {"trains": TRAINS, "trains-flat": ONE_GROUP}  # an actor's name -> what it chooses from


def masks(slots: int, trains: Sequence[Train] = TRAINS) -> NDArray[np.bool_]:
    """Whether a train has a pulse in a slot, (trains, slots).

    Raises:
        UserError: a decision too short for the longest period.
    """
    if slots < (least := min_slots(trains)):
        raise UserError(f"these trains last up to {least} slots: slots={slots} of a decision are too few")
    place = np.arange(slots)
    return np.stack([place % train.period < train.on for train in trains])


def min_slots(trains: Sequence[Train] = TRAINS) -> int:
    """Slots that a decision needs for a whole period of each train."""
    return max(train.period for train in trains)


def definition(trains: Sequence[Train] = TRAINS) -> list[list[int]]:
    """Periods and pulses of the trains in their order: what a policy's scores stand for."""
    return [[train.period, train.on] for train in trains]
