"""The trained actor as a controller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.controllers.base import Action, Observation, check_observation, decide
from sea_dbs.extras import need

if TYPE_CHECKING:
    import torch


class TorchPolicy:
    """The trained actor, from a run folder. Deterministic: the larger logit decides.

    Attributes:
        module: the actor, (n, n_obs) -> (n, slots, 2), in evaluation mode; a recurrent one takes and returns its state.
        spec: what ``policy.pt`` says of itself: actor, n_obs, slots, preset, step, config.
    """

    def __init__(self, module: torch.nn.Module, spec: dict[str, Any], name: str = "policy") -> None:
        self.name = name
        self.module = module.eval()
        self.spec = spec
        self.n_obs: int = spec["n_obs"]
        self.slots: int = spec["slots"]
        self.n = 1
        self._state: torch.Tensor | None = None  # of a recurrent actor; None stands for zeros

    @classmethod
    def load(cls, run: Path) -> TorchPolicy:
        """Read ``policy.pt`` of a run folder.

        Raises:
            UserError: the extra 'train' is not installed, or the file is missing, truncated or of another format.
        """
        need("train", "torch")
        from sea_dbs.checkpoint import read_policy

        module, spec = read_policy(run)
        return cls(module, spec)

    def init_state(self, n: int = 1) -> None:
        self.n = n
        self._state = None

    def logits(self, observation: Observation) -> NDArray[np.float32]:
        """(n, n_obs) -> (n, slots, 2). One call is one decision: a recurrent actor's state advances.

        Raises:
            UserError: a wrong observation, or logits that are not finite.
        """
        import torch

        from sea_dbs.networks import state_size

        checked = check_observation(observation, n_obs=self.n_obs)
        with torch.no_grad():
            given = torch.from_numpy(checked)
            if size := state_size(self.module):
                check_observation(observation, n=self.n)
                state = torch.zeros(self.n, size) if self._state is None else self._state
                answer, self._state = self.module(given, state)
            else:
                answer = self.module(given)
            logits: NDArray[np.float32] = answer.numpy()
        if logits.shape != (len(checked), self.slots, 2) or not np.isfinite(logits).all():
            raise UserError(
                f"the actor answered with shape {logits.shape} (finite: {bool(np.isfinite(logits).all())}) "
                f"where finite logits of shape {(len(checked), self.slots, 2)} are expected"
            )
        return logits

    def act(self, observation: Observation) -> Action:
        return decide(self.logits(check_observation(observation, n=self.n)))
