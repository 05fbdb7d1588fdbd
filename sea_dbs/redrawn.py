"""Environments for training that go on when a plant diverges (docs/RESULTS.md, "A plant that diverges")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.vector import BasalGangliaVectorEnv
from envs.wrappers.base import Step

REDRAWS = 5  # networks drawn one after the other, ours: that they all diverge while they settle is a defect


class RedrawnVectorEnv(BasalGangliaVectorEnv):
    """A vector environment in which a lane whose network diverges gets a new one, drawn by the lane's own generator.

    Its episode goes on as long as the others', as if the patient had been exchanged: the step in which that happens
    has the reward of the step before (nothing better is known; 0 in a first step), its next observation is the new
    plant's first, and ``info["redrawn"]`` names the failure (a warning too). Without it one divergence in some hours of
    irregular stimulation ends a training. Not for evaluation, where every plant counts.

    Args:
        num_envs, preset, overrides: as of `BasalGangliaVectorEnv`.
    """

    def __init__(self, num_envs: int, preset: str, **overrides: Any) -> None:
        super().__init__(num_envs, preset, **overrides)
        self._count = [0] * num_envs  # steps of each lane's episode, whichever networks it had
        self._reward = [0.0] * num_envs  # of each lane's last step

    def _reset(
        self, lanes: list[int], seeds: Sequence[int | None], options: Sequence[dict[str, Any]]
    ) -> dict[int, dict[str, Any]]:
        infos = super()._reset(lanes, seeds, options)
        for i in lanes:
            self._count[i], self._reward[i] = 0, 0.0
        return infos

    def _step(self, lanes: list[int], actions: NDArray[np.int8]) -> dict[int, Step]:
        steps = super()._step(lanes, actions)
        for i in lanes:
            self._count[i] += 1
            observation, reward, terminated, _, info = steps[i]
            if i in self._failures:
                info = self._redraw(i)
                observation, reward = self._observations[i].copy(), self._reward[i]
            self._reward[i] = float(reward)
            truncated = self._count[i] >= self.config.episode_steps
            steps[i] = observation, reward, terminated, truncated, {**info, "step": self._count[i]}
        return steps

    def _redraw(self, i: int) -> dict[str, Any]:
        """Give a lane another network; its info, which keeps the failure if several in a row diverge."""
        failure = str(self._failures[i])
        for _ in range(REDRAWS):
            infos = super()._reset([i], [None] * self.num_envs, [{} for _ in range(self.num_envs)])
            if i not in self._failures:
                return {**infos[i], "redrawn": failure}
        return infos[i]

    def get_state(self) -> dict[str, Any]:
        """See `BasalGangliaVectorEnv.get_state`."""
        return {**super().get_state(), "count": list(self._count), "reward": list(self._reward)}

    def set_state(self, values: dict[str, Any]) -> None:
        """See `BasalGangliaVectorEnv.set_state`."""
        super().set_state(values)
        self._count = [int(count) for count in values["count"]]
        self._reward = [float(reward) for reward in values["reward"]]
