"""Our vector environment as Stable-Baselines3's: same lanes, same plant seeds, same episodes as any of our learners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from envs.errors import UserError
from sea_dbs.config import TrainConfig
from sea_dbs.rollout import Info, Transition, Vector, begin, rollout
from sea_dbs.seeds import training_seed

Watch = Callable[[Transition], None]


class Lanes(VecEnv):
    """n environments whose episodes begin together; an episode's end is a time limit, not a terminal state.

    Args:
        config: of the run; its seed gives each episode its plant.
        env: n environments, autoreset mode "Disabled".
        discrete: the one slot's decision is a number 0 or 1, for learners of values.
        watch: is shown each decision of all lanes.
    """

    def __init__(self, config: TrainConfig, env: Vector, discrete: bool, watch: Watch) -> None:
        slots = int((env.single_action_space.shape or (0,))[0])
        action: spaces.Space[Any] = spaces.Discrete(2) if discrete else spaces.MultiBinary(slots)
        super().__init__(env.num_envs, env.single_observation_space, action)
        self.config, self.env, self.watch, self.slots = config, env, watch, slots
        self.round = 0
        self.name: str = config.learner
        self._action: NDArray[np.int8] = np.zeros((env.num_envs, slots), np.int8)
        self._started: Any = None
        self._steps: Any = None

    def init_state(self, n: int = 1) -> None:
        """As a controller of the one rollout loop, which asks for the decision that the learner has just made."""
        del n

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.int8]:
        """The decision of all lanes."""
        del observation
        return self._action

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every lane."""
        first = self.round * self.num_envs
        seeds = [training_seed(self.config.seed, first + k) for k in range(self.num_envs)]
        start = begin(self.env, seeds)
        self._steps = rollout(self.env, self, int(self.config.episode_steps or 0), start=start)
        self.round += 1
        return start.observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the learner's decisions."""
        self._action = np.asarray(actions).reshape(self.num_envs, self.slots).astype(np.int8)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[Info]]:
        """Apply them; at an episode's end the next one has begun."""
        transition: Transition = next(self._steps)
        self.watch(transition)
        infos = [dict(info) for info in transition.infos]
        observation = transition.next_observation
        if transition.truncated.all():
            for k, info in enumerate(infos):
                info |= {"TimeLimit.truncated": True, "terminal_observation": transition.next_observation[k]}
            observation = self.reset()
        return observation, transition.reward, transition.truncated, infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """What Stable-Baselines3 asks for: the render mode, which is none."""
        del attr_name, indices
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: lanes have nothing to set."""
        raise UserError(f"'{attr_name}' was to be set in the lanes of a training: they have nothing to set")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refused: lanes have no methods of their own."""
        raise UserError(f"'{method_name}' was called in the lanes of a training: they have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Lanes are not wrapped."""
        return [False] * self.num_envs

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Plants have the run's seeds, whatever is asked for."""
        return [None] * self.num_envs
