"""Real observations for parity: what the plant shows under four ways of stimulating it, by the one rollout loop."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.config import TrainConfig
from sea_dbs.controllers import Controller, make_controller
from sea_dbs.progress import progress
from sea_dbs.rollout import Env, rollout
from sea_dbs.seeds import search_seeds

EnvFactory = Callable[[TrainConfig], Env]
UNDER = ("never", "always", "random", "policy")  # the range of beta that stimulation reaches, and the policy's own part
PLANTS = 2  # under each
MAX_SECONDS = 600.0  # s, an upper bound against slips of the keyboard


def gather(
    config: TrainConfig, policy: Controller, seconds: float, env_factory: EnvFactory, *, quiet: bool = False
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Observations (n, n_obs) float32 of eight plants over ``seconds`` each, and how they came about.

    The plants are those on which settings are chosen: evaluation never meets them.

    Raises:
        UserError: ``seconds`` holds no decision, or more than 600 s.
    """
    decision_s = (config.slots or 1) / (config.stim_hz or 1.0)
    steps = min(int(seconds / decision_s + 1e-9), config.episode_steps or 1)
    if not (seconds <= MAX_SECONDS and steps >= 1):
        raise UserError(
            f"--seconds is {seconds:g}: from {decision_s:g} (one decision) to {MAX_SECONDS:g} s are allowed"
        )
    slot_us = Fraction(1_000_000) / Fraction(config.stim_hz or 1)
    seeds = search_seeds(PLANTS * len(UNDER))
    envs = [env_factory(config) for _ in range(PLANTS)]
    seen: list[NDArray[np.float32]] = []
    with progress("observations", steps * PLANTS * len(UNDER), quiet=quiet) as bar:
        for i, name in enumerate(UNDER):
            controller = policy if name == "policy" else make_controller(name, config.slots or 1, slot_us)
            for transition in rollout(envs, controller, steps, seeds[PLANTS * i : PLANTS * (i + 1)]):
                seen.append(transition.observation)
                bar.update(PLANTS, f"stimulating: {name}")
    facts = {
        "preset": config.preset,
        "under": list(UNDER),
        "plant_seeds": seeds,
        "seconds_each": steps * decision_s,
        "count": sum(len(part) for part in seen),
    }
    return np.concatenate(seen), facts
