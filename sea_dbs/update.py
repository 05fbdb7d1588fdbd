"""The learning step of SEA-DBS (arXiv 2507.06326, its Algorithm): `update` reads top to bottom like the paper."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sea_dbs.config import TrainConfig
from sea_dbs.gumbel import gumbel_softmax, straight_through
from sea_dbs.networks import StateActionNetwork, build_actor
from sea_dbs.replay import Batch


@dataclass(frozen=True)
class Losses:
    """What one update measured, before it changed the weights."""

    reward_model: float  # mean (r - r̂)², Eq. 10; 0 where no reward model is used
    critic: float  # mean (target - Q)²
    actor: float  # -mean Q(s, GS(π(s)))
    q: float  # mean Q(s, a) of the batch


class Learner:
    """Actor π, critic Q, reward model f, their targets and optimisers.

    All weights are drawn from ``config.seed`` alone, so that two learners of one config start equal.
    """

    def __init__(self, config: TrainConfig, n_obs: int, slots: int) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.actor = build_actor(config.actor, n_obs, slots)
            self.critic = StateActionNetwork(n_obs, slots, config.hidden)
            self.reward_model = StateActionNetwork(n_obs, slots, config.hidden)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.actor_lr)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=config.critic_lr)
        self.reward_model_optimiser = torch.optim.Adam(self.reward_model.parameters(), lr=config.reward_model_lr)

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


def update(learner: Learner, batch: Batch, tau: float, generator: torch.Generator) -> Losses:
    """One gradient step of the reward model, the critic and the actor, and one step of the targets.

    Args:
        learner: changed in place.
        batch: transitions from the replay memory.
        tau: temperature τ(t) of the Gumbel-Softmax samples.
        generator: source of their noise.
    """
    config = learner.config
    s, a, r, s_next = batch.observation, batch.action, batch.reward, batch.next_observation

    # Reward model, Eqs. 8 and 10: r̂ = f(s, a), trained on mean (r - r̂)².
    reward_loss = torch.zeros(())
    if config.critic_target != "none":
        reward_loss = mse_loss(learner.reward_model(s, a), r)
        _descend(reward_loss, learner.reward_model, learner.reward_model_optimiser, config.grad_clip)

    # Critic, Eq. 9: towards the reward, as seen and as predicted, and the target networks' value of what follows.
    with torch.no_grad():
        a_next = learner.pulses(learner.target_actor(s_next), tau, generator)
        q_next = learner.target_critic(s_next, a_next)
        r_hat = learner.reward_model(s, a)
        target = critic_target(config.critic_target, r, r_hat, config.gamma, q_next)
    q = learner.critic(s, a)
    critic_loss = mse_loss(q, target)
    _descend(critic_loss, learner.critic, learner.critic_optimiser, config.grad_clip)

    # Actor: uphill on Q(s, GS(π(s))), the gradient passing straight through the binary samples (Eqs. 11-13).
    actor_loss = -learner.critic(s, learner.pulses(learner.actor(s), tau, generator)).mean()
    _descend(actor_loss, learner.actor, learner.actor_optimiser, config.grad_clip)

    # Targets: θ' <- (1 - polyak) θ' + polyak θ.
    _follow(learner.target_critic, learner.critic, config.polyak)
    _follow(learner.target_actor, learner.actor, config.polyak)
    return Losses(reward_loss.item(), critic_loss.item(), actor_loss.item(), q.mean().item())


def critic_target(option: str, r: Tensor, r_hat: Tensor, gamma: float, q_next: Tensor) -> Tensor:
    """What Q(s, a) is trained towards.

    ``printed``: r + r̂ + γQ', Eq. 9 as the paper prints it, which counts the reward about twice;
    ``mean``: ½(r + r̂) + γQ', the same idea at the reward's own scale; ``none``: r + γQ', without a reward model.
    """
    if option == "printed":
        return r + r_hat + gamma * q_next
    if option == "mean":
        return 0.5 * (r + r_hat) + gamma * q_next
    return r + gamma * q_next


def _descend(loss: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer, grad_clip: float) -> None:
    # set_to_none also drops what the actor's loss left in the critic.
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), grad_clip)
    optimiser.step()


def _follow(target: nn.Module, network: nn.Module, polyak: float) -> None:
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, polyak)
