"""Replay memory: the last ``capacity`` transitions, sampled uniformly, or by how wrong the critic was (Schaul 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sea_dbs.rollout import Transition

CORRECTION = 0.5  # exponent of the importance weights of prioritised replay; Schaul 2016 anneals 0.4 to 1
COLUMNS = ("observation", "action", "reward", "later", "discount", "next_observation", "priority")


@dataclass(frozen=True)
class Batch:
    """(m, n_obs), (m, slots) as float32 0/1, and (m,) each; the next observation follows n decisions later."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    discount: Tensor  # γⁿ, less than n steps before an episode's end
    later: Tensor | float = 0.0  # the discounted rewards after the first
    weight: Tensor | float = 1.0  # in the critic's loss, for prioritised replay
    index: Tensor | None = None  # where in the memory


class Replay:
    """A ring of transitions. An episode's end is a time limit, not a terminal state, so no end is stored.

    Args:
        capacity: transitions kept.
        n_obs: values of an observation.
        slots: of an action.
        gamma: discount.
        n_step: rewards summed before the next observation; all environments end their episodes together.
        priority: exponent of the priorities; 0 samples uniformly.
    """

    def __init__(
        self, capacity: int, n_obs: int, slots: int, gamma: float, n_step: int = 1, priority: float = 0.0
    ) -> None:
        self.capacity, self.gamma, self.n_step, self.alpha = capacity, gamma, n_step, priority
        self.observation = torch.zeros(capacity, n_obs)
        self.action = torch.zeros(capacity, slots, dtype=torch.int8)
        self.reward, self.later, self.discount, self.priority = torch.zeros(4, capacity)
        self.next_observation = torch.zeros(capacity, n_obs)
        self.position = 0  # where the next transition goes
        self.size = 0
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # decisions whose n rewards are not all seen yet

    def add(self, transition: Transition, memory: Tensor | None = None) -> None:
        """Store one decision of every environment, in their order."""
        del memory
        seen = transition.observation, transition.action, transition.reward
        self.waiting.append(tuple(torch.from_numpy(value) for value in seen))  # type: ignore[arg-type]
        following = torch.from_numpy(transition.next_observation)
        while len(self.waiting) >= self.n_step or (self.waiting and transition.truncated.all()):
            self._store(following)

    def _store(self, following: Tensor) -> None:
        """The oldest waiting decision, with the rewards up to now."""
        observation, action, reward = self.waiting[0]
        n = len(reward)
        later = sum((self.gamma**k * self.waiting[k][2] for k in range(1, len(self.waiting))), torch.zeros(n))
        where = (self.position + torch.arange(n)) % self.capacity
        self.observation[where] = observation
        self.action[where] = action
        self.reward[where] = reward
        self.later[where] = later
        self.discount[where] = self.gamma ** len(self.waiting)
        self.next_observation[where] = following
        self.priority[where] = max(1.0, float(self.priority.max())) if self.alpha else 1.0  # seen at least once
        self.position = (self.position + n) % self.capacity
        self.size = min(self.size + n, self.capacity)
        del self.waiting[0]

    def sample(self, m: int, generator: torch.Generator) -> Batch:
        """``m`` stored transitions, drawn with replacement."""
        weight: Tensor | float = 1.0
        if self.alpha:
            chance = self.priority[: self.size] ** self.alpha
            index = torch.multinomial(chance, m, replacement=True, generator=generator)
            inverse = chance[index] ** -CORRECTION
            weight = inverse / inverse.max()
        else:
            index = torch.randint(self.size, (m,), generator=generator)
        return Batch(
            self.observation[index],
            self.action[index].float(),
            self.reward[index],
            self.next_observation[index],
            self.discount[index],
            self.later[index],
            weight,
            index,
        )

    def learnt(self, batch: Batch, error: Tensor) -> None:
        """Take in how wrong the critic was, |target - Q| of each transition of a batch."""
        if self.alpha and batch.index is not None:
            self.priority[batch.index] = error + 1e-3  # nothing is never drawn again

    def state_dict(self) -> dict[str, Any]:
        """What is stored so far; the empty part of the ring is left out."""
        filled = slice(0, self.size)
        stored = {name: getattr(self, name)[filled].clone() for name in COLUMNS}
        return {**stored, "position": self.position, "size": self.size, "waiting": list(self.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        filled = slice(0, state["size"])
        for name in COLUMNS:
            getattr(self, name)[filled] = state[name]
        self.position, self.size = state["position"], state["size"]
        self.waiting = [tuple(one) for one in state["waiting"]]
