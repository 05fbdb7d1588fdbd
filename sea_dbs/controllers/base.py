"""The one interface of everything that decides on pulses, and the checks that all share."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

Observation = NDArray[np.float32]
Action = NDArray[np.int8]


@runtime_checkable
class Controller(Protocol):
    """Decides for ``n`` parallel environments at once."""

    name: str

    def init_state(self, n: int = 1) -> None:
        """Forget everything; ``n`` environments follow."""

    def act(self, observation: Observation) -> Action:
        """(n, n_obs) of P_beta/1000 -> (n, slots) of 0 and 1.

        Raises:
            UserError: wrong shape, or a value that is not finite.
        """


@runtime_checkable
class SetsAmplitude(Protocol):
    """A controller that also says how strong the pulses of its last decision are, where recruitment is graded."""

    amplitude_uA_cm2: NDArray[np.float64]  # (n,), in the plant


@runtime_checkable
class Policy(Controller, Protocol):
    """A controller that decides by the larger of two logits a slot."""

    def logits(self, observation: Observation) -> NDArray[np.float32]:
        """(n, n_obs) -> (n, slots, 2); index 1 of the last axis is "pulse"."""


def decide(logits: NDArray[np.float32]) -> Action:
    """(n, slots, 2) -> (n, slots): 1 where the pulse's logit is the larger; a tie is no pulse."""
    return (logits[..., 1] > logits[..., 0]).astype(np.int8)


def check_observation(observation: NDArray[Any], n: int | None = None, n_obs: int | None = None) -> Observation:
    """The observation as float32 (n, n_obs).

    Raises:
        UserError: another shape, a type that is not a float, or NaN or infinity in it.
    """
    array = np.asarray(observation)
    wanted = f"({'n' if n is None else n}, {'n_obs' if n_obs is None else n_obs})"
    if array.ndim != 2 or (n is not None and array.shape[0] != n) or (n_obs is not None and array.shape[1] != n_obs):
        raise UserError(f"an observation of shape {array.shape} was given to a controller that takes {wanted}")
    if array.dtype.kind != "f":
        raise UserError(f"an observation of type {array.dtype} was given: it must be float32 values of P_beta/1000")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise UserError(f"the observation holds {array[place]} at index {place}: every value must be finite")
    return np.ascontiguousarray(array, dtype=np.float32)
