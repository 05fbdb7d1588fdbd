"""Types that all wrappers share, and the wrapper as what it does before and after."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.plant.ranges import check_seed

Observation = NDArray[np.float32]
Action = NDArray[np.int8]
Env = gymnasium.Env[Observation, Action]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]
Start = tuple[Observation, dict[str, Any]]


class Layer(gymnasium.Wrapper[Observation, Action, Observation, Action]):
    """A wrapper given by what it does before and after its environment's reset and step.

    So the same code serves one environment and, in `envs.vector`, the lanes of a batch, which are all prepared, then
    advanced together, then finished. Each of the four methods may be overridden; alone they change nothing.
    """

    def before_reset(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        """Prepare an episode; returns the options that the inner environment gets."""
        del seed
        return options

    def after_reset(self, observation: Observation, info: dict[str, Any]) -> Start:
        """What this layer makes of the inner environment's first observation."""
        return observation, info

    def before_step(self) -> None:
        """Prepare a decision."""

    def after_step(self, step: Step) -> Step:
        """What this layer makes of the inner environment's step."""
        return step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Start:
        """See `gymnasium.Env.reset`."""
        options = self.before_reset(check_seed(seed, "the seed"), dict(options or {}))
        return self.after_reset(*self.env.reset(seed=seed, options=options))

    def step(self, action: Action) -> Step:
        """See `gymnasium.Env.step`."""
        self.before_step()
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self.after_step((observation, float(reward), bool(terminated), bool(truncated), info))
