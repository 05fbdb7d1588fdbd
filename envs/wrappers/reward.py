"""The reward of the paper, as a wrapper."""

from __future__ import annotations

from typing import Literal

import numpy as np

from envs.wrappers.base import Env, Layer, Step

REWARD_GAIN = 10.0  # 1, SEA-DBS paper Eq. 7


def beta_reward(beta: float, threshold: float = 0.35) -> float:
    """Eq. 7 of the SEA-DBS paper: ±((P̄ - b)·10)², positive below the threshold b."""
    distance = (beta - threshold) * REWARD_GAIN
    return distance * distance if beta < threshold else -distance * distance


class BetaThresholdReward(Layer):
    """Replaces the reward by Eq. 7, on the mean of the observation or on its newest value."""

    def __init__(self, env: Env, threshold: float = 0.35, signal: Literal["mean", "newest"] = "mean") -> None:
        super().__init__(env)
        self._threshold, self._signal = threshold, signal

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, _, terminated, truncated, info = step
        beta = float(np.mean(observation)) if self._signal == "mean" else float(observation[-1])
        return observation, beta_reward(beta, self._threshold), terminated, truncated, info
