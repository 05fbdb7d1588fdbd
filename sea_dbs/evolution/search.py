"""The search itself: CMA-ES over candidates, each judged on plants that its generation alone meets.

Cost: P_beta in per cent of untreated, and a price for each pulse a second above the budget. What a generation's costs
were is all that a stopped search needs: asking and telling again repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from cmaes import CMA  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray

from sea_dbs.config import TrainConfig
from sea_dbs.evolution.kernels import Candidates
from sea_dbs.evolution.plants import World
from sea_dbs.seeds import stream, training_seed

BUDGET_PRICE = 2.0  # % of untreated beta a Hz above the budget, ours: along regular trains a Hz buys about 0.5 %
ALL_DIVERGED = 1_000.0  # %, cost of a candidate on whose plants nothing could be measured

Floats = NDArray[np.float64]


class Generation(NamedTuple):
    """What a generation did, a value a candidate."""

    number: int  # from 0
    beta_percent: Floats  # P_beta, % of untreated: mean over its plants
    beta: Floats  # mean P_beta (spikes²/s²)
    pulse_hz: Floats
    cost: Floats
    diverged: int  # trials whose plant diverged, left out of the means


class Evolution:
    """A search between two generations.

    Args:
        config: of the run, with learner "evolution".
        costs: of the generations that were done before, each (population,).
    """

    def __init__(self, config: TrainConfig, costs: Sequence[Floats] = ()) -> None:
        self.config = config
        world = config.world(precision=config.plant_precision)
        self.world = World(world, config.candidate_s)
        self.candidates = Candidates(world.n_obs, world.slot_ms)
        self._strategy = CMA(
            mean=self.candidates.regular(config.pulse_budget_hz),
            sigma=config.sigma_0,
            population_size=config.population,
            seed=stream(config.seed, "evolution") % 2**32,
        )
        self.costs: list[Floats] = []
        for cost in costs:
            self._tell(self._ask(), cost)

    @property
    def steps_a_generation(self) -> int:
        """Environment steps of a generation."""
        return self.config.population * self.config.candidate_plants * self.world.n_slots

    def generations(self) -> Iterator[Generation]:
        """Run to the end; yields each generation after the strategy has learnt from it."""
        while len(self.costs) < self.config.generations:
            number, n = len(self.costs), self.config.candidate_plants
            seeds = [training_seed(self.config.seed, number * n + k) for k in range(n)]
            candidates = self._ask()
            untreated = self.world.untreated(seeds)
            done = self.world.play(self.candidates.weights(np.stack(candidates)), seeds)
            percent, beta, hz = (_means(one) for one in (100.0 * done.beta / untreated, done.beta, done.pulse_hz))
            over = np.maximum(0.0, hz - self.config.pulse_budget_hz)
            cost = np.nan_to_num(percent + BUDGET_PRICE * over, nan=ALL_DIVERGED)
            self._tell(candidates, cost)
            yield Generation(number, percent, beta, hz, cost, int(np.isnan(done.beta).sum()))

    def weights(self) -> Floats:
        """The policy that the search stands at: a weight for each observed value, and the bias."""
        return self.candidates.weights(np.asarray(self._strategy.mean))

    def _ask(self) -> list[Floats]:
        return [self._strategy.ask() for _ in range(self.config.population)]

    def _tell(self, candidates: Sequence[Floats], cost: Floats) -> None:
        self._strategy.tell([(one, float(value)) for one, value in zip(candidates, cost, strict=True)])
        self.costs.append(np.asarray(cost))


def _means(values: Floats) -> Floats:
    """(candidates, plants) -> the mean of what is there; nan where nothing is."""
    there = ~np.isnan(values)
    total, n = np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
