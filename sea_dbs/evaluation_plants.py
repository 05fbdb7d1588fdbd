"""A plant of an evaluation may diverge (docs/plant.md): the others go on, and its row says so."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.plant.batch import NetworkFailedError
from sea_dbs.rollout import Env

Observation = NDArray[np.float32]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class StandsStill(gymnasium.Wrapper[Observation, NDArray[np.int8], Observation, NDArray[np.int8]]):
    """An environment that answers its last step again once its plant has diverged, ``info["diverged"]`` saying why.

    Args:
        env: the environment.
        episode_steps: decisions after which its episode ends, as the others' do.
    """

    def __init__(self, env: Env, episode_steps: int) -> None:
        super().__init__(env)
        self.episode_steps = episode_steps
        self.count, self.diverged = 0, ""
        self._observation: Observation = np.zeros(0, np.float32)
        self._info: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        self.count, self.diverged = 0, ""
        self._observation, self._info = self.env.reset(seed=seed, options=options)
        return self._observation, self._info

    def step(self, action: NDArray[np.int8]) -> Step:
        """See `gymnasium.Env.step`. What a diverged plant would have done is not known: it counts for nothing."""
        self.count += 1
        if not self.diverged:
            try:
                step = self.env.step(action)
            except NetworkFailedError as error:
                self.diverged = str(error)
                nothing = {"pulses": 0, "charge_nC_cm2": 0.0, "duty": 0.0, "diverged": self.diverged}
                self._info = {**self._info, **nothing}
            else:
                self._observation, self._info = step[0], step[4]
                return self._observation, float(step[1]), bool(step[2]), bool(step[3]), self._info
        return self._observation, 0.0, False, self.count >= self.episode_steps, self._info
