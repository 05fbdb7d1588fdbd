"""The reward of the paper, as a wrapper."""

from __future__ import annotations

from typing import Literal

import numpy as np

from envs.basal_ganglia import BasalGangliaEnv
from envs.wrappers.base import Env, Layer, Step

REWARD_GAIN = 10.0  # 1, SEA-DBS paper Eq. 7
PRICED_HZ = 130.0  # Hz, continuous stimulation at which a decision costs the whole energy price


def beta_reward(beta: float, threshold: float = 0.35) -> float:
    """Eq. 7 of the SEA-DBS paper: ±((P̄ - b)·10)², positive below the threshold b."""
    distance = (beta - threshold) * REWARD_GAIN
    return distance * distance if beta < threshold else -distance * distance


class BetaThresholdReward(Layer):
    """Replaces the reward by Eq. 7, on the mean of P_beta/1000 of the observed windows or on its newest value.

    Eq. 7 always sees the GPi's P_beta; where the observation is something else (``obs="lfp"``, ``view="slots"``) it is
    taken from the environment. With ``energy_price`` the reward is Eq. 7 less the price times the pulses given, as a
    share of those of continuous 130 Hz.
    """

    def __init__(
        self,
        env: Env,
        threshold: float = 0.35,
        signal: Literal["mean", "newest"] = "mean",
        energy_price: float = 0.0,
        decision_ms: float = 1000.0,
    ) -> None:
        super().__init__(env)
        self._threshold, self._signal = threshold, signal
        base = env.unwrapped
        self._base: BasalGangliaEnv | None = None  # None: the observation is P_beta/1000 itself
        if isinstance(base, BasalGangliaEnv) and (base.config.obs, base.config.view) != ("gpi", "trace"):
            self._base = base
        self._pulse_price = energy_price * 1000.0 / (PRICED_HZ * decision_ms)

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, _, terminated, truncated, info = step
        seen = observation if self._base is None else self._base.beta
        beta = float(np.mean(seen)) if self._signal == "mean" else float(seen[-1])
        reward = beta_reward(beta, self._threshold)
        if self._pulse_price:
            reward -= self._pulse_price * info["pulses"]
        return observation, reward, terminated, truncated, info
