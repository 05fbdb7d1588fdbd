"""Titration: test stimulation first, and what it does to beta decides what a plant gets from then on.

What a clinician does with a patient, as the simplest controller: on this plant the answer to 130 Hz differs between
networks, stays for half a minute, and shows within two seconds (docs/RESULTS.md). All of it is ours.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from envs.errors import UserError
from sea_dbs.controllers.base import Action, Observation, check_observation

PERIOD_S = 1.0  # s from group to group; ours
LEAST_PERIOD_S = 0.5  # s, and above: a board allows 20 on-off cycles in 10 s (safety.md)
RETEST_S = 60.0  # s; ours: a patient changes
MOST_S = 86_400.0  # s; ours: a day
MOST_BETA = 2.0  # P_beta/1000; ours: several times the untreated plant's


class Titration:
    """A pulse in every slot for ``test_s``; whose newest beta then is low keeps them, the others get groups of pulses.

    It reads the newest value of the observation (P_beta/1000), once a test: at the first decision after it. The test is
    repeated every ``retest_s``.

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        test_s: length of the test (s); it ends with a decision.
        keep_below: largest beta (P_beta/1000) at which every slot keeps its pulse.
        group_pulses: pulses of a group, in slots that follow each other; 0: none. Rounded.
        period_s: seconds from group to group, rounded to slots.
        retest_s: seconds from the end of a test to the next one.

    Raises:
        UserError: a time that is not above 0 (a period: not above 0.5 s) or is above a day, ``keep_below`` not from 0
            to 2, or a group of less than no pulse or longer than its period.
    """

    def __init__(
        self,
        slots: int,
        slot_us: int | Fraction,
        test_s: float,
        keep_below: float,
        group_pulses: float,
        period_s: float = PERIOD_S,
        retest_s: float = RETEST_S,
    ) -> None:
        for key, value, least in (
            ("test_s", test_s, 0.0),
            ("period_s", period_s, LEAST_PERIOD_S),
            ("retest_s", retest_s, 0.0),
        ):
            if not least < value <= MOST_S:
                raise UserError(
                    f"titration with {key} = {value:g} was asked for: above {least:g} to {MOST_S:g} s are allowed"
                )
        if not 0.0 <= keep_below <= MOST_BETA:
            raise UserError(
                f"titration with keep_below = {keep_below:g} was asked for: from 0 to {MOST_BETA:g} (P_beta/1000) are "
                "allowed"
            )
        slot_s = float(slot_us) / 1e6
        self.slots = slots
        self.period = max(1, round(period_s / slot_s))  # slots
        if not 0.0 <= group_pulses <= self.period:
            raise UserError(
                f"titration with group_pulses = {group_pulses:g} was asked for: from 0 to the {self.period} slots of "
                f"{period_s:g} s are allowed"
            )
        self.group = round(group_pulses)
        self.test, self.retest = max(1, round(test_s / slot_s)), max(1, round(retest_s / slot_s))  # slots
        self.keep_below = keep_below
        self.name = f"titration {test_s:.3g} s, {keep_below:.3g}, groups of {self.group}"
        self.init_state()

    def init_state(self, n: int = 1) -> None:
        self.keeps = np.zeros(n, np.bool_)  # who answered to the last test
        self.slot = 0  # slots since a test, or what followed it, began
        self.testing = True

    def act(self, observation: Observation) -> Action:
        newest = check_observation(observation, n=len(self.keeps))[:, -1]
        if self.testing and self.slot >= self.test:
            self.keeps = newest <= self.keep_below
            self.testing, self.slot = False, 0
        elif not self.testing and self.slot >= self.retest:
            self.testing, self.slot = True, 0
        in_group = (self.slot + np.arange(self.slots)) % self.period < self.group
        self.slot += self.slots
        return (self.keeps[:, None] | in_group | self.testing).astype(np.int8)
