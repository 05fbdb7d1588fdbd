"""The one rollout loop: training, evaluation, export checks and hardware sessions all run through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from envs.errors import UserError
from envs.patients import Patient
from envs.registration import base_env
from sea_dbs.controllers import Action, Controller, Observation, SetsAmplitude

Env = gymnasium.Env[NDArray[np.float32], NDArray[np.int8]]
Vector = VectorEnv[NDArray[np.float32], NDArray[np.int8], NDArray[Any]]  # many environments that advance together
Info = dict[str, Any]

# The plant's kernels release the GIL; results do not depend on the number of threads.
PLANT_THREADS = 2


@dataclass(frozen=True)
class Start:
    """Where n environments stand before a step: observation (n, n_obs), and the infos of reset or of the last step."""

    observation: Observation
    infos: tuple[Info, ...]


@dataclass(frozen=True)
class Transition:
    """One decision of n environments in lockstep.

    ``truncated`` is true where the episode ended with this step; the plant itself ends no episode.
    """

    step: int  # decisions since the start of the rollout, from 1
    observation: Observation  # (n, n_obs), what was decided on
    action: Action  # (n, slots)
    reward: NDArray[np.float32]  # (n,)
    next_observation: Observation  # (n, n_obs)
    truncated: NDArray[np.bool_]  # (n,)
    infos: tuple[Info, ...]


def count(envs: Sequence[Env] | Vector) -> int:
    """How many environments these are."""
    return envs.num_envs if isinstance(envs, VectorEnv) else len(envs)


def begin(
    envs: Sequence[Env] | Vector,
    seeds: Sequence[int],
    *,
    patients: Sequence[Patient] = (),
    threads: int = PLANT_THREADS,
) -> Start:
    """Reset each environment with its seed, and with its patient where there are some.

    Raises:
        UserError: another number of seeds than of environments, or a plant that fails.
    """
    if len(seeds) != count(envs):
        raise UserError(f"{len(seeds)} seeds were given for {count(envs)} environments: one each is needed")
    if patients and len(patients) != len(seeds):
        raise UserError(f"{len(patients)} patients were given for {len(seeds)} environments: one each is needed")
    if isinstance(envs, VectorEnv):
        if patients:
            raise UserError("patients are given to single environments; a vector environment has its own option")
        observation, info = envs.reset(seed=[int(seed) for seed in seeds])  # type: ignore[arg-type]
        return Start(observation, _split(info, len(seeds)))
    with ThreadPoolExecutor(threads) as pool:
        options = [{"patient": one} for one in patients] if patients else [{} for _ in seeds]
        pairs = list(pool.map(lambda env, seed, more: env.reset(seed=int(seed), options=more), envs, seeds, options))
    return Start(np.stack([obs for obs, _ in pairs]), tuple(info for _, info in pairs))


def rollout(
    envs: Sequence[Env] | Vector,
    controller: Controller,
    steps: int,
    seeds: Sequence[int] = (),
    *,
    start: Start | None = None,
    threads: int = PLANT_THREADS,
) -> Iterator[Transition]:
    """Run ``steps`` decisions of all environments in lockstep; stops early when their episodes end together.

    Without ``start`` the environments are reset with ``seeds`` and the controller forgets its state. With ``start``
    (from `begin`, or a resumed run) neither happens: the caller has prepared both. A vector environment must leave
    resets to the caller (autoreset mode "Disabled").

    Raises:
        UserError: the controller answers with a wrong shape, type or value; or what the environments raise.
    """
    if start is None:
        start = begin(envs, seeds, threads=threads)
        controller.init_state(count(envs))
    observation = start.observation
    with ThreadPoolExecutor(threads) as pool:
        for step in range(1, steps + 1):
            action = check_action(controller.act(observation), controller.name, envs)
            if isinstance(controller, SetsAmplitude):
                set_amplitudes(envs, controller.amplitude_uA_cm2)
            following, reward, truncated, infos = _advance(envs, action, pool)
            yield Transition(step, observation, action, reward, following, truncated, infos)
            if truncated.all():
                return
            observation = following


def set_amplitudes(envs: Sequence[Env] | Vector, amplitudes_uA_cm2: NDArray[np.float64]) -> None:
    """Make the coming pulses of each environment this strong.

    Raises:
        UserError: an environment whose pulses are a board's, or an amplitude out of range.
    """
    if isinstance(envs, VectorEnv):
        vector: Any = envs.unwrapped
        vector.set_amplitudes(amplitudes_uA_cm2)
    else:
        for env, amplitude in zip(envs, amplitudes_uA_cm2, strict=True):
            base_env(env).set_amplitude(amplitude)


def _advance(
    envs: Sequence[Env] | Vector, action: Action, pool: ThreadPoolExecutor
) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], tuple[Info, ...]]:
    if isinstance(envs, VectorEnv):
        following, reward, _, truncated, info = envs.step(action)
        return following, np.asarray(reward, np.float32), np.asarray(truncated), _split(info, len(action))
    # A single environment is stepped by the caller's own thread: a board's link belongs to one thread.
    each: Callable[..., Any] = map if len(envs) == 1 else pool.map
    results = list(each(_step, envs, action))
    return (
        np.stack([result[0] for result in results]),
        np.array([result[1] for result in results], np.float32),
        np.array([result[3] for result in results], np.bool_),
        tuple(result[4] for result in results),
    )


def _split(info: Info, n: int) -> tuple[Info, ...]:
    """One info an environment, from the arrays of a vector environment.

    Raises:
        UserError: a plant failed, which a single environment says by raising.
    """
    if "failure" in info:
        raise UserError(f"a plant failed: {next(str(one) for one in info['failure'] if one)}")
    names = [key for key in info if not key.startswith("_")]
    return tuple({name: info[name][k] for name in names} for k in range(n))


def _step(env: Env, action: Action) -> tuple[Observation, float, bool, bool, Info]:
    observation, reward, terminated, truncated, info = env.step(action)
    return observation, float(reward), terminated, truncated, info


def check_action(action: Any, name: str, envs: Sequence[Env] | Vector) -> Action:
    """A controller's answer, if it is one decision an environment: int8 of 0 and 1, never replaced by another.

    Raises:
        UserError: wrong shape, type or value.
    """
    space = envs.single_action_space if isinstance(envs, VectorEnv) else envs[0].action_space
    shape = (count(envs), *(space.shape or ()))
    if not isinstance(action, np.ndarray) or action.shape != shape or action.dtype != np.int8:
        found = f"{action.dtype} {action.shape}" if isinstance(action, np.ndarray) else type(action).__name__
        raise UserError(f"the controller '{name}' answered with {found} where int8 {shape} is expected")
    if action.size and (action.min() < 0 or action.max() > 1):
        raise UserError(f"the controller '{name}' answered with values other than 0 and 1")
    return action
