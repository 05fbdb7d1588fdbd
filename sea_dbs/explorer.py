"""How a learner acts while it learns: random warm-up, then Gumbel-Softmax samples (or epsilon-greedy decisions)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sea_dbs.config import TrainConfig
from sea_dbs.controllers import Action, Observation, check_observation
from sea_dbs.gumbel import gumbel_softmax, straight_through, temperature
from sea_dbs.networks import state_size
from sea_dbs.seeds import stream
from sea_dbs.trains_actor import TrainsActor, draw_train


class Explorer:
    """A controller whose decisions are random; ``t`` (environment steps so far) is set by the training loop."""

    def __init__(self, config: TrainConfig, actor: torch.nn.Module, slots: int) -> None:
        self.name = "exploration"
        self.config = config
        self.actor = actor
        self.slots = slots
        self.t = 0
        self.generator = torch.Generator().manual_seed(stream(config.seed, "exploration"))
        self.n = 1
        self.duty = torch.zeros(1, 1)  # the warm-up's drawn duties, (n, 1); with actor=trains each stands for a train
        self.held = 0  # decisions for which they still hold
        self.state = torch.zeros(1, state_size(actor))  # of a recurrent actor, before the next decision
        self.before = self.state  # and before the last one

    def init_state(self, n: int = 1) -> None:
        self.n = n
        self.held = 0
        self.state = self.before = torch.zeros(n, self.state.shape[1])

    def tau(self) -> float:
        """Temperature τ(t), Eq. 14."""
        return temperature(self.t, self.config.tau_0, self.config.tau_min, self.config.tau_lambda)

    def epsilon(self) -> float:
        """Chance that a slot is drawn at random, with exploration=epsilon; the schedule has Eq. 14's form."""
        return temperature(self.t, self.config.epsilon_0, self.config.epsilon_min, self.config.epsilon_lambda)

    def act(self, observation: Observation) -> Action:
        checked = check_observation(observation, n=self.n)
        warm = self.t < self.config.warmup_steps
        with torch.no_grad():
            logits = torch.zeros(0)
            if self.state.shape[1]:  # remembers the warm-up too
                self.before = self.state
                logits, self.state = self.actor(torch.from_numpy(checked), self.state)
            elif not warm and isinstance(self.actor, TrainsActor):
                logits = self.actor.scores(torch.from_numpy(checked))
            elif not warm:
                logits = self.actor(torch.from_numpy(checked))
            action = self._warmup() if warm else self._explore(logits)
        return action.numpy().astype(np.int8)

    def _warmup(self) -> torch.Tensor:
        if self.config.warmup_actions == "bernoulli":
            return torch.rand((self.n, self.slots), generator=self.generator) < 0.5
        if self.held == 0:
            self.duty = torch.rand((self.n, 1), generator=self.generator)
            self.held = self.config.warmup_hold_steps
        self.held -= 1
        if isinstance(self.actor, TrainsActor):
            return self.actor.bank[(self.duty[:, 0] * len(self.actor.bank)).long()]
        return torch.rand((self.n, self.slots), generator=self.generator) < self.duty

    def _explore(self, logits: torch.Tensor) -> torch.Tensor:
        if isinstance(self.actor, TrainsActor):
            return draw_train(logits, self.tau(), self.generator) @ self.actor.bank
        if self.config.exploration == "gumbel":
            return gumbel_softmax(logits, self.tau(), self.generator)
        greedy = straight_through(logits) > 0.5
        random = torch.rand(greedy.shape, generator=self.generator) < 0.5
        replaced = torch.rand(greedy.shape, generator=self.generator) < self.epsilon()
        return torch.where(replaced, random, greedy)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the actor, which the learner keeps."""
        return {
            "generator": self.generator.get_state(),
            "n": self.n,
            "duty": self.duty,
            "held": self.held,
            "state": self.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.generator.set_state(state["generator"])
        self.n = state["n"]
        self.duty = state["duty"]
        self.held = state["held"]
        self.state = self.before = state["state"]
