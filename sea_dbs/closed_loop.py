"""Does a policy read its observation? It is shown something else, and what it decides then is played to the plants.

What a policy decides on observations that do not come from the plant can be worked out without the plant. So each test
is a list of decisions; only where they differ from what the seeing policy decided is anything simulated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.controllers.base import Action, Controller, check_observation
from sea_dbs.statistics import interval

CONSTANT = "constant stimulation"
OPEN_LOOP = "open-loop"
CONSTANT_DUTY = 0.95  # share of slots above which a policy is called constant stimulation
MORE_PULSES = 1.05  # a blind policy that needs so many times the pulses has lost something, whatever its reward
SHUFFLE_SEED = 1  # of the order in which the shuffled observations are shown

#: The ways of making a policy blind, and how a table names them.
BLIND = {
    "zeros": "zeros",
    "mean": "its mean",
    "shuffled": "shuffled in time",
    "other": "of another plant",
}

Seen = NDArray[np.float32]


def shown(mode: str, seen: Seen, own: int = 0) -> Seen:
    """What the policy is shown in place of its own observations.

    Args:
        mode: a key of `BLIND`. "mean" is each value's mean over plants and decisions. "shuffled" draws one order of
            the decisions for all plants; "other" gives plant k what plant k + 1 saw.
        seen: (n, steps, n_obs), what it saw.
        own: its first so many values are its own duties: it keeps them, as `decisions_on` has them; 0 stands for them.

    Raises:
        UserError: "other" with a single plant.
    """
    if own:
        sensed = shown(mode, seen[..., own:])
        return np.concatenate([np.zeros_like(seen[..., :own]), sensed], axis=2)
    match mode:
        case "zeros":
            return np.zeros_like(seen)
        case "mean":
            return np.broadcast_to(seen.mean(axis=(0, 1)), seen.shape).copy()
        case "shuffled":
            return seen[:, np.random.default_rng(SHUFFLE_SEED).permutation(seen.shape[1])]
        case _:
            if len(seen) < 2:
                raise UserError("one plant was given: showing a policy another plant's observations needs two or more")
            return np.roll(seen, -1, axis=0)


def decisions_on(policy: Controller, observations: Seen, own: int = 0) -> NDArray[np.int8]:
    """(n, steps, n_obs) of observations -> (n, steps, slots) of what the policy decides on them, in their order.

    ``own``: the first so many values become the duties of its own last decisions: a policy that remembers what it did
    knows that whatever it is shown, and one that only counts its own pulses is no closed loop.
    """
    policy.init_state(len(observations))
    duties = np.zeros((len(observations), own), np.float32)
    decided: list[Action] = []
    for step in range(observations.shape[1]):
        decided.append(policy.act(np.concatenate([duties, observations[:, step, own:]], axis=1)))
        if own:
            duties = np.concatenate([duties[:, 1:], decided[-1].mean(axis=1, keepdims=True, dtype=np.float32)], axis=1)
    return np.stack(decided, axis=1)


class Played:
    """Decisions that are known beforehand, (n, steps, slots), one sequence a plant."""

    def __init__(self, name: str, decisions: NDArray[np.int8]) -> None:
        self.name = name
        self.decisions = decisions
        self.slots = decisions.shape[2]
        self.step = 0

    def init_state(self, n: int = 1) -> None:
        if n != len(self.decisions):
            raise UserError(f"{len(self.decisions)} sequences of decisions were given for {n} plants: one each is due")
        self.step = 0

    def act(self, observation: NDArray[np.float32]) -> Action:
        check_observation(observation, n=len(self.decisions))
        self.step += 1
        return self.decisions[:, self.step - 1]


def label(
    duty: float,
    reward: Sequence[float],
    pulses: Sequence[float],
    blind: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> str:
    """The word for a policy that does not close a loop; empty for one that does.

    Args:
        duty: share of slots stimulated, of those that can be.
        reward: of the seeing policy, a value a plant.
        pulses: of the seeing policy, a value a plant.
        blind: the same two of each way of making it blind, on the same plants.

    Returns:
        "constant stimulation" with a duty above 0.95; "open-loop" unless the policy surely loses something in each
        way: its reward falls (the paired 95 % interval excludes 0), or it needs over 5 % more pulses for what it gets.
        What cannot be shown with the plants at hand counts as nothing lost.
    """
    if duty > CONSTANT_DUTY:
        return CONSTANT
    if not reward:  # no plant is left to compare
        return OPEN_LOOP
    for other_reward, other_pulses in blind:
        bounds = interval(np.asarray(reward, np.float64) - np.asarray(other_reward, np.float64))
        falls = bounds is not None and bounds[0] > 0.0
        if not falls and float(np.mean(other_pulses)) <= MORE_PULSES * float(np.mean(pulses)):
            return OPEN_LOOP
    return ""
