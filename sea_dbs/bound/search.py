"""The search on one plant: a beam of futures, each tenth of a second continued by many trains, the best kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant.batch_block import LaneState
from sea_dbs.bound.plants import WIDTH, Onsets, Plant, Spikes, Trials, mean_beta, newest_beta, samples
from sea_dbs.seeds import BLOCK

SETTLE_MS = 1000.0  # of stimulation, before the windows whose mean counts begin
EVERY_MS = 100.0  # between two windows of that mean
MIN_GAP = samples(1000.0 / 185.0)  # samples between onsets: 185 Hz is the fastest that the envelope allows
JITTERS_MS = (1.0, 3.0, 6.0)  # standard deviation of the moved trains
REGULAR, MOVED, RANDOM = 0.35, 0.70, 0.85  # shares of the candidates, cumulative; the rest are groups
GROUP = (2, 5)  # pulses of a group, the second excluded
GROUP_GAP_MS = (7.5, 14.0)  # between the pulses of a group


@dataclass(frozen=True)
class BoundPlan:
    """What is searched: on ``plants`` held-out plants, ``seconds`` each, at most ``rate`` pulses a second."""

    rate: float = 45.5  # Hz: 35 % of 130 Hz
    plants: int = 8
    seconds: float = 6.0
    segment_ms: float = 100.0
    candidates: int = 64
    beam: int = 6
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for a number out of range."""
        for name, value, low, high in (
            ("rate", self.rate, 2.0, 130.0),
            ("plants", self.plants, 2, BLOCK),
            ("seconds", self.seconds, 3.0, 600.0),
            ("segment-ms", self.segment_ms, 20.0, 1000.0),
            ("candidates", self.candidates, 2, 4096),
            ("beam", self.beam, 1, self.candidates),
            ("seed", self.seed, 0, 2**31),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value:g}: from {low:g} to {high:g} are allowed")

    @property
    def segments(self) -> int:
        """Whole segments of a run."""
        return math.floor(self.seconds * 1000.0 / self.segment_ms + 1e-9)


class Future(NamedTuple):
    """One way in which the plant may have gone on so far."""

    beta: float  # of the newest window
    state: LaneState
    spikes: Spikes
    last: int  # sample of the newest pulse, from the segment's start; negative
    pulses: int


class Found(NamedTuple):
    """What one plant gave: P_beta untreated, under the regular train, and under the best of the search."""

    untreated: float
    regular: float
    best: float
    pulse_hz: float


def search(plant: Plant, plan: BoundPlan, threads: int = 1) -> Found:
    """Follow the best futures of one plant to the end; the same seed finds the same."""
    n, length = plan.segments, samples(plan.segment_ms)
    end, generator = n * length, np.random.default_rng([plan.seed, plant.seed])
    untreated, regular = _compared(plant, plan.rate, end)
    trials = Trials([plant] * plan.candidates, threads)
    beam = [Future(math.inf, plant.state, plant.spikes, -MIN_GAP, 0)]
    for segment in range(n):
        due = pulses_until(plan, segment + 1) - pulses_until(plan, segment)
        parents = [beam[i % len(beam)] for i in range(plan.candidates)]
        trains = [candidate(due, length, parent.last, generator) for parent in parents]
        trials.put([parent.state for parent in parents], segment * length)
        ran = trials.advance(trains, length)
        children = [
            _child(parents[i], trains[i], spikes, trials.take(i), segment * length, length)
            for i, spikes in enumerate(ran)
            if spikes is not None
        ]
        if not children:
            raise UserError(f"every network of plant {plant.seed} diverged in the segment {segment} of the search")
        beam = sorted(children, key=lambda one: one.beta)[: plan.beam]
    best = min(beam, key=lambda one: _mean(one.spikes, end))
    return Found(untreated, regular, _mean(best.spikes, end), 1000.0 * best.pulses / (n * plan.segment_ms))


def pulses_until(plan: BoundPlan, segment: int) -> int:
    """Pulses that the rate allows before a segment begins."""
    return math.floor(plan.rate * segment * plan.segment_ms / 1000.0 + 1e-9)


def candidate(due: int, length: int, last: int, generator: np.random.Generator) -> Onsets:
    """A train of at most ``due`` pulses for a segment: regular at any phase, moved, random, or in groups.

    Args:
        due: pulses.
        length: samples of the segment.
        last: the newest pulse before it, from its start (negative).
        generator: chance.
    """
    if due < 1:
        return np.zeros(0, np.int64)
    kind, period = generator.random(), length / due
    onsets = (np.arange(due) + generator.random()) * period
    if REGULAR <= kind < MOVED:
        onsets = onsets + generator.normal(0.0, samples(generator.choice(JITTERS_MS)), due)
    elif MOVED <= kind < RANDOM:
        onsets = generator.random(due) * length
    elif kind >= RANDOM:
        size = int(generator.integers(*GROUP))
        groups = -(-due // size)
        first = (np.arange(groups) + generator.random()) * length / groups
        gap = samples(generator.uniform(*GROUP_GAP_MS))
        onsets = (first[:, None] + gap * np.arange(size)).ravel()[:due]
    return _apart(onsets, length, last)


def _apart(onsets: NDArray[Any], length: int, last: int) -> Onsets:
    """Samples within the segment, no two closer than the envelope allows; what does not fit is left out."""
    kept = []
    for onset in np.sort(onsets):
        at = max(int(np.clip(onset, 0, length - WIDTH)), last + MIN_GAP)
        if at > length - WIDTH:
            break
        kept.append(at)
        last = at
    return np.array(kept, np.int64)


def _child(parent: Future, train: Onsets, spikes: Spikes, state: LaneState, start: int, length: int) -> Future:
    together = np.concatenate([parent.spikes, spikes])
    last = (int(train[-1]) if len(train) else parent.last) - length  # from the next segment's start
    return Future(newest_beta(together, start + length), state, together, last, parent.pulses + len(train))


def _compared(plant: Plant, rate: float, end: int) -> tuple[float, float]:
    """P_beta without a pulse, and under the regular train of the same rate."""
    regular = np.rint(np.arange(0.0, end - WIDTH, samples(1000.0 / rate))).astype(np.int64)
    values = []
    for spikes in Trials([plant] * 2).advance([np.zeros(0, np.int64), regular], end):
        if spikes is None:
            raise UserError(f"the network of plant {plant.seed} diverged without a search")
        values.append(_mean(np.concatenate([plant.spikes, spikes]), end))
    return values[0], values[1]


def _mean(spikes: Spikes, end: int) -> float:
    return mean_beta(spikes, samples(SETTLE_MS), end, samples(EVERY_MS))
