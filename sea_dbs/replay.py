"""Replay memory: the last ``capacity`` transitions, sampled uniformly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sea_dbs.rollout import Transition


@dataclass(frozen=True)
class Batch:
    """(m, n_obs), (m, slots) as float32 0/1, (m,), (m, n_obs)."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor


class Replay:
    """A ring of transitions. An episode's end is a time limit, not a terminal state, so no end is stored."""

    def __init__(self, capacity: int, n_obs: int, slots: int) -> None:
        self.capacity = capacity
        self.observation = torch.zeros(capacity, n_obs)
        self.action = torch.zeros(capacity, slots, dtype=torch.int8)
        self.reward = torch.zeros(capacity)
        self.next_observation = torch.zeros(capacity, n_obs)
        self.position = 0  # where the next transition goes
        self.size = 0

    def add(self, transition: Transition) -> None:
        """Store one decision of every environment, in their order."""
        n = len(transition.reward)
        where = (self.position + torch.arange(n)) % self.capacity
        self.observation[where] = torch.from_numpy(transition.observation)
        self.action[where] = torch.from_numpy(transition.action)
        self.reward[where] = torch.from_numpy(transition.reward)
        self.next_observation[where] = torch.from_numpy(transition.next_observation)
        self.position = (self.position + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def sample(self, m: int, generator: torch.Generator) -> Batch:
        """``m`` stored transitions, drawn with replacement."""
        index = torch.randint(self.size, (m,), generator=generator)
        return Batch(
            self.observation[index], self.action[index].float(), self.reward[index], self.next_observation[index]
        )

    def state_dict(self) -> dict[str, Any]:
        """What is stored so far; the empty part of the ring is left out."""
        filled = slice(0, self.size)
        return {
            "observation": self.observation[filled].clone(),
            "action": self.action[filled].clone(),
            "reward": self.reward[filled].clone(),
            "next_observation": self.next_observation[filled].clone(),
            "position": self.position,
            "size": self.size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        filled = slice(0, state["size"])
        self.observation[filled] = state["observation"]
        self.action[filled] = state["action"]
        self.reward[filled] = state["reward"]
        self.next_observation[filled] = state["next_observation"]
        self.position = state["position"]
        self.size = state["size"]
