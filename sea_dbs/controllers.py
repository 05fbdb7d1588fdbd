"""Everything that decides on pulses, behind one interface: classical controllers and the trained policy.

An ONNX session (``export``) and a board (``firmware_bridge``) answer the same two calls, so the one rollout loop
serves them all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.extras import need

if TYPE_CHECKING:
    import torch

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


class _OpenLoop(ABC):
    """Shared by the controllers that do not read the observation."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.n = 1

    def init_state(self, n: int = 1) -> None:
        self.n = n

    def act(self, observation: Observation) -> Action:
        check_observation(observation, n=self.n)
        return self._next()

    @abstractmethod
    def _next(self) -> Action:
        """The next decision of each environment."""


class Never(_OpenLoop):
    """No pulse, ever."""

    def __init__(self, slots: int) -> None:
        super().__init__("never", slots)

    def _next(self) -> Action:
        return np.zeros((self.n, self.slots), np.int8)


class Always(_OpenLoop):
    """A pulse in every slot."""

    def __init__(self, slots: int) -> None:
        super().__init__("always", slots)

    def _next(self) -> Action:
        return np.ones((self.n, self.slots), np.int8)


class Periodic(_OpenLoop):
    """A regular train of ``hz``, its phase kept in real time across decisions.

    A pulse is due at (m + phase)/hz seconds, m = 0, 1, ...; it falls into the first slot that starts at that time or
    later. Times are exact fractions, so that hours of stimulation drift by nothing.

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs; a fraction where the slot is no whole number of µs (1/130 s).
        hz: pulses a second, from 0 to one a slot.
        phase: shift of the train in periods, from 0 to below 1.

    Raises:
        UserError: a rate above one pulse a slot, or a phase out of range.
    """

    def __init__(self, slots: int, slot_us: int | Fraction, hz: float, phase: float = 0.0) -> None:
        self.slot_s = Fraction(slot_us) / 1_000_000
        self.hz = Fraction(hz).limit_denominator(1_000_000) if math.isfinite(hz) else Fraction(-1)
        self.phase = Fraction(phase).limit_denominator(1_000_000) if math.isfinite(phase) else Fraction(-1)
        if not 0 <= self.hz * self.slot_s <= 1:
            raise UserError(f"a periodic train of {hz} Hz was asked for: from 0 to {float(1 / self.slot_s):g} Hz fit")
        if not 0 <= self.phase < 1:
            raise UserError(f"a periodic train with phase {phase} was asked for: from 0 to below 1 are allowed")
        super().__init__(f"periodic {float(self.hz):.4g} Hz", slots)
        self.slot = 0  # index of the next decision's first slot since init_state

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.slot = 0

    def _due(self, slot: int) -> int:
        """Pulses due until the start of a slot, that time included."""
        return math.floor(slot * self.slot_s * self.hz - self.phase) + 1

    def _next(self) -> Action:
        counts = [max(0, self._due(slot)) for slot in range(self.slot - 1, self.slot + self.slots)]
        self.slot += self.slots
        return np.tile(np.diff(counts).astype(np.int8), (self.n, 1))


class RandomDuty(_OpenLoop):
    """Each slot stimulated with chance ``duty``, independently.

    Raises:
        UserError: a duty outside 0 to 1.
    """

    def __init__(self, slots: int, duty: float, seed: int = 0) -> None:
        if not 0.0 <= duty <= 1.0:
            raise UserError(f"random stimulation at duty {duty} was asked for: from 0 to 1 are allowed")
        super().__init__(f"random {duty:.3g}", slots)
        self.duty = duty
        self.seed = seed
        self.generator = np.random.default_rng(seed)

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.generator = np.random.default_rng(self.seed)

    def _next(self) -> Action:
        return (self.generator.random((self.n, self.slots)) < self.duty).astype(np.int8)


class OnOff:
    """The classical adaptive controller: on above ``high``, off below ``low``, as it was between (hysteresis).

    It reads the newest value of the observation (P_beta/1000).

    Raises:
        UserError: thresholds that are not 0 <= low <= high.
    """

    def __init__(self, slots: int, low: float = 0.33, high: float = 0.40) -> None:
        if not 0.0 <= low <= high or not math.isfinite(high):
            raise UserError(f"on-off thresholds low={low}, high={high} were given: 0 <= low <= high is needed")
        self.name = "on-off"
        self.slots = slots
        self.low = low
        self.high = high
        self.on = np.zeros(1, np.bool_)

    def init_state(self, n: int = 1) -> None:
        self.on = np.zeros(n, np.bool_)

    def act(self, observation: Observation) -> Action:
        newest = check_observation(observation, n=len(self.on))[:, -1]
        self.on = np.where(newest > self.high, True, np.where(newest < self.low, False, self.on))
        return np.repeat(self.on[:, None], self.slots, axis=1).astype(np.int8)


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


class Silenced:
    """A policy that is shown one constant value in place of its observation: does it read what it is given?

    Args:
        inner: the controller under test.
        value: what every element of the observation becomes (P_beta/1000).
        label: names the replacement in tables, such as ``zeros``.
    """

    def __init__(self, inner: Controller, value: float, label: str) -> None:
        self.name = f"{inner.name}, observation = {label}"
        self.inner = inner
        self.value = np.float32(value)

    def init_state(self, n: int = 1) -> None:
        self.inner.init_state(n)

    def act(self, observation: Observation) -> Action:
        return self.inner.act(np.full_like(observation, self.value))


CLASSICAL = ("never", "always", "periodic", "random", "on-off")


def make_controller(
    name: str, slots: int, slot_us: int | Fraction, *, hz: float = 50.0, duty: float = 0.5, seed: int = 0
) -> Controller:
    """A classical controller by name: never, always, periodic (``hz``), random (``duty``), on-off.

    Raises:
        UserError: an unknown name, or a parameter out of its range.
    """
    match name:
        case "never":
            return Never(slots)
        case "always":
            return Always(slots)
        case "periodic":
            return Periodic(slots, slot_us, hz)
        case "random":
            return RandomDuty(slots, duty, seed)
        case "on-off":
            return OnOff(slots)
    raise UserError(f"unknown controller '{name}': one of {', '.join(CLASSICAL)}, policy")
