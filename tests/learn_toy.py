"""A small environment with the real one's spaces, info and state, for tests of the algorithm alone.

Its beta has the settled levels that the real network shows by duty (0.436 untreated, 0.433 at half, 0.293 at every
slot) and rises for alternating slots (0.557 for every other); a decision blends the last two. As a program it trains
into a folder, so that a test can kill it: ``python tests/learn_toy.py RUN SLEEP_MS KEY=VALUE...``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from sea_dbs.config import TrainConfig


class ToyEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.int8]]):
    """Beta as a noisy function of the last two decisions."""

    def __init__(self, config: TrainConfig, sleep_ms: float = 0.0) -> None:
        assert config.n_obs is not None
        assert config.slots is not None
        self.config = config
        self.sleep_ms = sleep_ms
        self.observation_space = spaces.Box(0.0, np.inf, (config.n_obs,), np.float32)
        self.action_space = spaces.MultiBinary(config.slots)
        self.levels = np.zeros(2)
        self.offset = 0.0
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.offset = self.np_random.normal(0.0, 0.015)
        self.levels = np.full(2, 0.436)
        self.count = 0
        return self._info(np.zeros(1))

    def step(self, action: NDArray[np.int8]) -> Any:
        time.sleep(self.sleep_ms / 1000.0)
        self.levels = np.array([self.levels[1], level(action)])
        self.count += 1
        observation, info = self._info(action)
        distance = 10.0 * (float(observation.mean()) - (self.config.beta_threshold or 0.0))
        reward = -distance * abs(distance)
        return observation, reward, False, self.count >= (self.config.episode_steps or 0), info

    def _info(self, action: NDArray[Any]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        trace = np.linspace(*self.levels, self.config.n_obs or 0) + self.offset + self.np_random.normal(0.0, 0.015)
        pulses = int(action.sum())
        info = {
            "P_beta": 1000.0 * float(trace.mean()),
            "P_beta_last": 1000.0 * float(trace[-1]),
            "pulses": pulses,
            "charge_nC_cm2": 90.0 * pulses,
            "duty": pulses / action.size,
        }
        return trace.astype(np.float32), info

    def get_state(self) -> dict[str, Any]:
        return {
            "rng": self.np_random.bit_generator.state,
            "levels": self.levels.copy(),
            "offset": self.offset,
            "count": self.count,
        }

    def set_state(self, values: dict[str, Any]) -> None:
        self.np_random = np.random.Generator(np.random.PCG64())
        self.np_random.bit_generator.state = values["rng"]
        self.levels, self.offset, self.count = values["levels"], values["offset"], values["count"]


class ToyVector(SyncVectorEnv):
    """Some of them in lockstep, with the state of the real vector environment."""

    def __init__(self, envs: list[ToyEnv]) -> None:
        super().__init__([lambda env=env: env for env in envs], autoreset_mode=AutoresetMode.DISABLED)  # type: ignore[misc]

    def get_state(self) -> dict[str, Any]:
        return {"lanes": [env.get_state() for env in self.envs]}  # type: ignore[attr-defined]

    def set_state(self, values: dict[str, Any]) -> None:
        self._autoreset_envs[:] = False
        for env, one in zip(self.envs, values["lanes"], strict=True):
            env.set_state(one)  # type: ignore[attr-defined]


def toy_vector(config: TrainConfig, n: int, kind: type[ToyEnv] = ToyEnv, **options: Any) -> ToyVector:
    return ToyVector([kind(config, **options) for _ in range(n)])


def level(action: NDArray[Any]) -> float:
    """Settled beta of a repeated decision (P_beta/1000)."""
    base = float(np.interp(action.mean(), [0.0, 0.5, 0.75, 1.0], [0.436, 0.433, 0.39, 0.293]))
    changes = float(np.mean(action[1:] != action[:-1])) if action.size > 1 else 0.0
    return base + 0.25 * max(0.0, changes - 0.5)


def main() -> None:
    from sea_dbs.config import load_config
    from sea_dbs.train import train

    run, sleep_ms, *settings = sys.argv[1:]
    config = load_config("paper", settings)
    train(
        config, Path(run), resume=True, quiet=True, env_factory=lambda c, n: toy_vector(c, n, sleep_ms=float(sleep_ms))
    )


if __name__ == "__main__":
    main()
