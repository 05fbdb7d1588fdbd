"""Many environments on the batch kernel: a Gymnasium vector environment, lane for lane the single environment.

Each lane is a `BasalGangliaEnv` with its own layers, generator and patient. A step prepares all lanes, advances their
networks together, and finishes all lanes, by the code that the single environment runs. So B lanes equal B single
environments with the same seeds: in float64 spike for spike (observation, reward, info), in float32 byte for byte in
any lane of any batch, on any number of threads (on one type of processor).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.basal_ganglia import BasalGangliaEnv, Inputs
from envs.config import env_config
from envs.errors import UserError
from envs.lanes import Lane, advance_some, by_length, network_of
from envs.patients import Patient
from envs.plant.batch import BatchPlant, Failure
from envs.plant.network import Record
from envs.plant.ranges import check_count, check_network, check_seed
from envs.plant.single import LanePlant
from envs.plant.state import Network
from envs.registration import get_env_state, set_env_state
from envs.wrappers.base import Step

STATE_VERSION = 2
T = TypeVar("T")
R = TypeVar("R")


class BasalGangliaVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.int8], NDArray[Any]]):
    """B environments ``sea_dbs/BasalGanglia-v0``, advanced together; made by ``gymnasium.make_vec``.

    Observations: float32 (B, config.n_seen). Actions: int8 (B, slots). ``reset`` takes one seed (lane i: seed + i) or a
    list; its options are those of the single environment, ``reset_mask`` (Gymnasium's) and ``patients``, one a lane.

    A lane whose voltage becomes non-finite, or that fires faster than the plant can follow, ends its episode: it is
    truncated, its last observation stands, its reward is 0 and ``info["failure"]`` names nucleus, cell and time (a
    warning too). The other lanes are not touched. A reset that is refused changes no lane.

    Args:
        num_envs: number of lanes, B.
        preset: see `envs.make_env`.
        autoreset_mode: an `AutoresetMode` or its value ("NextStep", "SameStep", "Disabled"): when a lane whose episode
            has ended starts the next.
        threads: blocks of 8 lanes at the same time.
        patients: who is treated: one for all lanes, or one (or None) for each.
        overrides: values of `envs.config.EnvConfig`; precision is "float64" or "float32".

    Raises:
        UserError: wrong configuration, option, action or saved state.
    """

    def __init__(
        self,
        num_envs: int = 1,
        preset: str = "paper",
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        threads: int = 1,
        patients: Patient | Sequence[Patient | None] | None = None,
        **overrides: Any,
    ) -> None:
        self.config = config = env_config(preset, **overrides)
        num_envs, threads = check_count(num_envs, "environments (num_envs)"), check_count(threads, "threads")
        if config.kernel != "fast":
            raise UserError("a vector environment runs on the kernel 'fast': 'reference' is for single ones")
        self.num_envs, self.threads = num_envs, threads
        self._mode = _mode(autoreset_mode)
        self.metadata = {**BasalGangliaEnv.metadata, "autoreset_mode": self._mode}
        self._lanes = [Lane(config, patient) for patient in self._each(patients, "patients")]
        env = self._lanes[0].env
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._batch: BatchPlant | None = None
        self._observations = np.zeros((num_envs, config.n_seen), dtype=np.float32)
        self._ended = np.zeros(num_envs, dtype=np.bool_)  # lanes whose next step is a reset (NEXT_STEP), or is refused
        self._failures: dict[int, Failure] = {}  # lanes without a living network, until they are reset

    def lane(self, i: int) -> BasalGangliaEnv:
        """The environment of a lane, to look at: its plant, spikes and P_beta."""
        return self._lanes[i].base

    # -- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | np.integer[Any] | Sequence[int | np.integer[Any] | None] | NDArray[Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Reset all lanes, or those of ``options["reset_mask"]``."""
        options = dict(options or {})
        lanes = self._chosen(options.pop("reset_mask", None))
        each = [dict(options) for _ in range(self.num_envs)]
        if "patients" in options:
            for own, patient in zip(each, self._each(options["patients"], "options['patients']"), strict=True):
                own["patient"] = patient
                del own["patients"]
        infos: dict[str, Any] = {}
        for i, info in self._reset(lanes, self._seeds(seed), each).items():
            infos = self._add_info(infos, info, i)
        return self._observations.copy(), infos

    def set_amplitudes(self, amplitudes_uA_cm2: Sequence[float] | NDArray[np.float64]) -> None:
        """Make the pulses of each lane this strong (µA/cm²) from now on, to its next reset.

        Raises:
            UserError: another number of them than of lanes, or as `BasalGangliaEnv.set_amplitude`.
        """
        values = list(amplitudes_uA_cm2)
        if len(values) != self.num_envs:
            raise UserError(f"{len(values)} amplitudes for {self.num_envs} environments: one each is needed")
        bases = [lane.base for lane in self._lanes]
        for base, amplitude in zip(bases, values, strict=True):  # all are looked at before any is set
            base.check_amplitude(amplitude)
        for base, amplitude in zip(bases, values, strict=True):
            base.set_amplitude(amplitude)

    def step(
        self, actions: NDArray[np.int8]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Apply one decision in every lane; a lane whose episode has ended is reset, as the autoreset mode says."""
        actions = self._checked(actions)
        again = _where(self._ended)
        if again and self._mode == AutoresetMode.DISABLED:
            raise UserError(f"the episode of environment {again[0]} has ended: reset it (options['reset_mask'])")
        running = _where(~self._ended)
        steps = self._step(running, actions)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        told: dict[int, dict[str, Any]] = {}
        for i, step in steps.items():
            self._observations[i], rewards[i], terminated[i], truncated[i], told[i] = step
        ended = terminated | truncated
        final: dict[int, dict[str, Any]] = {}
        if self._mode == AutoresetMode.SAME_STEP:
            again = _where(ended)
            final = {i: {"final_obs": self._observations[i].copy(), "final_info": told[i]} for i in again}
        if again:
            none: list[None] = [None] * self.num_envs
            told |= self._reset(again, none, [{} for _ in none])
        if self._mode != AutoresetMode.SAME_STEP:
            self._ended = ended
        infos: dict[str, Any] = {}
        for i in range(self.num_envs):
            infos = self._add_info(infos, final.get(i, {}), i)
            infos = self._add_info(infos, told[i], i)
        return self._observations.copy(), rewards, terminated, truncated, infos

    # -- lanes ---------------------------------------------------------------------------------------------------------

    def _reset(
        self, lanes: list[int], seeds: Sequence[int | None], options: Sequence[dict[str, Any]]
    ) -> dict[int, dict[str, Any]]:
        """Start an episode in some lanes; the infos. They settle in a batch of their own."""
        undo = [self._lanes[i].undo() for i in lanes]
        try:
            begun = [self._begin_reset(i, seeds[i], options[i]) for i in lanes]
            networks, inputs = [network for network, _ in begun], [own for _, own in begun]
            plant = BatchPlant(
                networks, self.config.dt_ms, self.config.precision, self.threads, relay=self.config.measures
            )
            records, failures = advance_some(plant, dict(enumerate(inputs)))
        except BaseException:  # refused or interrupted: all lanes stay as they were
            for each in undo:
                each()
            raise
        if len(lanes) == self.num_envs:
            self._batch = plant
        for j, i in enumerate(lanes):
            if self._batch is not plant:
                self._ready().put(i, networks[j], plant.take(j))
            self._failures.pop(i, None)
            if j in failures:
                self._fail(i, failures[j])
        self._ended[lanes] = False
        batch, living = self._ready(), [(j, i) for j, i in enumerate(lanes) if i not in self._failures]
        starts = self._map(
            lambda pair: self._lanes[pair[1]].finish_reset(LanePlant(batch, pair[1]), records[pair[0]]), living
        )
        infos = {}
        for (_, i), (observation, info) in zip(living, starts, strict=True):
            self._observations[i], infos[i] = observation, info
        for i in set(lanes) & set(self._failures):
            self._observations[i], infos[i] = 0.0, {"failure": str(self._failures[i])}
        return {i: infos[i] for i in lanes}

    def _begin_reset(self, i: int, seed: int | None, options: dict[str, Any]) -> tuple[Network, Inputs]:
        try:
            network, inputs = self._lanes[i].begin_reset(seed, options)
        except UserError as error:
            raise UserError(f"environment {i}: {error}") from None
        check_network(network, f"the network of environment {i}")
        return network, inputs

    def _step(self, lanes: list[int], actions: NDArray[np.int8]) -> dict[int, Step]:
        """One decision of some lanes, without any reset."""
        self._ready()
        living = [i for i in lanes if i not in self._failures]
        inputs = {i: self._lanes[i].begin_step(actions[i]) for i in living}
        records: dict[int, Record] = {}
        for group in by_length(inputs):
            records |= self._advance(group)
        living = [i for i in living if i not in self._failures]
        done = self._map(lambda i: self._lanes[i].finish_step(records[i]), living)
        steps = dict(zip(living, done, strict=True))
        for i in lanes:
            if i in self._failures:
                steps[i] = self._observations[i], 0.0, False, True, {"failure": str(self._failures[i])}
        return {i: steps[i] for i in lanes}

    def _advance(self, inputs: Mapping[int, Inputs]) -> dict[int, Record]:
        """Advance some lanes, all by the same number of samples, the others standing still or about to be reset."""
        batch, living = (
            self._ready(),
            set(range(self.num_envs)) - set(_where(self._ended)) - set(self._failures),
        )
        plant, places = batch, {i: i for i in inputs}
        if living - set(inputs):  # another length of decision: these advance in a batch of their own
            places = {i: j for j, i in enumerate(inputs)}
            own = [network_of(batch, i) for i in inputs]
            plant = BatchPlant(own, batch.dt_ms, batch.precision, self.threads, relay=batch.relay)
            for i, j in places.items():
                plant.put(j, network_of(batch, i), batch.take(i))
        records, failures = advance_some(plant, {places[i]: own for i, own in inputs.items()})
        for i, j in places.items():
            if plant is not batch:
                batch.put(i, network_of(batch, i), plant.take(j))
            if j in failures:
                self._fail(i, failures[j])
        return {i: records[j] for i, j in places.items()}

    def _fail(self, i: int, failure: Failure) -> None:
        self._failures[i] = failure._replace(network=i)
        warnings.warn(f"environment {i} was stopped: {self._failures[i]}", RuntimeWarning, stacklevel=2)

    def _map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Observations of lanes; the spectra release the interpreter lock."""
        if self.threads == 1 or len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(work, items))

    # -- input ---------------------------------------------------------------------------------------------------------

    def _ready(self) -> BatchPlant:
        if self._batch is None:
            raise UserError("the environments have no networks yet: call reset() for all of them first")
        return self._batch

    def _each(self, value: Any, name: str) -> Sequence[Patient | None]:
        """One patient (or None) a lane."""
        each = [value] * self.num_envs if value is None or isinstance(value, Patient) else value
        if not isinstance(each, Sequence) or len(each) != self.num_envs:
            raise UserError(f"{name} must be one patient, or one (or None) for each of {self.num_envs} environments")
        for patient in each:
            if patient is not None and not isinstance(patient, Patient):
                raise UserError(f"{name} holds a {type(patient).__name__}: expected envs.patients.Patient")
        return each

    def _seeds(self, seed: Any) -> list[int | None]:
        """One seed (or None) a lane."""
        if not isinstance(seed, list | tuple | np.ndarray):
            first = check_seed(seed, "the seed")
            return [None if first is None else first + i for i in range(self.num_envs)]
        if isinstance(seed, np.ndarray) and seed.ndim != 1:
            raise UserError(f"the seeds have shape {seed.shape}: expected ({self.num_envs},)")
        if len(seed) != self.num_envs:
            raise UserError(f"{len(seed)} seeds were given for {self.num_envs} environments: one each is needed")
        return [check_seed(own, f"the seed of environment {i}") for i, own in enumerate(seed)]

    def _chosen(self, mask: Any) -> list[int]:
        """The lanes of a reset mask."""
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise UserError(f"options['reset_mask'] must be an array of bool, shape ({self.num_envs},)")
        if not mask.any():
            raise UserError("options['reset_mask'] chooses no environment: at least one must be True")
        if not mask.all():
            self._ready()
        return _where(mask)

    def _checked(self, actions: Any) -> NDArray[np.int8]:
        """Every lane's action is looked at before any lane moves."""
        expected = f"expected ({self.num_envs}, {self.config.slots}), environments and slots, each 0 or 1"
        try:
            rows = np.asarray(actions)
        except ValueError:  # lists of different lengths: the wrong one is named below
            rows = actions
            if len(rows) != self.num_envs:
                raise UserError(f"{len(rows)} actions were given: {expected}") from None
        else:
            if rows.shape != (self.num_envs, self.config.slots):
                raise UserError(f"the actions have shape {rows.shape}: {expected}")
        return np.stack(
            [lane.base.mask(rows[i], f"the action of environment {i}") for i, lane in enumerate(self._lanes)]
        )

    # -- state ---------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Everything that the next step reads, as arrays, numbers, strings, lists and dicts.

        ``lanes`` holds the state of each single environment as `envs.registration.get_env_state` gives it.
        """
        self._ready()
        return {
            "version": STATE_VERSION,
            "autoreset_mode": self._mode.value,
            "lanes": [get_env_state(lane.env) for lane in self._lanes],
            "observations": self._observations.copy(),
            "ended": self._ended.copy(),
            "failures": [list(failure) for failure in self._failures.values()],
        }

    def set_state(self, values: dict[str, Any]) -> None:
        """Continue from `get_state`, bit for bit.

        Raises:
            UserError: saved by another version, under another configuration, or with other lanes.
        """
        if values.get("version") != STATE_VERSION or values["autoreset_mode"] != self._mode.value:
            raise UserError("the saved vector environment has another version or autoreset mode than this one")
        if len(values["lanes"]) != self.num_envs:
            raise UserError(f"the saved vector environment has {len(values['lanes'])} lanes, this one {self.num_envs}")
        bases = [layers[-1] for layers in values["lanes"]]
        if any(base["config"] != self.config.model_dump() for base in bases):
            raise UserError("the saved vector environment has another configuration than this one")
        plants = {
            "dt_ms": self.config.dt_ms,
            "precision": self.config.precision,
            "networks": [b["plant"] for b in bases],
        }
        self._batch = BatchPlant.from_state(plants, self.threads, self.config.measures)
        for i, (lane, saved) in enumerate(zip(self._lanes, values["lanes"], strict=True)):
            lane.base.lane = LanePlant(self._batch, i)
            set_env_state(lane.env, saved)
        self._observations = np.array(values["observations"], dtype=np.float32)
        self._ended = np.array(values["ended"], dtype=np.bool_)
        self._failures = {int(failure[0]): Failure(*failure) for failure in values["failures"]}


def _mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        allowed = ", ".join(each.value for each in AutoresetMode)
        raise UserError(f"unknown autoreset mode '{mode}': allowed are {allowed}") from None


def _where(mask: NDArray[np.bool_]) -> list[int]:
    return [int(i) for i in np.flatnonzero(mask)]
