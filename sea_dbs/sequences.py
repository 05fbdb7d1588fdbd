"""Learning with memory: replay of sequences with stored state and burn-in (R2D2, Kapturowski 2019), and their update.

The actor's state as it was when the sequence was seen stands at its begin; the first ``burn_in`` decisions only bring
it up to date with the weights of today, the ``unroll`` decisions after them are learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from sea_dbs.config import TrainConfig
from sea_dbs.learner import Learner
from sea_dbs.networks import RecurrentActor, RecurrentCritic
from sea_dbs.rollout import Transition
from sea_dbs.update import Losses, critic_target, entropy_bonus

COLUMNS = ("observation", "action", "before", "reward", "state", "episode", "lanes")


@dataclass(frozen=True)
class Sequences:
    """m sequences of t = burn_in + unroll decisions."""

    observation: Tensor  # (m, t + 1, n_obs): what follows the last decision too
    action: Tensor  # (m, t, slots) float32 0/1
    before: Tensor  # (m, t + 1, slots): the decision before each, 0 at an episode's begin
    reward: Tensor  # (m, t)
    state: Tensor  # (m, state_size), the actor's before the first decision
    burn_in: int


class SequenceReplay:
    """A ring of the last decisions of all environments, in order.

    A row is a decision of each of n environments; one row more an episode holds what followed its last decision.
    """

    def __init__(self, config: TrainConfig, n: int, n_obs: int, slots: int, state_size: int) -> None:
        self.unroll = min(config.unroll, config.episode_steps or 1)
        self.burn_in = min(config.burn_in, (config.episode_steps or 1) - self.unroll)
        self.rows = rows = max(config.buffer_size // n, self.unroll + self.burn_in + 1)
        self.observation = torch.zeros(rows, n, n_obs)
        self.action, self.before = torch.zeros(2, rows, n, slots, dtype=torch.int8)
        self.reward = torch.zeros(rows, n)
        self.state = torch.zeros(rows, n, state_size)
        self.episode = torch.zeros(rows, dtype=torch.int64)  # round of a row
        self.lanes = torch.zeros(rows, dtype=torch.int64)  # environments of a row; the last round has fewer
        self.count = 0  # rows ever written
        self.round = 0

    def add(self, transition: Transition, memory: Tensor) -> None:
        """Store one decision of every environment; ``memory`` (n, state_size) is the actor's before it."""
        n = len(transition.reward)
        at = self._next(transition.observation, n)
        self.action[at, :n] = torch.from_numpy(transition.action)
        self.reward[at, :n] = torch.from_numpy(transition.reward)
        self.state[at, :n] = memory
        if transition.truncated.all():
            self._next(transition.next_observation, n)
            self.round += 1

    def _next(self, observation: Any, n: int) -> int:
        """Begin a row; its place."""
        at, last = self.count % self.rows, (self.count - 1) % self.rows
        begins = self.count == 0 or int(self.episode[last]) != self.round
        self.before[at] = 0 if begins else self.action[last]
        self.observation[at, :n] = torch.from_numpy(observation)
        self.episode[at], self.lanes[at] = self.round, n
        self.count += 1
        return at

    def sample(self, m: int, generator: torch.Generator) -> Sequences | None:
        """Sequences of together about ``m`` decisions to learn from, two at least; None while none is long enough."""
        t = self.burn_in + self.unroll
        filled = min(self.count, self.rows)
        order = (torch.arange(filled) + (self.count - filled)) % self.rows  # oldest first
        episode = self.episode[order]
        starts = torch.nonzero(episode[: max(filled - t, 0)] == episode[t:]).squeeze(1)
        if not len(starts):
            return None
        m = max(2, m // self.unroll)
        start = starts[torch.randint(len(starts), (m,), generator=generator)]
        lane = (torch.rand(m, generator=generator) * self.lanes[order[start]]).long()
        row = order[start[:, None] + torch.arange(t + 1)]
        column = lane[:, None]
        return Sequences(
            self.observation[row, column],
            self.action[row[:, :-1], column].float(),
            self.before[row, column].float(),
            self.reward[row[:, :-1], column],
            self.state[row[:, 0], lane],
            self.burn_in,
        )

    def state_dict(self) -> dict[str, Any]:
        """What is stored so far."""
        filled = slice(0, min(self.count, self.rows))
        stored = {name: getattr(self, name)[filled].clone() for name in COLUMNS}
        return {**stored, "count": self.count, "round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.count, self.round = state["count"], state["round"]
        filled = slice(0, min(self.count, self.rows))
        for name in COLUMNS:
            getattr(self, name)[filled] = state[name]


def update_sequences(learner: Learner, batch: Sequences, tau: float, generator: torch.Generator) -> Losses:
    """`sea_dbs.update.update` for a recurrent actor and critic; the reward model sees one decision as before."""
    config, k = learner.config, batch.burn_in
    actor, target_actor = cast(RecurrentActor, learner.actor), cast(RecurrentActor, learner.target_actor)
    s, a, r = (value.flatten(0, 1) for value in (batch.observation[:, k:-1], batch.action[:, k:], batch.reward[:, k:]))
    s_next = batch.observation[:, k + 1 :].flatten(0, 1)

    # Reward model, Eqs. 8 and 10.
    reward_loss = torch.zeros(())
    if config.critic_target != "none":
        reward_loss = mse_loss(learner.reward_model(s, a), r)
        learner.reward_model_descent.step(reward_loss)

    # Critic, Eq. 9: target networks remember the whole sequence.
    with torch.no_grad():
        logits, _ = target_actor.unroll(batch.observation, batch.state)
        a_next = learner.pulses(logits[:, k + 1 :].flatten(0, 1), tau, generator)
        values = []
        for member in learner.target_critic.members:
            memory = cast(RecurrentCritic, member).memory(batch.observation, batch.before, k)[:, 1:]
            values.append(member(s_next, a_next, memory.flatten(0, 1)))
        r_hat = learner.reward_model(s, a) if config.critic_target != "none" else r
        target = critic_target(config.critic_target, r, r_hat, config.gamma, torch.stack(values).amin(dim=0))
    critic_loss, q, memories = torch.zeros(()), torch.zeros(()), []
    for member in learner.critic.members:
        memory = cast(RecurrentCritic, member).memory(batch.observation[:, :-1], batch.before[:, :-1], k).flatten(0, 1)
        q = member(s, a, memory)
        critic_loss = critic_loss + mse_loss(q, target)
        memories.append(memory)
    learner.critic_descent.step(critic_loss)

    # Actor: uphill on the first critic's Q, through its decisions of the unrolled part.
    with torch.no_grad():
        state = actor.unroll(batch.observation[:, :k], batch.state)[1] if k else batch.state
    with learner.frozen_critic():
        logits = actor.unroll(batch.observation[:, k:-1], state)[0].flatten(0, 1)
        pulses = learner.pulses(logits, tau, generator)
        actor_loss = -learner.critic.members[0](s, pulses, memories[0].detach()).mean()
        learner.actor_descent.step(actor_loss - entropy_bonus(config.entropy, logits))

    learner.follow()
    return Losses(reward_loss.item(), critic_loss.item(), actor_loss.item(), q.mean().item())
