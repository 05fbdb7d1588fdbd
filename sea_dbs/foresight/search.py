"""The search on one plant: a beam of futures, each continued by many trains for a tenth of a second, the best kept.

It is greedy and tries little of what there is, so what it finds is no bound: other timing, or a longer search, may
bring beta lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.plant.batch_block import LaneState
from sea_dbs.foresight.plants import (
    DT_MS,
    MIN_GAP,
    WIDTH,
    Onsets,
    Plant,
    Spikes,
    Trials,
    mean_beta,
    newest_beta,
    samples,
)
from sea_dbs.seeds import BLOCK

SETTLE_MS = 1000.0  # ms of stimulation before the first window that counts, ours
EVERY_MS = 100.0  # ms between two windows that count, ours
STEADY = 0.6  # share of the candidates that spend what comes in; the others any number of what there is; ours
REGULAR, MOVED, RANDOM = 0.35, 0.70, 0.85  # shares of the kinds of train, cumulative; the rest are groups; ours
JITTERS_MS = (1.0, 3.0, 6.0)  # ms, standard deviations of moved trains, ours
GROUP = (2, 8)  # pulses of a group, the second number excluded, ours
GROUP_GAP_MS = (7.5, 14.0)  # ms between the pulses of a group, ours


@dataclass(frozen=True)
class ForesightPlan:
    """What is searched: on ``plants`` held-out plants, ``seconds`` each, no more pulses than ``rate`` allows so far."""

    rate: float = 45.5  # Hz: 35 % of 130 Hz
    plants: int = 8
    seconds: float = 6.0
    segment_ms: float = 100.0
    candidates: int = 64  # trains tried for each segment
    beam: int = 6
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for a number out of range, or a time that is no whole number of its parts."""
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
        if not _whole(self.segment_ms / DT_MS):
            raise UserError(f"--segment-ms is {self.segment_ms:g}: a multiple of {DT_MS:g} is needed")
        if not _whole(self.seconds * 1000.0 / self.segment_ms):
            raise UserError(f"--seconds is {self.seconds:g}: whole segments of {self.segment_ms:g} ms are needed")

    @property
    def segments(self) -> int:
        """Segments of a run."""
        return round(self.seconds * 1000.0 / self.segment_ms)

    @property
    def samples(self) -> int:
        """Samples of a run."""
        return self.segments * samples(self.segment_ms)

    def allowed(self, segments: int) -> int:
        """Pulses that the rate allows within so many segments, from the start."""
        return math.floor(self.rate * segments * self.segment_ms / 1000.0 + 1e-9)


def _whole(ratio: float) -> bool:
    return abs(ratio - round(ratio)) < 1e-9 * max(1.0, ratio)


class Future(NamedTuple):
    """One way in which the plant may have gone on so far."""

    beta: float  # P_beta of the newest window
    state: LaneState
    spikes: Spikes
    onsets: Onsets  # all pulses so far


class Found(NamedTuple):
    """What one plant gave: mean P_beta untreated, under the regular train and under the best of the search."""

    untreated: float
    regular: float
    best: float
    regular_hz: float  # pulses a second
    best_hz: float
    onsets: Onsets  # the best train
    diverged: int  # candidates whose network did


