"""What an evaluation compares, on which plants, and in which world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from envs.errors import UserError
from envs.patients import Patient
from sea_dbs.config import TrainConfig, config_from_mapping, parse_value
from sea_dbs.controllers import FEEDBACK, NAMES, make_controller
from sea_dbs.evaluation_rows import settle_steps
from sea_dbs.seeds import held_out_seeds
from sea_dbs.tasks import find_task

KNOWN = (*NAMES, "policy")
DEFAULT = ("never", "always", "periodic", "random")  # beside the policy
#: What an evaluation may change of the environment that a policy was trained in.
WORLD_KEYS = ("pd", "drift", "delay_steps", "noise_sd", "artefact", "missing_share", "amplitude_uA_cm2", "width_ms")


@dataclass(frozen=True)
class Plan:
    """What is evaluated: on ``seeds`` held-out plants, ``steps`` decisions each."""

    controllers: tuple[str, ...] = ()  # empty: never, always, periodic, random, policy, and on-off where beta is seen
    seeds: int = 10
    steps: int | None = None  # None: the episode length of the run
    search_seeds: int = 3  # plants of the search for the best periodic train
    world: tuple[str, ...] = ()  # KEY=VALUE: the environment's values where they are other than in training
    cohort: bool = False  # patients that no training meets, one a plant, in place of networks drawn at random

    beside: Path | None = None  # another evaluation of the same plants, whose rows stand beside these

    def for_run(self, config: TrainConfig) -> Plan:
        """The plan with the controllers that are compared if none is named."""
        if self.controllers:
            return self
        sees_beta = config.world().view != "timing"
        return replace(self, controllers=(*DEFAULT, "on-off", "policy") if sees_beta else (*DEFAULT, "policy"))

    def patients(self) -> tuple[Patient, ...]:
        """Whom the plants are; empty: networks drawn at random."""
        return find_task("cohort").patients("test") if self.cohort else ()

    def check(self, config: TrainConfig) -> None:
        """Raise UserError for an unknown controller, or a number out of range."""
        sees_beta = config.world().view != "timing"
        for name in self.controllers:
            kind = name.partition(":")[0]
            if kind not in KNOWN:
                raise UserError(f"unknown controller '{name}': choose from {', '.join(KNOWN)}")
            if kind in FEEDBACK and not sees_beta:
                raise UserError(f"'{kind}' reads the newest beta, which the preset '{config.preset}' does not show")
            if name == "replayed" and self.seeds < 2:
                raise UserError(
                    "'replayed' plays the policy's decisions on another plant: 2 --seeds or more are needed"
                )
        slots, slot_us = config.slots or 0, Fraction(1_000_000) / Fraction(config.stim_hz or 0)
        for name in self.controllers:  # a file that does not fit is found before anything runs
            if name not in ("policy", "replayed", "periodic", "random"):
                make_controller(name, slots, slot_us)
        held_out_seeds(self.seeds)
        least = settle_steps(config) + 1
        if self.steps is not None and not least <= self.steps <= 100_000:
            raise UserError(f"{self.steps} steps were asked for: from {least} to 100000 are allowed with this preset")


def other_world(config: TrainConfig, given: Sequence[str], steps: int) -> TrainConfig:
    """The run's config with ``steps`` decisions an episode and the values of ``given`` (KEY=VALUE).

    Raises:
        UserError: a key that an evaluation must not change, or a value out of its range.
    """
    values: dict[str, Any] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals or key not in WORLD_KEYS:
            raise UserError(f"--set {item}: KEY=VALUE with one of {', '.join(WORLD_KEYS)} is expected")
        values[key] = parse_value(text, item)
    return config_from_mapping({**config.model_dump(), "episode_steps": steps, **values}, "the evaluation")
