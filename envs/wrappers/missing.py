"""Missing samples: observed values that never arrive, and what stands in for them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.wrappers.base import Env, Layer, Observation, Start, Step

Bools = NDArray[np.bool_]


class LossProcess:
    """Which values are lost: two states, so that losses come in runs (Gilbert 1960).

    Args:
        share: share of values that is lost in the long run.
        run: mean length of a run of losses, in values; None for independent losses.

    Raises:
        UserError: a share outside 0..0.95, or runs too short for the share.
    """

    def __init__(self, share: float, run: float | None = None) -> None:
        if not 0.0 < share <= 0.95:
            raise UserError(f"the share of missing samples is {share}: allowed are above 0 to 0.95")
        shortest = 1.0 / (1.0 - share)  # the mean run of independent losses
        run = shortest if run is None else run
        self.p_recover = 1.0 / run
        self.p_lose = share / (1.0 - share) / run
        if run < 1.0 or self.p_lose > 1.0:
            low = max(1.0, share / (1.0 - share))
            raise UserError(
                f"runs of {run:g} missing samples cannot make up a share of {share:g}: allowed from {low:g}"
            )
        self.share = share

    def draw(self, rng: np.random.Generator, n: int, lost: bool) -> Bools:
        """The next ``n`` values: True = lost; ``lost`` is the state of the value before them."""
        out = np.empty(n, dtype=np.bool_)
        for i, u in enumerate(rng.random(n)):
            lost = bool(u >= self.p_recover) if lost else bool(u < self.p_lose)
            out[i] = lost
        return out


def fill_missing(values: Observation, lost: Bools, before: float, how: Literal["hold", "interpolate"]) -> Observation:
    """Lost values replaced; never NaN.

    hold: the last value received, ``before`` at the start. interpolate: a straight line between the neighbours that
    were received; after the last one it holds, since the future is not known.
    """
    if not lost.any():
        return values
    index = np.arange(len(values))
    if how == "hold":
        latest = np.maximum.accumulate(np.where(lost, -1, index))
        return np.where(latest >= 0, values[latest], before).astype(np.float32)
    known = np.concatenate([[-1], index[~lost]])
    line = np.interp(index, known, np.concatenate([[before], values[~lost]]))
    return np.asarray(line, dtype=np.float32)


class MissingSamples(Layer):
    """Observed values get lost on their way; they are replaced (`fill_missing`) and counted. Reward stays true.

    A value that was lost once stays lost in later observations that still hold it. info gains "missing" (new values
    lost in this step) and "episode_missing".

    Args:
        env: the environment.
        share: share of values lost.
        new_values: observed values that are new in each step; the others are those of the step before, shifted.
        run: mean run of losses in values; None for independent losses.
        how: hold or interpolate.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        env: Env,
        share: float,
        new_values: int,
        run: float | None = None,
        how: Literal["hold", "interpolate"] = "hold",
    ) -> None:
        super().__init__(env)
        self._losses, self._how = LossProcess(share, run), how
        shape = env.observation_space.shape or (0,)
        if not 1 <= new_values <= shape[0]:
            raise UserError(f"{new_values} new values in an observation of {shape[0]}: allowed are 1 to {shape[0]}")
        self._new = new_values
        self._rng = np.random.default_rng(0)
        self._lost: Bools = np.zeros(shape[0], dtype=np.bool_)
        self._before = 0.0  # last value received before the observation
        self._missing = 0

    def before_reset(self, seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
        """See `Layer.before_reset`; the losses have their own stream, derived from the seed."""
        if seed is not None:
            self._rng = np.random.default_rng([seed, 2])
        return options

    def after_reset(self, observation: Observation, info: dict[str, Any]) -> Start:
        """See `Layer.after_reset`."""
        start = bool(self._rng.random() < self._losses.share)
        self._lost = self._losses.draw(self._rng, len(observation), start)
        self._lost[0] = False  # something must have arrived
        self._before = float(observation[0])
        self._missing = int(self._lost.sum())
        return self._filled(observation), self._counted(info, self._missing)

    def after_step(self, step: Step) -> Step:
        """See `Layer.after_step`."""
        observation, reward, terminated, truncated, info = step
        new = self._losses.draw(self._rng, self._new, bool(self._lost[-1]))
        self._missing += int(new.sum())
        self._lost = np.concatenate([self._lost[self._new :], new])
        filled = self._filled(observation)
        return filled, reward, terminated, truncated, self._counted(info, int(new.sum()))

    def _filled(self, observation: Observation) -> Observation:
        filled = fill_missing(observation, self._lost, self._before, self._how)
        # What the next observation holds before its first value: the newest received of those that leave.
        leaving = np.flatnonzero(~self._lost[: self._new])
        if len(leaving):
            self._before = float(observation[leaving[-1]])
        return filled

    def _counted(self, info: dict[str, Any], new: int) -> dict[str, Any]:
        return {**info, "missing": new, "episode_missing": self._missing}

    def get_state(self) -> dict[str, Any]:
        """What was lost of the newest observation, the count, and the generator."""
        return {
            "lost": self._lost.copy(),
            "before": self._before,
            "missing": self._missing,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`."""
        self._lost = np.array(values["lost"], dtype=np.bool_)
        self._before, self._missing = float(values["before"]), int(values["missing"])
        self._rng.bit_generator.state = values["rng"]
