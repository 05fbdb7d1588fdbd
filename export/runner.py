"""An ONNX session as a function from observations to logits, carrying a recurrent policy's state."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.controllers import Action, check_observation, decide
from sea_dbs.extras import need

Float = NDArray[np.float32]


class Runner(Protocol):
    """What parity compares: `sea_dbs.controllers.TorchPolicy` and `OnnxRunner` are such."""

    def init_state(self, n: int = 1) -> None:
        """Forget everything; ``n`` environments follow."""

    def logits(self, observation: Float) -> Float:
        """(n, n_obs) -> (n, slots, 2); one call is one decision."""


def open_session(data: bytes) -> Any:
    """An onnxruntime session of a serialised model: one thread, sequential, deterministic.

    Raises:
        UserError: onnxruntime cannot load it.
    """
    need("export", "onnxruntime")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # fatal only: what fails is raised, and said once
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"onnxruntime cannot load the model: {reason[0]}") from error


class OnnxRunner:
    """A policy's ONNX file as a controller; its state, if it has one, is zero after `init_state`."""

    def __init__(self, data: bytes, name: str = "policy-onnx") -> None:
        self.name = name
        self.session = open_session(data)
        self._inputs = [value.name for value in self.session.get_inputs()]
        self._outputs = [value.name for value in self.session.get_outputs()]
        self.n_obs = int(self.session.get_inputs()[0].shape[1])
        self.state_size = int(self.session.get_inputs()[1].shape[1]) if len(self._inputs) > 1 else 0
        self.n = 1
        self.state = np.zeros((1, self.state_size), np.float32)

    def init_state(self, n: int = 1) -> None:
        """``n`` environments follow, each with a state of zeros."""
        self.n = n
        self.state = np.zeros((n, self.state_size), np.float32)

    def logits(self, observation: Float) -> Float:
        """(n, n_obs) float32 -> (n, slots, 2) float32; one call is one decision."""
        feeds = {self._inputs[0]: observation}
        if self.state_size:
            feeds[self._inputs[1]] = self.state
        answer = self.session.run(self._outputs, feeds)
        if self.state_size:
            self.state = answer[1]
        logits: Float = answer[0]
        return logits

    def act(self, observation: Float) -> Action:
        """(n, n_obs) float32 -> (n, slots) int8.

        Raises:
            UserError: a wrong observation, or a logit that is not finite.
        """
        logits = self.logits(check_observation(observation, n=self.n, n_obs=self.n_obs))
        if not np.isfinite(logits).all():
            raise UserError(f"{self.name} returned a logit that is not finite")
        return decide(logits)


def along(runner: Runner, observations: Float, steps: int, states: list[Float] | None = None) -> Float:
    """Logits (n, slots, 2) of observations that stand plant after plant, ``steps`` decisions each, in order of time.

    A recurrent policy meets every plant anew. ``states`` collects the state that each decision of an `OnnxRunner`
    began with, in the same order: (n, state).
    """
    plants = len(observations) // steps
    series = observations.reshape(plants, steps, -1)
    runner.init_state(plants)
    logits, kept = [], []
    for step in range(steps):
        if states is not None:
            assert isinstance(runner, OnnxRunner)
            kept.append(runner.state)
        logits.append(runner.logits(np.ascontiguousarray(series[:, step])))
    if states is not None:
        states.append(np.stack(kept, axis=1).reshape(len(observations), -1))
    return np.stack(logits, axis=1).reshape(len(observations), *logits[0].shape[1:])
