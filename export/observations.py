"""Real observations for parity: what the plant shows under four ways of stimulating it, by the one rollout loop."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.plants import EnvFactory, lockstep
from sea_dbs.config import TrainConfig
from sea_dbs.controllers import Controller, make_controller
from sea_dbs.progress import progress
from sea_dbs.rollout import Transition
from sea_dbs.seeds import search_seeds

UNDER = ("never", "always", "random", "policy")  # the range of beta that stimulation reaches, and the policy's own part
PLANTS = 2  # under each
SEEDS = search_seeds(PLANTS * len(UNDER))  # of observations.npz
CALIBRATION_SEEDS = search_seeds(2 * len(SEEDS))[len(SEEDS) :]  # of calibration.npz: other plants
MAX_SECONDS = 600.0  # s, an upper bound against slips of the keyboard


def gather(
    config: TrainConfig,
    policy: Controller,
    seconds: float,
    env_factory: EnvFactory,
    *,
    seeds: Sequence[int] = SEEDS,
    name: str = "observations",
    quiet: bool = False,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Observations of eight plants over ``seconds`` each, and how they came about.

    The plants are those on which settings are chosen: evaluation never meets them.

    Returns:
        (n, n_obs) float32, plant after plant, each in the order of time; ``facts["steps"]`` are a plant's decisions.

    Raises:
        UserError: ``seconds`` holds no decision, or more than 600 s.
    """
    decision_s = (config.slots or 1) / (config.stim_hz or 1.0)
    allowed = decision_s - 1e-9 <= seconds <= MAX_SECONDS  # refuses nan too
    steps = min(int(seconds / decision_s + 1e-9), config.episode_steps or 1) if allowed else 0
    if steps < 1:
        raise UserError(
            f"--seconds is {seconds:g}: from {decision_s:g} (one decision) to {MAX_SECONDS:g} s are allowed"
        )
    slot_us = Fraction(1_000_000) / Fraction(config.stim_hz or 1)
    seen: list[NDArray[np.float32]] = []
    with progress(name, steps * PLANTS * len(UNDER), quiet=quiet) as bar:
        for i, under in enumerate(UNDER):
            controller = policy if under == "policy" else make_controller(under, config.slots or 1, slot_us)
            series = []
            for item in lockstep(config, controller, seeds[PLANTS * i : PLANTS * (i + 1)], steps, env_factory):
                if isinstance(item, Transition):
                    series.append(item.observation)
                    bar.update(PLANTS, f"stimulating: {under}")
            seen.append(np.stack(series, axis=1).reshape(-1, series[0].shape[1]))
    facts = {
        "preset": config.preset,
        "under": list(UNDER),
        "plant_seeds": list(seeds),
        "seconds_each": steps * decision_s,
        "steps": steps,
        "count": sum(len(part) for part in seen),
    }
    return np.concatenate(seen), facts
