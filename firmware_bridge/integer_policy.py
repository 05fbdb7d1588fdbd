"""The policy of a board, on the host: the same integers, and what to check a board's decisions against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.integer import IntegerModel, quantise, step
from firmware_bridge.observation import decide_integer
from sea_dbs.controllers import Action, Observation, check_observation

FORMATS = ("int8", "fp32", "fp16")
INTEGER = "integer.npz"


class IntegerPolicy:
    """A controller that decides in the board's own integers.

    Args:
        model: from an export's integer.npz.
    """

    def __init__(self, model: IntegerModel) -> None:
        self.name = "policy-int8"
        self.model = model
        self.n = 1
        self.last: tuple[NDArray[np.int8], NDArray[np.int32]] | None = None  # observation, logits of the last decision
        self._state: NDArray[np.int16] | None = None

    @classmethod
    def of_export(cls, folder: Path) -> IntegerPolicy:
        """The integer model of an export folder.

        Raises:
            UserError: the export holds none, or it is damaged.
        """
        if not (folder / INTEGER).is_file():
            raise UserError(
                f"{folder} holds no {INTEGER}: export the run again with --precisions fp32,fp16,int8 --targets c"
            )
        return cls(IntegerModel.load(folder / INTEGER))

    def init_state(self, n: int = 1) -> None:
        """Forget everything, as a board does at ARM."""
        self.n, self._state, self.last = n, None, None

    def quantise(self, observation: Observation) -> NDArray[np.int8]:
        """(n, n_obs) of P_beta/1000 -> int8 at the policy's input scale.

        Raises:
            UserError: wrong shape, or a value that is not finite.
        """
        return quantise(self.model, check_observation(observation, n_obs=self.model.n_obs))

    def infer(self, values: NDArray[np.int8]) -> NDArray[np.int32]:
        """(n, n_obs) int8 -> logits (n, slots, 2) int32; a recurrent state advances."""
        logits, self._state = step(self.model, values, self._state)
        self.last = (values, logits)
        return logits

    def what_if(self, observation: Observation) -> Action:
        """What it would decide on this now: (n, n_obs) float32 -> (n, slots) int8. Its state stays as it is.

        Raises:
            UserError: as `quantise`.
        """
        return decide_integer(step(self.model, self.quantise(observation), self._state)[0])

    def act(self, observation: Observation) -> Action:
        """(n, n_obs) float32 -> (n, slots) int8.

        Raises:
            UserError: as `quantise`.
        """
        return decide_integer(self.infer(self.quantise(check_observation(observation, n=self.n))))


def check_format(folder: Path, precision: str | None) -> str:
    """The format in which a board is to hold an export's policy: ``--precision``, int8 where nothing is said.

    Raises:
        UserError: no such format, or the export holds no C source of it.
    """
    wanted = precision or "int8"
    if wanted not in FORMATS:
        raise UserError(f"--precision is '{wanted}': a board that decides holds {', '.join(FORMATS)}")
    source = folder / "c" / wanted / "sea_policy.c"
    if not source.is_file():
        raise UserError(
            f"{folder} holds no C source of {wanted} (c/{wanted}/sea_policy.c), so that no board can decide by it: "
            "export the run again with --precisions fp32,fp16,int8 --targets c"
        )
    return wanted
