"""The reward of the paper, as a wrapper."""

from __future__ import annotations

from typing import Literal

import gymnasium
import numpy as np

from envs.wrappers.base import Action, Env, Observation, Step

REWARD_GAIN = 10.0  # 1, SEA-DBS paper Eq. 7


def beta_reward(beta: float, threshold: float = 0.35) -> float:
    """Eq. 7 of the SEA-DBS paper: ±((P̄ - b)·10)², positive below the threshold b."""
    distance = (beta - threshold) * REWARD_GAIN
    return distance * distance if beta < threshold else -distance * distance


class BetaThresholdReward(gymnasium.Wrapper[Observation, Action, Observation, Action]):
    """Replaces the reward by Eq. 7, on the mean of the observation or on its newest value."""

    def __init__(self, env: Env, threshold: float = 0.35, signal: Literal["mean", "newest"] = "mean") -> None:
        super().__init__(env)
        self._threshold, self._signal = threshold, signal

    def step(self, action: Action) -> Step:
        """See `gymnasium.Env.step`."""
        observation, _, terminated, truncated, info = self.env.step(action)
        beta = float(np.mean(observation)) if self._signal == "mean" else float(observation[-1])
        return observation, beta_reward(beta, self._threshold), bool(terminated), bool(truncated), info
