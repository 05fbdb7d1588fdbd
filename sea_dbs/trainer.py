"""A training run between two environment steps, and everything that the rest of it depends on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from envs.registration import get_env_state, set_env_state
from sea_dbs.config import TrainConfig
from sea_dbs.explorer import Explorer
from sea_dbs.replay import Replay
from sea_dbs.rollout import Env, Start, Transition, rollout
from sea_dbs.seeds import stream, training_seed
from sea_dbs.update import Learner, Losses, update


class Trainer:
    """A run between two environment steps: learner, replay memory, explorer, generators, environments.

    Episode e runs in environment e mod n; the last round may use fewer environments.
    """

    def __init__(self, config: TrainConfig, environments: Sequence[Env]) -> None:
        self.config = config
        self.envs = environments
        n_obs, slots = env_sizes(environments[0])
        self.n_obs, self.slots = n_obs, slots
        self.episode_steps = int(config.episode_steps or 0)
        self.learner = Learner(config, n_obs, slots)
        self.replay = Replay(config.buffer_size, n_obs, slots)
        self.explorer = Explorer(config, self.learner.actor, slots)
        self.generator = torch.Generator().manual_seed(stream(config.seed, "update"))
        self.t = 0  # environment steps done
        self.round = 0  # rounds of n episodes done
        self.round_step = 0  # decisions done in this round
        self.start: Start | None = None  # where the environments stand within a round; None between rounds
        self.wall_s = 0.0

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole run."""
        return self.config.episodes * self.episode_steps

    def active(self) -> int:
        """Environments that run an episode in this round."""
        return min(len(self.envs), self.config.episodes - self.round * len(self.envs))

    def steps(self) -> Iterator[tuple[Transition, Losses | None]]:
        """Run to the end; yields each lockstep transition with the losses of its last update (None in the warm-up)."""
        clock = time.monotonic()
        while self.active() > 0:
            first = self.round * len(self.envs)
            seeds = [training_seed(self.config.seed, first + k) for k in range(self.active())]
            decisions = self.episode_steps - self.round_step
            for transition in rollout(self.envs[: len(seeds)], self.explorer, decisions, seeds, start=self.start):
                self.replay.add(transition)
                losses = self._learn(len(seeds))
                self.round_step += 1
                self.start = Start(transition.next_observation, transition.infos)
                if transition.truncated.all():
                    self.round, self.round_step, self.start = self.round + 1, 0, None
                self.wall_s += time.monotonic() - clock
                clock = time.monotonic()
                yield transition, losses
                if self.start is None:
                    break

    def _learn(self, new_steps: int) -> Losses | None:
        """One update (``updates_per_step``) for each new environment step."""
        losses = None
        for _ in range(new_steps):
            self.t += 1
            self.explorer.t = self.t
            if self.t <= self.config.warmup_steps:
                continue
            for _ in range(self.config.updates_per_step):
                batch = self.replay.sample(self.config.batch_size, self.generator)
                losses = update(self.learner, batch, self.explorer.tau(), self.generator)
        return losses

    def spec(self) -> dict[str, Any]:
        """What ``policy.pt`` says of the actor in it."""
        return {
            "actor": self.config.actor,
            "n_obs": self.n_obs,
            "slots": self.slots,
            "preset": self.config.preset,
            "step": self.t,
            "config": self.config.model_dump(mode="json"),
            "config_sha256": self.config.sha256(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "config_sha256": self.config.sha256(),
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "explorer": self.explorer.state_dict(),
            "generator": self.generator.get_state(),
            "envs": [get_env_state(env) for env in self.envs] if self.start is not None else [],
            "observation": self.start.observation if self.start is not None else None,
            "t": self.t,
            "round": self.round,
            "round_step": self.round_step,
            "wall_s": self.wall_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.explorer.load_state_dict(state["explorer"])
        self.generator.set_state(state["generator"])
        self.t, self.round, self.round_step = state["t"], state["round"], state["round_step"]
        self.explorer.t = self.t
        self.wall_s = state["wall_s"]
        if state["observation"] is not None:
            for env, one in zip(self.envs, state["envs"], strict=True):
                set_env_state(env, one)
            self.start = Start(state["observation"], ())


def env_sizes(env: Env) -> tuple[int, int]:
    """(n_obs, slots) of an environment."""
    return int((env.observation_space.shape or (0,))[0]), int((env.action_space.shape or (0,))[0])


def metrics_lines(trainer: Trainer, transition: Transition, losses: Losses | None) -> list[dict[str, Any]]:
    """One line an environment step of a lockstep transition: the lines of metrics.jsonl."""
    n = len(transition.reward)
    learnt = asdict(losses) if losses is not None else dict.fromkeys(Losses.__dataclass_fields__)
    first = trainer.t - n
    # The trainer stands after the transition: at an episode's end, in the next round.
    round_ = trainer.round if trainer.start is not None else trainer.round - 1
    return [
        {
            "step": first + k + 1,
            "episode": round_ * len(trainer.envs) + k,
            "env": k,
            "episode_step": trainer.round_step or trainer.episode_steps,
            "P_beta": float(info["P_beta"]),
            "P_beta_last": float(info["P_beta_last"]),
            "reward": float(transition.reward[k]),
            "duty": float(info["duty"]),
            "pulses": int(info["pulses"]),
            "charge_nC_cm2": float(info["charge_nC_cm2"]),
            "tau": trainer.explorer.tau(),
            **{f"loss_{key}" if key != "q" else key: value for key, value in learnt.items()},
        }
        for k, info in enumerate(transition.infos)
    ]
