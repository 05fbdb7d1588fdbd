"""PPO, DQN and QR-DQN (Stable-Baselines3, sb3-contrib) on our environments, observations and rewards.

The network is that of the actor ``compact``: the same trunk as feature extractor, one layer of 64, the head. So a
trained outsider is stored, evaluated and exported as any of our policies. Learning rates and the rest are the library's
own defaults; taken from the run's config are the discount, and for DQN and QR-DQN the replay memory, the batch, the
warm-up, the rewards summed before the target's value (n_step) and how many updates come to an environment step. A run
that was stopped starts from scratch: equal seeds give equal bytes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sea_dbs.baselines.adapter import Lanes
from sea_dbs.config import TrainConfig
from sea_dbs.networks import CompactActor
from sea_dbs.rollout import Transition, Vector
from sea_dbs.runlog import RunLog
from sea_dbs.seeds import stream
from sea_dbs.trainer import env_sizes
from sea_dbs.trunk import CompactTrunk

WIDTH = 64  # of the trunk's output and of the layer after it, as in CompactActor
PPO_STEPS = 128  # decisions of a lane between two updates of PPO, at most; less where an episode is shorter
PPO_BATCH = 64  # the library's own, or the largest size below that divides what was seen


class Trunk(BaseFeaturesExtractor):
    """`CompactTrunk` as a feature extractor."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, WIDTH)
        self.trunk = CompactTrunk(observation_space.shape[0], WIDTH)

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.trunk(observations)
        return features


class _Until(BaseCallback):
    """Stops as soon as the run's environment steps are done."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total

    def _on_step(self) -> bool:
        return self.num_timesteps < self.total


def learn(config: TrainConfig, env: Vector, run: Path, total: int, *, quiet: bool) -> tuple[CompactActor, int, float]:
    """Train from scratch, writing metrics.jsonl; the policy as a compact actor, environment steps, wall seconds.

    Raises:
        UserError: a plant fails, or the metrics cannot be written.
    """
    began, n = time.monotonic(), env.num_envs
    episode = int(config.episode_steps or 1)
    with RunLog(run, 0, total, quiet=quiet) as log:
        done = 0

        def watch(transition: Transition) -> None:
            nonlocal done
            log.write(_lines(transition, done, n, episode))
            done += n

        lanes = Lanes(config, env, config.learner != "ppo", watch)
        model = build(config, lanes, episode)
        model.learn(total, callback=_Until(total))
        log.sync()
    actor = as_compact(config.learner, model, env_sizes(env)[0], lanes.slots)
    return actor, done, time.monotonic() - began


def build(config: TrainConfig, lanes: Lanes, episode: int) -> Any:
    """The library's learner for a run."""
    common: dict[str, Any] = {
        "gamma": config.gamma,
        "seed": stream(config.seed, config.learner) % 2**31,
        "device": "cpu",
        "verbose": 0,
    }
    network: dict[str, Any] = {"features_extractor_class": Trunk, "activation_fn": nn.ReLU, "net_arch": [WIDTH]}
    if config.learner == "ppo":
        steps = min(PPO_STEPS, episode)
        seen = steps * lanes.num_envs
        batch = max(size for size in range(1, min(PPO_BATCH, seen) + 1) if seen % size == 0)  # no batch cut short
        return PPO("MlpPolicy", lanes, n_steps=steps, batch_size=batch, policy_kwargs=network, **common)
    replay: dict[str, Any] = {
        "n_steps": config.n_step,
        "buffer_size": config.buffer_size,
        "batch_size": config.batch_size,
        "learning_starts": config.warmup_steps,
        "train_freq": config.steps_per_update,  # in steps of all lanes, hence as many updates as lanes each time
        "gradient_steps": lanes.num_envs * config.updates_per_step,
    }
    if config.learner == "dqn":
        return DQN("MlpPolicy", lanes, policy_kwargs=network, **replay, **common)
    from sb3_contrib import QRDQN

    return QRDQN("MlpPolicy", lanes, policy_kwargs=network, **replay, **common)


def as_compact(learner: str, model: Any, n_obs: int, slots: int) -> CompactActor:
    """The learner's deterministic policy as a compact actor: the same decisions.

    PPO's head says the log-odds of a pulse in each slot; "no pulse" stands at 0. A value learner's two values are the
    two logits of the one slot; QR-DQN's value is the mean of its quantiles.
    """
    actor = CompactActor(n_obs, slots)
    policy = model.policy
    with torch.no_grad():
        if learner == "ppo":
            trunk, hidden, head = policy.pi_features_extractor, policy.mlp_extractor.policy_net[0], policy.action_net
            weight = torch.stack([torch.zeros_like(head.weight), head.weight], dim=1).flatten(0, 1)
            bias = torch.stack([torch.zeros_like(head.bias), head.bias], dim=1).flatten()
        else:
            net = policy.quantile_net if learner == "qr-dqn" else policy.q_net
            layers = net.quantile_net if learner == "qr-dqn" else net.q_net
            trunk, hidden, head = net.features_extractor, layers[0], layers[2]
            weight, bias = head.weight, head.bias
            if learner == "qr-dqn":  # (quantiles × actions) outputs, the actions of a quantile side by side
                weight = weight.view(net.n_quantiles, 2, -1).mean(dim=0)
                bias = bias.view(net.n_quantiles, 2).mean(dim=0)
        actor.trunk.load_state_dict(trunk.trunk.state_dict())
        actor.hidden[0].load_state_dict(hidden.state_dict())
        actor.head.weight.copy_(weight)
        actor.head.bias.copy_(bias)
    return actor.eval()


def _lines(transition: Transition, done: int, n: int, episode: int) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of one decision of all lanes."""
    decision = done // n
    return [
        {
            "step": done + k + 1,
            "episode": decision // episode * n + k,
            "env": k,
            "episode_step": decision % episode + 1,
            "P_beta": float(info["P_beta"]),
            "P_beta_last": float(info["P_beta_last"]),
            "reward": float(transition.reward[k]),
            "duty": float(info["duty"]),
            "pulses": int(info["pulses"]),
            "charge_nC_cm2": float(info["charge_nC_cm2"]),
            "redrawn": bool(info.get("redrawn")),  # its plant diverged: the values are the new one's, at rest
        }
        for k, info in enumerate(transition.infos)
    ]
