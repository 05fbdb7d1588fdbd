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
from sea_dbs.controllers import AMPLITUDE, FEEDBACK, NAMES, TESTING, make_controller
from sea_dbs.evaluation_rows import WORLD_KEYS, settle_steps
from sea_dbs.seeds import held_out_seeds, search_seeds
from sea_dbs.tasks import COHORT, find_task

KNOWN = (*NAMES, "policy")
DEFAULT = ("never", "always", "periodic", "random")  # beside the policy


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

    def patients(self) -> dict[int, Patient]:
        """Whom each plant seed stands for; empty: networks drawn at random.

        Trains are searched on patients of the other half of the cohort.
        """
        if not self.cohort:
            return {}
        task = find_task("cohort")
        held_out = zip(held_out_seeds(self.seeds), task.patients("test"), strict=False)
        searched = zip(search_seeds(self.search_seeds), task.patients("train"), strict=False)
        return {**dict(held_out), **dict(searched)}

    def check(self, config: TrainConfig) -> None:
        """Raise UserError for an unknown controller, or a number out of range."""
        sees_beta = config.world().view != "timing"
        for name in self.controllers:
            kind = name.partition(":")[0]
            if kind not in KNOWN:
                raise UserError(f"unknown controller '{name}': choose from {', '.join(KNOWN)}")
            if kind in AMPLITUDE:
                raise UserError(
                    f"'{kind}' sets amplitudes, which these plants answer all or nothing: it is for the task 'graded' "
                    "(sea-dbs benchmark --suite amplitude)"
                )
            if kind in (*FEEDBACK, *TESTING) and not sees_beta:
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
        if self.cohort and not 1 <= self.seeds <= COHORT:
            raise UserError(f"{self.seeds} --seeds were asked for: the cohort has 1 to {COHORT} patients to test on")
        if self.cohort and any(item.partition("=")[0] == "pd" for item in self.world):
            raise UserError("--set pd does not go with --cohort: each patient has a severity of its own")
        least = settle_steps(config) + 1
        if self.steps is not None and not least <= self.steps <= 100_000:
            raise UserError(f"{self.steps} steps were asked for: from {least} to 100000 are allowed with this preset")
        samples = Fraction(slots * 1000) / Fraction(config.stim_hz or 0) / Fraction(str(config.dt_ms))  # of a decision
        if (self.steps or 0) % samples.denominator and config.world().mode == "recommended":
            raise UserError(
                f"{self.steps} steps were asked for, here no whole number of samples of {config.dt_ms:g} ms: "
                f"multiples of {samples.denominator} are allowed"
            )


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
        if values[key] is None:
            raise UserError(f"--set {item} names no value")
    return config_from_mapping({**config.model_dump(), "episode_steps": steps, **values}, "the evaluation")
