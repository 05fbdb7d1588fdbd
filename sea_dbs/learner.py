"""The networks that learn: actor, critic, reward model and the targets, each with what moves it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from sea_dbs.config import TrainConfig
from sea_dbs.descent import Descent, as_vector
from sea_dbs.gumbel import gumbel_softmax, straight_through
from sea_dbs.networks import RecurrentCritic, StateActionNetwork, build_actor
from sea_dbs.trains_actor import TrainsActor, draw_train


class Critics(nn.Module):
    """One critic, or two whose smaller value counts (clipped double Q); -> (critics, n)."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return torch.stack([member(observation, action) for member in self.members])

    def of_each(self, observation: Tensor, actions: Tensor) -> Tensor:
        """The first critic's value of each of k actions: (n, n_obs), (k, slots) -> (n, k)."""
        return cast(StateActionNetwork, self.members[0]).of_each(observation, actions)


class Learner:
    """Actor π, critic Q, reward model f, their targets and optimisers.

    All weights are drawn from ``config.seed`` alone, so that two learners of one config start equal.
    """

    def __init__(self, config: TrainConfig, n_obs: int, slots: int) -> None:
        self.config = config
        own = config.own_duties or 0

        def new_critic() -> nn.Module:
            if config.actor == "recurrent":
                return RecurrentCritic(n_obs, slots, config.hidden)
            return StateActionNetwork(n_obs, slots, config.hidden, own=own)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.actor = build_actor(config.actor, n_obs, slots, own)
            first = new_critic()
            self.reward_model = StateActionNetwork(n_obs, slots, config.hidden, own=own)
            others = [new_critic()] if config.twin_critics else []
        self.critic = Critics([first, *others])
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_descent = Descent(self.actor, config.actor_lr, config.grad_clip)
        self.critic_descent = Descent(self.critic, config.critic_lr, config.grad_clip)
        self.reward_model_descent = Descent(self.reward_model, config.reward_model_lr, config.grad_clip)
        self._slow_actor, self._slow_critic = as_vector(self.target_actor), as_vector(self.target_critic)

    def _parts(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if hasattr(part, "load_state_dict")}

    def state_dict(self) -> dict[str, Any]:
        """Weights of every network and state of every optimiser."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def pulses(self, logits: Tensor, tau: float, generator: torch.Generator) -> Tensor:
        """Binary, differentiable actions (n, slots): Gumbel-Softmax samples; with exploration=epsilon, decisions."""
        if self.config.exploration == "gumbel":
            return gumbel_softmax(logits, tau, generator)
        return straight_through(logits)

    def decisions(self, actor: nn.Module, observation: Tensor, tau: float, generator: torch.Generator) -> Tensor:
        """What an actor does, drawn: binary, differentiable actions (n, slots); of whole trains with actor=trains."""
        if isinstance(actor, TrainsActor):
            return draw_train(actor.scores(observation), tau, generator) @ actor.bank
        return self.pulses(actor(observation), tau, generator)

    @contextmanager
    def frozen_critic(self) -> Iterator[None]:
        """The critic passes a gradient on to the action and gathers none of its own."""
        self.critic.requires_grad_(False)
        try:
            yield
        finally:
            self.critic.requires_grad_(True)

    def follow(self) -> None:
        """One step of the targets: θ' <- (1 - polyak) θ' + polyak θ."""
        self._slow_critic.lerp_(self.critic_descent.vector, self.config.polyak)
        self._slow_actor.lerp_(self.actor_descent.vector, self.config.polyak)
