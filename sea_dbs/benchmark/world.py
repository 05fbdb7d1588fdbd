"""The worlds that a benchmark trains and judges in: many environments of a task, with the patients of its cohort."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.errors import UserError
from envs.patients import Patient
from envs.vector import BasalGangliaVectorEnv
from sea_dbs.controllers.base import Controller, SetsAmplitude
from sea_dbs.redrawn import RedrawnVectorEnv
from sea_dbs.rollout import check_action

TOLD = ("P_beta_7_35", "lfp_beta", "EI", "burst_ms")  # of info with measures on, kept a decision

Floats = NDArray[np.float64]
Ints = NDArray[np.int8]


@dataclass(frozen=True)
class Play:
    """One controller on n plants; every array begins with (n, steps).

    A plant that diverged is lost: nothing is known of what it would have done, and its numbers are nan.
    """

    name: str
    P_beta: Floats  # (n, steps + 1), the reset's first
    reward: Floats
    pulses: Floats
    charge: Floats  # nC/cm²
    decisions: Ints  # (n, steps, slots)
    told: dict[str, Floats]
    seen: NDArray[np.float32]  # (n, steps, n_obs), what was decided on
    envelope: list[Floats]  # n amplitudes of the LFP's beta after settling, a value a ms
    violations: int  # decisions that are no 0 and 1, or other pulses than were decided
    lost: tuple[str, ...] = ()  # a word a plant: why it was lost; "" where it was not
    graded: bool = False  # whether a pulse's amplitude decides on the cells that it reaches


class CohortVectorEnv(BasalGangliaVectorEnv):
    """The lanes' patients follow from their seeds, so that every episode treats another one."""

    def __init__(self, num_envs: int, preset: str, *, people: Sequence[Patient], **values: Any) -> None:
        super().__init__(num_envs, preset, **values)
        self.people = people

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float32], Any]:
        """Reset all lanes; a seed a lane is needed."""
        if not isinstance(seed, list | tuple | np.ndarray):
            raise UserError("a cohort's environments need a list of seeds, one each")
        chosen = [self.people[int(one) % len(self.people)] for one in seed]
        return super().reset(seed=seed, options={**(options or {}), "patients": chosen})


class RedrawnCohortVectorEnv(CohortVectorEnv, RedrawnVectorEnv):
    """A cohort to train on: a lane whose plant diverges goes on with its patient settled anew."""


def make_world(config: EnvConfig, lanes: int, people: Sequence[Patient] = ()) -> BasalGangliaVectorEnv:
    """A vector environment of one configuration, with patients of a cohort where there are some."""
    if people:
        return CohortVectorEnv(lanes, people=people, **_values(config))
    return BasalGangliaVectorEnv(lanes, **_values(config))


def make_training_world(config: EnvConfig, lanes: int, people: Sequence[Patient] = ()) -> RedrawnVectorEnv:
    """`make_world` for training, which goes on when a plant diverges."""
    if people:
        return RedrawnCohortVectorEnv(lanes, people=people, **_values(config))
    return RedrawnVectorEnv(lanes, **_values(config))


def _values(config: EnvConfig) -> dict[str, Any]:
    """What a vector environment is made of, the preset among it; its caller alone resets lanes."""
    return {**config.model_dump(), "autoreset_mode": "Disabled"}


MakeWorld = Callable[[EnvConfig, int, Sequence[Patient]], Any]


def settled_steps(config: EnvConfig) -> int:
    """Decisions until the observation holds nothing of the time before the first one."""
    span = config.window_ms + (config.n_obs - 1) * config.stride_ms
    if config.view != "trace":
        span = max(config.window_ms, config.slots_observed * config.slot_ms)
    return math.ceil(span / config.decision_ms - 1e-9)


def play(
    config: EnvConfig,
    controller: Controller,
    seeds: Sequence[int],
    steps: int,
    people: Sequence[Patient] = (),
    make: MakeWorld = make_world,
) -> Play:
    """``steps`` decisions on each plant, all of them in lockstep.

    Raises:
        UserError: every plant diverges, or what the controller raises.
    """
    n = len(seeds)
    env = make(config, n, people)
    observation, info = env.reset(seed=[int(seed) for seed in seeds])
    controller.init_state(n)
    P_beta, reward = np.zeros((n, steps + 1)), np.zeros((n, steps))
    pulses, charge = np.zeros((n, steps)), np.zeros((n, steps))
    P_beta[:, 0] = info["P_beta"]
    decisions = np.zeros((n, steps, config.slots), np.int8)
    seen = np.zeros((n, steps, config.n_seen), np.float32)
    told = {name: np.zeros((n, steps)) for name in TOLD if config.measures}
    lost = [""] * n
    for step in range(steps):
        action = check_action(controller.act(observation), controller.name, [_Space(config.slots)] * n)  # type: ignore[list-item]
        if isinstance(controller, SetsAmplitude):
            env.set_amplitudes(controller.amplitude_uA_cm2)
        seen[:, step], decisions[:, step] = observation, action
        observation, reward[:, step], _, _, info = env.step(action)
        if "failure" in info:  # its lane goes on with the plant at rest, so that the others can; that is not counted
            failed = [k for k in range(n) if info["failure"][k]]
            for k in failed:
                lost[k] = lost[k] or str(info["failure"][k])
            if all(lost):
                raise UserError(f"every plant was lost, the first: {lost[0]}")
            observation, info = _again(env, seeds, failed, observation, info)
        P_beta[:, step + 1], pulses[:, step] = info["P_beta"], info["pulses"]
        charge[:, step] = info["charge_nC_cm2"]
        for name, values in told.items():
            values[:, step] = info[name]
    gone = [k for k in range(n) if lost[k]]
    wrong = int((np.delete(pulses, gone, 0) != np.delete(decisions.sum(axis=2), gone, 0)).sum())
    for values in (P_beta, reward, pulses, charge, *told.values()):
        values[gone] = np.nan
    skip = int(settled_steps(config) * config.decision_ms)
    envelope = [_envelope(env, lane, skip) for lane in range(n)] if config.measures else []
    graded = any(one.recruitment is not None for one in people)
    series = P_beta, reward, pulses, charge
    return Play(controller.name, *series, decisions, told, seen, envelope, wrong, tuple(lost), graded)


def _again(
    env: Any, seeds: Sequence[int], failed: Sequence[int], observation: Any, info: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Start the failed lanes anew; the observation and the values of all lanes, those of the others as they are."""
    mask = np.isin(np.arange(len(seeds)), failed)
    fresh, told = env.reset(seed=[int(seed) for seed in seeds], options={"reset_mask": mask})
    merged = {
        name: np.where(mask, told[name], info[name]) if name in told else info[name]
        for name in ("P_beta", "pulses", "charge_nC_cm2", *TOLD)
        if name in info
    }
    return np.where(mask[:, None], fresh, observation), merged


class _Space:
    """What `check_action` asks of an environment."""

    def __init__(self, slots: int) -> None:
        self.action_space = self
        self.shape = (slots,)


def _envelope(env: Any, lane: int, skip_ms: int) -> Floats:
    from envs.biomarkers.lfp import beta_envelope

    base = env.lane(lane)
    watched = base.measures.watched
    whole: Floats = np.asarray(beta_envelope(watched.lfp), np.float64)
    return whole[round(base.config.settle_ms) + skip_ms :]
