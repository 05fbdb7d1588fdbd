"""Delay and noise of the observation."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.wrappers.base import Env, Layer, Observation, Start, Step


class ObservationDelay(Layer):
    """The observation comes some decisions late; the first one is repeated until then."""

    def __init__(self, env: Env, steps: int) -> None:
        if steps < 1:
            raise UserError(f"the delay is {steps} decisions: allowed are 1 or more")
        super().__init__(env)
        self._queue: deque[Observation] = deque(maxlen=steps + 1)

    def after_reset(self, observation: Observation, info: dict[str, Any]) -> Start:
        """See `Layer.after_reset`."""
        self._queue.clear()
        self._queue.append(observation)
        return observation, info

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, reward, terminated, truncated, info = step
        self._queue.append(observation)
        return self._queue[0].copy(), reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """The observations under way."""
        return {"queue": [observation.copy() for observation in self._queue]}

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self._queue.clear()
        self._queue.extend(np.array(observation, dtype=np.float32) for observation in values["queue"])


class SensingNoise(Layer):
    """Adds white noise to each observed value; clipped at 0, since power is not negative. Reward and info stay true."""

    def __init__(self, env: Env, sd: float) -> None:
        if not sd > 0.0:
            raise UserError(f"the noise sd is {sd}: allowed are values above 0")
        super().__init__(env)
        self._sd = sd
        self._rng = np.random.default_rng(0)

    def before_reset(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        """See `Layer.before_reset`; the noise has its own stream, derived from the seed."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, 1])
        return options

    def after_reset(self, observation: Observation, info: dict[str, Any]) -> Start:
        """See `Layer.after_reset`."""
        return self._noisy(observation), info

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, reward, terminated, truncated, info = step
        return self._noisy(observation), reward, terminated, truncated, info

    def _noisy(self, observation: Observation) -> Observation:
        noise = self._rng.normal(0.0, self._sd, observation.shape)
        return np.maximum(observation + noise, 0.0).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        """The state of the noise's generator."""
        return {"rng": self._rng.bit_generator.state}

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self._rng.bit_generator.state = values["rng"]
