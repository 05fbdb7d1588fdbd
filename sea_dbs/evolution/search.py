"""The search itself: CMA-ES over candidates, each judged on plants that its generation alone meets.

Cost: P_beta in per cent of untreated, a price for each pulse a second above the budget (both also on plants of a milder
disease, where there are any), and one for each pulse a second on healthy plants, which need none. What a generation's
costs were is all that a stopped search needs: asking and telling again repeats it.
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
HEALTHY_S = 3.0  # s on each healthy plant
ALL_DIVERGED = 1_000.0  # %, cost of a candidate with which all plants of one severity diverged

Floats = NDArray[np.float64]


class Generation(NamedTuple):
    """What a generation did, a value a candidate."""

    number: int  # from 0
    beta_percent: Floats  # P_beta, % of untreated: mean over its plants of the configured severity
    beta: Floats  # mean P_beta (spikes²/s²) of these
    pulse_hz: Floats  # and pulses a second
    milder_percent: Floats  # P_beta, % of untreated, on plants of a milder disease; nan where none are met
    milder_hz: Floats  # and pulses a second
    healthy_hz: Floats  # pulses a second on healthy plants; 0 where none are met, nan where all diverged
    cost: Floats
    diverged: int  # trials whose plant diverged, left out of the means


class _Judged(NamedTuple):
    """Of each candidate on plants of one severity, means over them; ``diverged``: trials that are left out."""

    percent: Floats  # P_beta, % of untreated
    beta: Floats
    hz: Floats  # pulses a second
    cost: Floats  # percent, and the price of pulses above the budget
    diverged: int


def begin(candidates: Candidates, config: TrainConfig, gap_slots: int) -> Floats:
    """The candidate at which a search begins.

    Raises:
        UserError: a train that the policy cannot give.
    """
    if config.start == "earlier":
        return candidates.earlier()
    return candidates.groups(config.group_pulses, config.pulse_budget_hz, gap_slots)


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
        self.healthy = World(world.model_copy(update={"pd": 0.0}), HEALTHY_S)
        self.milder = World(world.model_copy(update={"pd": config.milder_pd}), config.candidate_s)
        self.candidates = Candidates(
            world.n_obs,
            world.slot_ms,
            gated=config.actor == "linear" and config.healthy_plants > 0,
            relative=config.actor == "relative",
        )
        # that of actor=relative is open in the search
        self.gate: Floats | None = None
        if config.actor == "gated":
            self.gate = self.candidates.gate()
        self._strategy = CMA(
            mean=begin(self.candidates, config, world.gap_slots),
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
        judged = self.config.candidate_plants + self.config.milder_plants
        slots = judged * self.world.n_slots + self.config.healthy_plants * self.healthy.n_slots
        return self.config.population * slots

    def generations(self) -> Iterator[Generation]:
        """Run to the end; yields each generation after the strategy has learnt from it."""
        while len(self.costs) < self.config.generations:
            number, ill, milder, sound = len(self.costs), *self._plants()
            first = number * (ill + milder + sound)
            seeds = [training_seed(self.config.seed, first + k) for k in range(ill + milder + sound)]
            candidates = self._ask()
            weights = self.candidates.weights(np.stack(candidates))
            judged = self._judge(self.world, weights, seeds[:ill])
            cost, lost = judged.cost, judged.diverged
            mild_percent = mild_hz = np.full(len(candidates), np.nan)
            if milder:
                those = self._judge(self.milder, weights, seeds[ill : ill + milder])
                cost, lost = (ill * cost + milder * those.cost) / (ill + milder), lost + those.diverged
                mild_percent, mild_hz = those.percent, those.hz
            healthy = np.zeros(len(candidates))
            if sound:
                told = self.healthy.play(weights, seeds[ill + milder :], self.gate).pulse_hz
                healthy, lost = _means(told), lost + int(np.isnan(told).sum())
            cost = np.nan_to_num(cost + self.config.healthy_price * healthy, nan=ALL_DIVERGED)
            self._tell(candidates, cost)
            yield Generation(number, judged.percent, judged.beta, judged.hz, mild_percent, mild_hz, healthy, cost, lost)

    def _judge(self, world: World, weights: Floats, seeds: Sequence[int]) -> _Judged:
        """What each candidate does on these plants, and what that costs."""
        untreated = world.untreated(seeds)
        done = world.play(weights, seeds, self.gate)
        percent, beta, hz = (_means(one) for one in (100.0 * done.beta / untreated, done.beta, done.pulse_hz))
        over = np.maximum(0.0, hz - self.config.pulse_budget_hz)
        return _Judged(percent, beta, hz, percent + BUDGET_PRICE * over, int(np.isnan(done.beta).sum()))

    def _plants(self) -> tuple[int, int, int]:
        """Of a generation: parkinsonian, with a milder disease, healthy."""
        return self.config.candidate_plants, self.config.milder_plants, self.config.healthy_plants

    def weights(self) -> Floats:
        """The policy that the search stands at: a weight for each observed value, and the bias."""
        return self.candidates.weights(self.mean)

    @property
    def mean(self) -> Floats:
        """The candidate that the search stands at."""
        return np.asarray(self._strategy.mean)

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
