"""A vector environment for tests of the searches: beta falls with the rate of pulses, more where they are grouped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig


class ToyVector:
    """Beta = 440 (untreated) less 2 a Hz and 60 × the share of pulses that follow a pulse; seeds shift it."""

    made = 0  # environments, over all

    def __init__(self, config: EnvConfig, lanes: int) -> None:
        type(self).made += 1
        self.config = config
        self.lanes = lanes
        self.seeds: list[int] = []
        self.offset = np.zeros(lanes)

    def reset(
        self, *, seed: list[int], options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self.seeds = seed
        self.offset = np.array([np.random.default_rng(one).normal(0.0, 5.0) for one in seed])
        return self._observed(440.0 + self.offset), {}

    def step(self, actions: NDArray[np.int8]) -> tuple[Any, ...]:
        assert actions.shape == (self.lanes, self.config.slots)
        assert actions.dtype == np.int8
        hz = actions.sum(axis=1) / self.config.decision_ms * 1000.0
        follows = (actions * np.roll(actions, 1, axis=1)).sum(axis=1) / np.maximum(actions.sum(axis=1), 1)
        beta = 440.0 + self.offset - 2.0 * hz - 60.0 * follows
        none = np.zeros(self.lanes)
        pulses = actions.sum(axis=1)
        info = {"P_beta": beta, "pulses": pulses, "charge_nC_cm2": 90.0 * pulses}
        reward = -beta / 1000.0 - 3.0 * pulses / self.config.slots
        return self._observed(beta), reward, none, none, info

    def _observed(self, beta: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.repeat(beta[:, None] / 1000.0, self.config.n_obs, axis=1).astype(np.float32)
