"""A training run between two environment steps, and everything that the rest of it depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from envs.errors import UserError
from sea_dbs.config import TrainConfig
from sea_dbs.explorer import Explorer
from sea_dbs.learner import Learner
from sea_dbs.pulse_trains import BANKS, definition
from sea_dbs.replay import Replay
from sea_dbs.rollout import Start, Transition, Vector, rollout
from sea_dbs.seeds import stream, training_seed
from sea_dbs.sequences import SequenceReplay, update_sequences
from sea_dbs.update import Losses, update

MakeVector = Callable[[TrainConfig, int], Vector]


class Trainer:
    """A run between two environment steps: learner, replay memory, explorer, generators, environments.

    Episode e runs in lane e mod n; the last round may use fewer lanes.

    Args:
        config: of the run.
        make_vector: makes the environments, whose lanes are reset by the trainer alone.
    """

    def __init__(self, config: TrainConfig, make_vector: MakeVector) -> None:
        self.config = config
        self.make_vector = make_vector
        self.n_envs = min(config.n_envs, config.episodes)
        self.env = make_vector(config, self.n_envs)
        self.n_obs, self.slots = n_obs, slots = env_sizes(self.env)
        self.episode_steps = int(config.episode_steps or 0)
        self.learner = Learner(config, n_obs, slots)
        self.explorer = Explorer(config, self.learner.actor, slots)
        self.replay: Replay | SequenceReplay
        if config.actor == "recurrent":
            self.replay = SequenceReplay(config, self.n_envs, n_obs, slots, self.explorer.state.shape[1])
        else:
            self.replay = Replay(config.buffer_size, n_obs, slots, config.gamma, config.n_step, config.priority)
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
        return min(self.n_envs, self.config.episodes - self.round * self.n_envs)

    def _lanes(self) -> Vector:
        """The environments of this round."""
        if self.env.num_envs != self.active():
            self.env = self.make_vector(self.config, self.active())
        return self.env

    def steps(self) -> Iterator[tuple[Transition, Losses | None]]:
        """Run to the end; yields each lockstep transition with the losses of its last update (None if none was due)."""
        clock = time.monotonic()
        while self.active() > 0:
            first = self.round * self.n_envs
            seeds = [training_seed(self.config.seed, first + k) for k in range(self.active())]
            decisions = self.episode_steps - self.round_step
            for transition in rollout(self._lanes(), self.explorer, decisions, seeds, start=self.start):
                self.replay.add(transition, self.explorer.before)
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
        """One update (``updates_per_step``) for each new environment step, or for each ``steps_per_update`` of them."""
        losses = None
        for _ in range(new_steps):
            self.t += 1
            self.explorer.t = self.t
            if self.t <= self.config.warmup_steps or self.t % self.config.steps_per_update:
                continue
            for _ in range(self.config.updates_per_step):
                losses = self._update() or losses
        return losses

    def _update(self) -> Losses | None:
        if isinstance(self.replay, SequenceReplay):
            sequences = self.replay.sample(self.config.batch_size, self.generator)
            if sequences is None:  # no episode is long enough yet
                return None
            return update_sequences(self.learner, sequences, self.explorer.tau(), self.generator)
        if not self.replay.size:  # n rewards have not been seen yet
            return None
        batch = self.replay.sample(self.config.batch_size, self.generator)
        losses, error = update(self.learner, batch, self.explorer.tau(), self.generator)
        self.replay.learnt(batch, error)
        return losses

    def spec(self) -> dict[str, Any]:
        """What ``policy.pt`` says of the actor in it."""
        return policy_spec(self.config, self.n_obs, self.slots, self.t)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "config_sha256": self.config.sha256(),
            "trains": definition(BANKS[self.config.actor]) if self.config.actor in BANKS else [],
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "explorer": self.explorer.state_dict(),
            "generator": self.generator.get_state(),
            "env": self._lanes().get_state() if self.start is not None else None,  # type: ignore[attr-defined]
            "observation": self.start.observation if self.start is not None else None,
            "t": self.t,
            "round": self.round,
            "round_step": self.round_step,
            "wall_s": self.wall_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            UserError: it learnt to choose among other trains.
        """
        if self.config.actor in BANKS and state.get("trains", known := definition(BANKS[self.config.actor])) != known:
            raise UserError(f"this run chooses among the trains {state['trains']}: this version has {known}")
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.explorer.load_state_dict(state["explorer"])
        self.generator.set_state(state["generator"])
        self.t, self.round, self.round_step = state["t"], state["round"], state["round_step"]
        self.explorer.t = self.t
        self.wall_s = state["wall_s"]
        if state["observation"] is not None:
            self._lanes().set_state(state["env"])  # type: ignore[attr-defined]
            self.start = Start(state["observation"], ())


def policy_spec(config: TrainConfig, n_obs: int, slots: int, step: int) -> dict[str, Any]:
    """What ``policy.pt`` says of the actor in it, after ``step`` environment steps."""
    return {
        "actor": config.actor,
        "n_obs": n_obs,
        "slots": slots,
        "preset": config.preset,
        "step": step,
        "config": config.model_dump(mode="json"),
        "config_sha256": config.sha256(),
        **({"trains": definition(BANKS[config.actor])} if config.actor in BANKS else {}),
        **({"own_duties": config.own_duties} if config.own_duties else {}),
    }


def env_sizes(env: Vector) -> tuple[int, int]:
    """(n_obs, slots) of a vector environment's lanes."""
    return int((env.single_observation_space.shape or (0,))[0]), int((env.single_action_space.shape or (0,))[0])


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
            "episode": round_ * trainer.n_envs + k,
            "env": k,
            "episode_step": trainer.round_step or trainer.episode_steps,
            "P_beta": float(info["P_beta"]),
            "P_beta_last": float(info["P_beta_last"]),
            "reward": float(transition.reward[k]),
            "duty": float(info["duty"]),
            "pulses": int(info["pulses"]),
            "charge_nC_cm2": float(info["charge_nC_cm2"]),
            "redrawn": bool(info.get("redrawn")),  # its plant diverged: the values are the new one's, at rest
            "tau": trainer.explorer.tau(),
            **{f"loss_{key}" if key != "q" else key: value for key, value in learnt.items()},
        }
        for k, info in enumerate(transition.infos)
    ]