def search(plant: Plant, plan: ForesightPlan, threads: int = 1) -> Found:
    """Follow the best futures of one plant to the end; equal seeds find the same.

    The regular train's future is one of those that go on, so the best is never above it.

    Raises:
        UserError: the untreated plant, the regular train, or every candidate of a segment diverges.
    """
    end, length = plan.samples, samples(plan.segment_ms)
    generator = np.random.default_rng([plan.seed, plant.seed])
    regular = regular_onsets(plan)
    untreated, train = (_alone(plant, onsets, end) for onsets in (np.zeros(0, np.int64), regular))
    trials = Trials(plant, plan.candidates, threads)
    beam = [Future(math.inf, plant.state, plant.spikes, np.zeros(0, np.int64))]
    for segment in range(plan.segments):
        at, allowed = segment * length, plan.allowed(segment + 1)
        income = allowed - plan.allowed(segment)
        parents = [beam[i % len(beam)] for i in range(plan.candidates)]
        trains = [_own(parent, allowed, income, at, length, generator) for parent in parents]
        trains[0] = regular[(regular >= at) & (regular < at + length)] - at  # of the first, which has kept to it
        trials.put([parent.state for parent in parents], at)
        children = [
            _child(parent, own, spikes, trials.take(i), at, at + length)
            for i, (parent, own, spikes) in enumerate(zip(parents, trains, trials.advance(trains, length), strict=True))
            if spikes is not None
        ]
        if not children or not np.array_equal(children[0].onsets, regular[regular < at + length]):
            raise UserError(f"plant {plant.seed} diverged at {at * DT_MS:.0f} ms: {trials.failures[-1]}")
        beam = [children[0], *sorted(children[1:], key=lambda one: one.beta)[: plan.beam]]
    best = min(beam, key=lambda one: _mean(one.spikes, end))
    seconds = end * DT_MS / 1000.0
    return Found(
        untreated=untreated,
        regular=train,
        best=_mean(best.spikes, end),
        regular_hz=len(regular) / seconds,
        best_hz=len(best.onsets) / seconds,
        onsets=best.onsets,
        diverged=len(trials.failures),
    )


def regular_onsets(plan: ForesightPlan) -> Onsets:
    """The regular train of the plan's rate, kept in real time; no pulse crosses a segment's end."""
    length = samples(plan.segment_ms)
    onsets = np.rint(np.arange(plan.allowed(plan.segments)) * (1000.0 / plan.rate / DT_MS)).astype(np.int64)
    kept: Onsets = np.where(onsets % length > length - WIDTH, (onsets // length + 1) * length, onsets)
    return kept


def _own(parent: Future, allowed: int, income: int, at: int, length: int, generator: np.random.Generator) -> Onsets:
    """A train for a parent's next segment, from what it has not spent."""
    purse = max(0, allowed - len(parent.onsets))  # the regular train may be one pulse ahead
    spend = min(income, purse) if generator.random() < STEADY else int(generator.integers(0, purse + 1))
    last = int(parent.onsets[-1]) - at if len(parent.onsets) else -MIN_GAP
    return candidate(spend, length, last, generator)


def candidate(due: int, length: int, last: int, generator: np.random.Generator) -> Onsets:
    """A train of at most ``due`` pulses for a segment: regular at any phase, moved, random, or in groups.

    Args:
        due: pulses.
        length: samples of the segment.
        last: the newest pulse before it, from its start (negative).
        generator: chance.

    Returns:
        Onsets (n,) within the segment, MIN_GAP or more apart; what does not fit is left out (and can be spent later).
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
    kept = []
    for onset in np.sort(onsets):
        at = max(int(np.clip(onset, 0, length - WIDTH)), last + MIN_GAP)
        if at > length - WIDTH:
            break
        kept.append(at)
        last = at
    return np.array(kept, np.int64)


def _child(parent: Future, own: Onsets, spikes: Spikes, state: LaneState, at: int, end: int) -> Future:
    together = np.concatenate([parent.spikes, spikes])
    return Future(newest_beta(together, end), state, together, np.concatenate([parent.onsets, own + at]))


def _alone(plant: Plant, onsets: Onsets, end: int) -> float:
    """Mean P_beta of the plant under one train."""
    trials = Trials(plant, 1)
    [spikes] = trials.advance([onsets], end)
    if spikes is None:
        raise UserError(f"plant {plant.seed} diverged without a search: {trials.failures[-1]}")
    return _mean(np.concatenate([plant.spikes, spikes]), end)


def _mean(spikes: Spikes, end: int) -> float:
    return mean_beta(spikes, samples(SETTLE_MS), end, samples(EVERY_MS))
