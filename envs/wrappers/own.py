"""What a device did itself, in front of what it senses."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.errors import UserError
from envs.wrappers.base import Env, Layer, Observation, Start, Step


class OwnDuties(Layer):
    """The observation begins with the duties of the last ``n`` decisions, oldest first: slots that had a pulse.

    A device knows them without noise or delay, so this layer lies outside all sensing. A plant answers to what was
    given for some decisions (P_beta needs two), and a second of beta does not say what that was. Before the first
    decision all are 0. The newest sensed value stays the last one.

    Args:
        env: what is sensed, (n_obs,).
        n: duties, 1 or more; the observation becomes (n + n_obs,).

    Raises:
        UserError: none is to be observed.
    """

    def __init__(self, env: Env, n: int) -> None:
        if n < 1:
            raise UserError(f"{n} own duties are to be observed: allowed are 1 or more")
        super().__init__(env)
        inner = env.observation_space
        assert isinstance(inner, spaces.Box)
        self.observation_space = spaces.Box(0.0, float(inner.high.max()), (n + inner.shape[0],), np.float32)
        self._n = n
        self._duties: deque[float] = deque([0.0] * n, maxlen=n)

    def after_reset(self, observation: Observation, info: dict[str, Any]) -> Start:
        """See `Layer.after_reset`."""
        self._duties.extend([0.0] * self._n)
        return self._seen(observation), info

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, reward, terminated, truncated, info = step
        self._duties.append(float(info["duty"]))
        return self._seen(observation), reward, terminated, truncated, info

    def _seen(self, observation: Observation) -> Observation:
        return np.concatenate([np.asarray(self._duties, np.float32), observation])

    def get_state(self) -> dict[str, Any]:
        """The duties of the last decisions."""
        return {"duties": list(self._duties)}

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self._duties.extend(float(duty) for duty in values["duties"])
