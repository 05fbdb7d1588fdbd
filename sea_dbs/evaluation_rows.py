"""From episodes to a row of the table, and the words for a policy that does not close a loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sea_dbs.closed_loop import CONSTANT, CONSTANT_DUTY, OPEN_LOOP
from sea_dbs.config import TrainConfig
from sea_dbs.measures import CONTINUOUS_HZ, field_measures
from sea_dbs.rollout import Transition
from sea_dbs.statistics import interval, iqm, surely_greater

OPEN_LOOP_BY_DESIGN = ("never", "periodic", "random", "replayed", "pattern", "policy, silenced")


@dataclass
class Episode:
    """One controller on one plant: a value a decision; ``P_beta`` begins with the reset's."""

    controller: str
    seed: int
    P_beta: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    duty: list[float] = field(default_factory=list)
    pulses: list[int] = field(default_factory=list)
    charge_nC_cm2: list[float] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)  # mean of the observation decided on, P_beta/1000
    decisions: list[str] = field(default_factory=list)  # the slots as "0110..."

    def add(self, transition: Transition, k: int) -> None:
        """Append environment ``k`` of a transition."""
        info = transition.infos[k]
        self.P_beta.append(float(info["P_beta"]))
        self.reward.append(float(transition.reward[k]))
        self.duty.append(float(info["duty"]))
        self.pulses.append(int(info["pulses"]))
        self.charge_nC_cm2.append(float(info["charge_nC_cm2"]))
        self.observed.append(float(transition.observation[k].mean()))
        self.decisions.append("".join(map(str, transition.action[k])))

    def mean_duty(self) -> float:
        """Share of slots stimulated over the episode."""
        return float(np.mean(self.duty))

    def mean_reward(self) -> float:
        """Reward a decision."""
        return float(np.mean(self.reward))


def settle_steps(config: TrainConfig) -> int:
    """Decisions until the observation holds nothing of the time before the first one (2 of 1 s, 99 of 20 ms)."""
    span_ms = (config.window_ms or 0) + ((config.n_obs or 1) - 1) * (config.stride_ms or 0)
    return math.ceil(span_ms * (config.stim_hz or 0) / (1000.0 * (config.slots or 1)) - 1e-9)


def percent_of_untreated(episodes: Sequence[Episode], untreated: Sequence[Episode], config: TrainConfig) -> list[float]:
    """P_beta after settling, % of the same plant's without stimulation."""
    first = settle_steps(config) + 1
    pairs = zip(episodes, untreated, strict=True)
    return [100.0 * float(np.mean(a.P_beta[first:])) / float(np.mean(b.P_beta[first:])) for a, b in pairs]


def table_row(
    controller: str, episodes: Sequence[Episode], untreated: Sequence[Episode], config: TrainConfig
) -> dict[str, Any]:
    """One row: P_beta and its percentage after settling, reward over all decisions, duty, pulses and charge an episode.

    ``*_iqm`` is the interquartile mean over plants and ``*_ci95`` its bootstrap interval (None for one plant);
    ``percent_of_untreated`` compares each plant with itself untreated; the field's measures (`measures.field_measures`)
    are of the time after settling, but for pulses.
    """
    settled = settle_steps(config)
    beta = [float(np.mean(one.P_beta[settled + 1 :])) for one in episodes]
    without = [float(np.mean(one.P_beta[settled + 1 :])) for one in untreated]
    percent = percent_of_untreated(episodes, untreated, config)
    reward = [one.mean_reward() for one in episodes]
    steps = len(episodes[0].reward)
    seconds = steps * (config.slots or 0) / (config.stim_hz or 1)
    charge = float(np.mean([sum(one.charge_nC_cm2) for one in episodes]))
    continuous = CONTINUOUS_HZ * seconds * (config.amplitude_uA_cm2 or 0) * (config.width_ms or 0)  # nC/cm²
    duty = float(np.mean([one.mean_duty() for one in episodes]))
    return {
        "controller": controller,
        "detail": episodes[0].controller,
        "seeds": len(episodes),
        "steps": steps,
        "P_beta_mean": float(np.mean(beta)),
        "P_beta_iqm": iqm(beta),
        "P_beta_ci95": interval(beta),
        "percent_of_untreated": iqm(percent),
        "percent_of_untreated_ci95": interval(percent),
        "below_untreated": surely_greater(without, beta),
        "reward_mean": float(np.mean(reward)),
        "reward_iqm": iqm(reward),
        "reward_ci95": interval(reward),
        "duty": duty,
        "pulses": float(np.mean([sum(one.pulses) for one in episodes])),
        "charge_nC_cm2": charge,
        "charge_percent_of_130Hz": 100.0 * charge / continuous,
        **field_measures(
            [one.P_beta[settled + 1 :] for one in episodes],
            [one.P_beta[settled + 1 :] for one in untreated],
            [one.pulses for one in episodes],
            decision_s=seconds / steps,
            amplitude_uA_cm2=config.amplitude_uA_cm2 or 0.0,
            width_ms=config.width_ms or 0.0,
        ),
        "label": CONSTANT if duty > CONSTANT_DUTY else OPEN_LOOP if controller in OPEN_LOOP_BY_DESIGN else "",
    }
