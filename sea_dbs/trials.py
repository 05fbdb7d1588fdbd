"""Many controllers at once on the vector environment: what a search needs to be fast.

float32 keeps the plant's statistics, not its spikes: a search ranks with it; `sea_dbs.evaluate` reports in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.patients import Patient
from envs.stimulation import CONTINUOUS_HZ
from envs.vector import BasalGangliaVectorEnv
from sea_dbs.controllers import HEALTHY_P75, Controller, SetsAmplitude
from sea_dbs.tasks import Task

LANES = 32  # environments at once
MOST_LOST = 0.25  # share of its plants that a candidate of a search may lose; ours

Values = NDArray[np.float64]
MakeVector = Callable[[EnvConfig, int], Any]


@dataclass(frozen=True)
class Trial:
    """One controller on some plants, after settling: a value a plant, nan where its network diverged."""

    name: str
    beta: Values  # mean P_beta
    error: Values  # mean of P_beta above the target, untreated or not
    pulse_hz: Values  # mean rate of pulses, settling included
    reward: Values  # a decision, settling included
    charge: Values  # as a share of what continuous 130 Hz delivers in that time with the task's pulse


def make_vector(config: EnvConfig, lanes: int) -> BasalGangliaVectorEnv:
    """A vector environment of one configuration."""
    values = config.model_dump()
    return BasalGangliaVectorEnv(lanes, values.pop("preset"), autoreset_mode="Disabled", **values)


def settle_decisions(config: EnvConfig) -> int:
    """Decisions until the observation holds nothing of the time before the first one."""
    span_ms = config.window_ms + (config.n_obs - 1) * config.stride_ms
    return math.ceil(span_ms / config.decision_ms - 1e-9)


def run_trials(
    task: Task,
    controllers: Sequence[Controller],
    seeds: Sequence[int],
    seconds: float,
    *,
    target: float = HEALTHY_P75,
    make: MakeVector = make_vector,
    lanes: int = LANES,
) -> list[Trial]:
    """Every controller on every plant for ``seconds`` after settling, as many plants together as ``lanes`` holds.

    A plant whose network diverges (docs/RESULTS.md, "A plant that diverges") is lost for that controller alone.

    Raises:
        UserError: what the controllers raise.
    """
    own = task.config()
    settled = settle_decisions(own)
    steps = settled + max(1, math.ceil(seconds * 1000.0 / own.decision_ms - 1e-9))
    config = task.config(precision="float32", episode_steps=steps)
    people = task.patients("train")
    group = max(1, lanes // len(seeds))
    trials: list[Trial] = []
    for first in range(0, len(controllers), group):
        trials += _together(
            config, controllers[first : first + group], seeds, people, steps, settled, 1000.0 * target, make
        )
    return trials


def _together(
    config: EnvConfig,
    controllers: Sequence[Controller],
    seeds: Sequence[int],
    people: Sequence[Patient],
    steps: int,
    settled: int,
    target: float,
    make: MakeVector,
) -> list[Trial]:
    m = len(seeds)
    env = make(config, m * len(controllers))
    plants = [int(seed) for _ in controllers for seed in seeds]
    options = {"patients": [people[seed % len(people)] for seed in plants]} if people else {}
    observation, _ = env.reset(seed=plants, options=options)
    for controller in controllers:
        controller.init_state(m)
    beta = np.zeros((steps, m * len(controllers)))
    pulses, charge, rewards = np.zeros((3, m * len(controllers)))
    lost = np.zeros(m * len(controllers), np.bool_)
    for step in range(steps):
        parts = [one.act(observation[i * m : (i + 1) * m]) for i, one in enumerate(controllers)]
        if any(isinstance(one, SetsAmplitude) for one in controllers):
            env.set_amplitudes(np.concatenate([_amplitudes(one, config, m) for one in controllers]))
        observation, reward, _, _, info = env.step(np.concatenate(parts))
        if "failure" in info:
            gone = np.array([bool(word) for word in info["failure"]])
            lost |= gone
            observation, _ = env.reset(seed=plants, options={**options, "reset_mask": gone})  # so that others can go on
        beta[step] = info["P_beta"]
        pulses += info["pulses"]
        rewards += reward
        charge += info["charge_nC_cm2"]
    for values in (*beta, pulses, charge, rewards):
        values[lost] = np.nan
    seconds = steps * config.decision_ms / 1000.0
    late = beta[settled:]
    shape = (len(controllers), m)
    means, errors = late.mean(axis=0).reshape(shape), np.maximum(late - target, 0.0).mean(axis=0).reshape(shape)
    rates = (pulses / seconds).reshape(shape)
    charges = (charge / (seconds * CONTINUOUS_HZ * config.amplitude_uA_cm2 * config.width_ms)).reshape(shape)
    mean_rewards = (rewards / steps).reshape(shape)
    return [
        Trial(one.name, means[i], errors[i], rates[i], mean_rewards[i], charges[i]) for i, one in enumerate(controllers)
    ]


def _amplitudes(controller: Controller, config: EnvConfig, n: int) -> Values:
    """(n,) µA/cm² of the coming pulses."""
    if isinstance(controller, SetsAmplitude):
        return controller.amplitude_uA_cm2
    return np.full(n, config.amplitude_uA_cm2)


def listed(values: Values) -> list[float | None]:
    """A value a plant, as JSON holds it; None where the plant was lost."""
    return [None if np.isnan(value) else float(value) for value in values]


def each_plant(values: Sequence[float | None]) -> Values:
    """The inverse of `listed`: nan where a plant was lost."""
    return np.array(values, np.float64)
