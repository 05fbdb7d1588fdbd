"""The field's measures of a controller, a value a plant, after settling unless said otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.biomarkers.bursts import burst_threshold, find_bursts
from envs.config import EnvConfig
from envs.stimulation import CONTINUOUS_HZ
from sea_dbs.benchmark.world import Play, settled_steps
from sea_dbs.controllers import HEALTHY_P75
from sea_dbs.measures import power_uW

QUIET_S = 1.0  # s without a pulse after which the next one is a trigger
SMALLEST_SHARE = 60.0 / 300.0  # of the released pulse's charge: 60 µA/cm² × 0.3 ms still drives every STN cell

Values = list[float]


def measures(play: Play, config: EnvConfig, thresholds: Sequence[float] | None = None) -> dict[str, Values]:
    """Every measure of a run, a value a plant; nan for a plant that was lost.

    Args:
        play: the run.
        config: of its environment.
        thresholds: above which the LFP's beta is a burst, one a plant; None: of the run itself (untreated plants).
    """
    settled, seconds = settled_steps(config), config.decision_ms / 1000.0
    steps = play.reward.shape[1]
    beta = play.P_beta[:, settled + 1 :]
    target = 1000.0 * HEALTHY_P75
    hz = play.pulses.mean(axis=1) / seconds
    whole = hz * steps * seconds
    charge_of_one = config.amplitude_uA_cm2 * config.width_ms  # nC/cm², of the configuration's pulse
    lost = [k for k, word in enumerate(play.lost) if word]
    found: dict[str, NDArray[np.float64]] = {
        "P_beta": beta.mean(axis=1),
        "P_beta_all": play.P_beta[:, 1:].mean(axis=1),  # the time before settling included
        "error": np.maximum(beta - target, 0.0).mean(axis=1),
        "above_percent": 100.0 * (beta > target).mean(axis=1),
        "reward": play.reward.mean(axis=1),
        "duty": play.decisions.mean(axis=(1, 2)),
        "time_on_percent": 100.0 * (play.pulses > 0).mean(axis=1),
        "pulses": whole,
        "pulse_hz": hz,
        "charge_percent": 100.0 * play.charge.mean(axis=1) / (seconds * CONTINUOUS_HZ * charge_of_one),
        "teed_uW": power_uW(play.pulses, play.charge, config.width_ms, seconds),
        "triggers_per_min": triggers(play, config),
    }
    if not play.graded:
        found["charge_smallest_percent"] = 100.0 * SMALLEST_SHARE * hz / CONTINUOUS_HZ
    for name in ("P_beta_7_35", "lfp_beta", "EI"):
        if name in play.told:
            found[name] = play.told[name][:, settled:].mean(axis=1)
    if play.envelope:
        levels = list(thresholds) if thresholds is not None else burst_thresholds(play)
        bursts = [
            None if k in lost else find_bursts(one, 1.0, threshold=level)  # a lost lane's may be too short
            for k, (one, level) in enumerate(zip(play.envelope, levels, strict=True))
        ]
        lengths = [0.0 if one is None else one.mean_duration_ms for one in bursts]
        found["burst_ms"] = np.nan_to_num(np.array(lengths), nan=0.0)
        found["bursts_per_min"] = np.array([0.0 if one is None else one.rate_per_min for one in bursts])
    for values in found.values():
        values[lost] = np.nan
    return {name: [float(value) for value in values] for name, values in found.items()}


def burst_thresholds(play: Play) -> list[float]:
    """The 75th percentile of each plant's beta amplitude."""
    return [burst_threshold(one) for one in play.envelope]


def triggers(play: Play, config: EnvConfig) -> NDArray[np.float64]:
    """First pulses after a second or more without one, a minute: how often stimulation starts."""
    n, steps, slots = play.decisions.shape
    flat = play.decisions.reshape(n, steps * slots)
    quiet = round(QUIET_S * config.stim_hz)
    counts = np.zeros(n)
    for k, row in enumerate(flat):
        at = np.flatnonzero(row)
        if len(at):
            counts[k] = (at[0] >= quiet) + int((np.diff(at) > quiet).sum())
    a_minute: NDArray[np.float64] = counts * 60.0 / (steps * config.decision_ms / 1000.0)
    return a_minute


def series(play: Play) -> dict[str, Any]:
    """What a figure needs beside the measures, as small arrays."""
    return {
        "P_beta": play.P_beta.astype(np.float32),
        "reward": play.reward.astype(np.float32),
        "pulses": np.where(np.isnan(play.pulses), -1, play.pulses).astype(np.int16),  # -1: the plant was lost
    }
