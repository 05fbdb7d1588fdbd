"""Open-loop trains that a policy must beat: chance at its duty, and the best regular train with its pulses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from sea_dbs.benchmark.world import MakeWorld, make_world, play, settled_steps
from sea_dbs.closed_loop import decisions_on
from sea_dbs.controllers import Always, Controller, Never, Periodic
from sea_dbs.seeds import search_seeds

RATE_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of the policy's pulse rate, searched for the best periodic train
SEARCH_PLANTS = 8
SEARCH_DECISIONS = 6  # of 1 s after settling

Ints = NDArray[np.int8]


def slot_us(config: EnvConfig) -> Fraction:
    """Length of a slot (µs), exact."""
    return Fraction(1_000_000) / Fraction(config.stim_hz)


def decided(controller: Controller, config: EnvConfig, plants: int, steps: int) -> Ints:
    """(plants, steps, slots) of a controller that does not look."""
    return decisions_on(controller, np.zeros((plants, steps, 1), np.float32))


def second_by_second(config: EnvConfig, slot_hz: float) -> EnvConfig:
    """The same plant with slots of ``slot_hz`` and a decision a second, seen through GPi beta, nothing in the way."""
    values = {"stim_hz": slot_hz, "slots": round(slot_hz), "pd": config.pd, "drift": config.drift}
    kept = ("dt_ms", "amplitude_uA_cm2", "width_ms", "beta_threshold", "energy_price")
    return EnvConfig(preset="paper", **values, **{name: getattr(config, name) for name in kept})


def best_periodic(config: EnvConfig, duty: float, make: MakeWorld = make_world) -> Controller:
    """The regular train with the lowest P_beta among five rates up to that of ``duty``, found on search plants."""
    highest = duty * config.stim_hz
    if highest <= 0.0:
        return Never(config.slots)
    world = second_by_second(config, config.stim_hz)
    settled = settled_steps(world)
    steps = settled + SEARCH_DECISIONS
    world = world.model_copy(update={"precision": "float32", "episode_steps": steps})
    beta: dict[float, float] = {}
    for share in RATE_SHARES:
        train = Periodic(world.slots, slot_us(world), min(share * highest, world.stim_hz))
        run = play(world, train, search_seeds(SEARCH_PLANTS), steps, make=make)
        beta[share] = float(np.nanmean(run.P_beta[:, settled + 1 :]))
    best = min(beta, key=lambda share: beta[share])
    if best * duty >= 1.0:
        return Always(config.slots)
    return Periodic(config.slots, slot_us(config), best * highest)
