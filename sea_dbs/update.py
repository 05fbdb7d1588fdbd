"""The learning step of SEA-DBS (arXiv 2507.06326, its Algorithm): `update` reads top to bottom like the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, mse_loss, softmax

from sea_dbs.learner import Learner
from sea_dbs.replay import Batch
from sea_dbs.trains_actor import TrainsActor, draw_train


@dataclass(frozen=True)
class Losses:
    """What one update measured, before it changed the weights."""

    reward_model: float  # mean (r - r̂)², Eq. 10; 0 where no reward model is used
    critic: float  # mean (target - Q)²
    actor: float  # -mean Q(s, GS(π(s)))
    q: float  # mean Q(s, a) of the batch


def update(learner: Learner, batch: Batch, tau: float, generator: torch.Generator) -> tuple[Losses, Tensor]:
    """One gradient step of the reward model, the critic and the actor, and one step of the targets.

    Args:
        learner: changed in place.
        batch: transitions from the replay memory.
        tau: temperature τ(t) of the Gumbel-Softmax samples.
        generator: source of their noise.

    Returns:
        What was measured, and each transition's |target - Q| (m,), for prioritised replay.
    """
    config = learner.config
    s, a, r, s_next = batch.observation, batch.action, batch.reward, batch.next_observation

    # Reward model, Eqs. 8 and 10: r̂ = f(s, a), trained on mean (r - r̂)².
    reward_loss = torch.zeros(())
    if config.critic_target != "none":
        reward_loss = mse_loss(learner.reward_model(s, a), r)
        learner.reward_model_descent.step(reward_loss)

    # Critic, Eq. 9: towards the reward, as seen and as predicted, and the target networks' value of what follows.
    with torch.no_grad():
        a_next = learner.decisions(learner.target_actor, s_next, tau, generator)
        q_next = learner.target_critic(s_next, a_next).amin(dim=0)
        r_hat = learner.reward_model(s, a) if config.critic_target != "none" else r
        # With n-step returns the rewards in between come on top, and Q' counts γⁿ.
        target = critic_target(config.critic_target, r, r_hat, 1.0, batch.later + batch.discount * q_next)
    q = learner.critic(s, a)
    critic_loss = (batch.weight * (q - target) ** 2).mean(dim=1).sum()
    learner.critic_descent.step(critic_loss)

    # Actor: uphill on Q(s, GS(π(s))), the gradient passing straight through the binary samples (Eqs. 11-13).
    with learner.frozen_critic():
        value, logits = actor_value(learner, s, tau, generator)
        actor_loss = -value.mean()
        learner.actor_descent.step(actor_loss - entropy_bonus(config.entropy, logits))

    learner.follow()
    q = q.detach()[0]
    return Losses(reward_loss.item(), critic_loss.item(), actor_loss.item(), q.mean().item()), (target - q).abs()


def actor_value(learner: Learner, s: Tensor, tau: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Q(s, GS(π(s))), differentiable in the actor (n,), and the logits (n, slots, 2) or scores (n, trains) behind it.

    With ``actor_gradient=expected`` it is the mean of Q over all trains, each with its chance: no sample, and no
    straight line through Q from a train that was drawn to one that was not.
    """
    actor = learner.actor
    if not isinstance(actor, TrainsActor):
        logits = actor(s)
        return learner.critic(s, learner.pulses(logits, tau, generator))[0], logits
    scores = actor.scores(s)
    if learner.config.actor_gradient == "straight-through":
        return learner.critic(s, draw_train(scores, tau, generator) @ actor.bank)[0], scores
    with torch.no_grad():
        q = learner.critic.of_each(s, actor.bank)
    return (softmax(scores, dim=-1) * q).sum(dim=1), scores


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


def entropy_bonus(weight: float, logits: Tensor) -> Tensor:
    """Mean entropy of a decision on a slot or a train (nats) times ``weight``: keeps an actor from saturation."""
    if weight == 0.0:
        return torch.zeros(())
    log = log_softmax(logits, dim=-1)
    return weight * -(log.exp() * log).sum(dim=-1).mean()
