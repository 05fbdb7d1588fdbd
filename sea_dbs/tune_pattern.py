"""A genetic search for repeating patterns of pulses with a bounded mean rate (the idea of Brocker et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from sea_dbs.controllers import TUNED, Never, Pattern, Periodic
from sea_dbs.files import atomic_write_bytes, prepare_output_dir, search_state, write_json
from sea_dbs.manifest import machine
from sea_dbs.progress import progress
from sea_dbs.seeds import held_out_seeds, search_seeds
from sea_dbs.statistics import interval, iqm
from sea_dbs.tasks import Task
from sea_dbs.trials import MOST_LOST, MakeVector, Values, make_vector, run_trials

STATE = "search.partial.json"
PICTURE = "tuning.png"
TOURNAMENT = 3  # patterns that compete for being a parent
ELITE = 2  # patterns that go on unchanged
SHORTLIST = 6  # patterns that are compared once more, on fresh search plants, beside the regular train
FRESH = 8  # fresh search plants: few plants and many patterns choose by luck

Mask = NDArray[np.int8]


@dataclass(frozen=True)
class PatternPlan:
    """A search for the pattern with the lowest beta at a mean rate of at most ``rate``."""

    rate: float = 45.0  # Hz
    slot_hz: float = 130.0  # Hz, slot rate: 130 or 50
    period_slots: int = 130  # slots until the pattern repeats
    generations: int = 20
    population: int = 16
    seeds: int = 4
    seconds: float = 5.0  # after settling
    confirm_seeds: int = 8  # held-out plants
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for a number out of range."""
        if self.slot_hz not in (50.0, 130.0):
            raise UserError(f"--slot-hz is {self.slot_hz:g}: 130 or 50 is expected")
        for name, value, low, high in (
            ("period-slots", self.period_slots, 2, 1300),
            ("generations", self.generations, 1, 100_000),
            ("population", self.population, 4, 1000),
            ("seeds", self.seeds, 1, 1000),
            ("seconds", self.seconds, 1.0, 3600.0),
            ("confirm-seeds", self.confirm_seeds, 2, 1000),
            ("seed", self.seed, 0, 2**31),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: from {low} to {high} are allowed")
        if not self.slot_hz / self.period_slots <= self.rate <= self.slot_hz:
            raise UserError(
                f"--rate is {self.rate:g} Hz: from {self.slot_hz / self.period_slots:.3g} Hz (a pulse a period of "
                f"{self.period_slots} slots) to {self.slot_hz:g} Hz are allowed"
            )

    @property
    def pulses(self) -> int:
        """Pulses of a pattern: the most that keep to the rate."""
        return int(np.floor(self.rate * self.period_slots / self.slot_hz + 1e-9))

    def task(self) -> Task:
        """The environment of the search: `paper` with these slots, a decision a second."""
        return Task("paper", {"stim_hz": self.slot_hz, "slots": round(self.slot_hz)})


def regular(plan: PatternPlan) -> Mask:
    """The pattern's pulses as evenly as the slots allow."""
    mask = np.zeros(plan.period_slots, np.int8)
    mask[np.arange(plan.pulses) * plan.period_slots // plan.pulses] = 1
    return mask


def grouped(plan: PatternPlan, group: int) -> Mask:
    """Groups of ``group`` pulses in slots side by side, the groups evenly spread."""
    mask = np.zeros(plan.period_slots, np.int8)
    groups = max(1, plan.pulses // group)
    for first in np.arange(groups) * plan.period_slots // groups:
        mask[(first + np.arange(group)) % plan.period_slots] = 1
    return repaired(mask, plan, np.random.default_rng(group))


def repaired(mask: Mask, plan: PatternPlan, generator: np.random.Generator) -> Mask:
    """The mask with pulses added or taken at random until it has its number."""
    mask = mask.copy()
    extra = int(mask.sum()) - plan.pulses
    if extra:
        places = np.flatnonzero(mask == (1 if extra > 0 else 0))
        mask[generator.choice(places, abs(extra), replace=False)] ^= 1
    return mask


def first_generation(plan: PatternPlan) -> list[Mask]:
    """The regular train, groups of several sizes, and random masks."""
    generator = np.random.default_rng([plan.seed, 0])
    masks = [regular(plan)]
    for group in (2, 3, 4, 6, 8, 12, 16):
        if group <= plan.pulses and len(masks) < plan.population // 2:
            masks.append(grouped(plan, group))
    while len(masks) < plan.population:
        masks.append(repaired(np.zeros(plan.period_slots, np.int8), plan, generator))
    return masks


def offspring(masks: Sequence[Mask], cost: Sequence[float], plan: PatternPlan, generation: int) -> list[Mask]:
    """The next generation: the best go on; parents by tournament, a stretch exchanged, pulses and stretches moved.

    It follows from the masks, their cost, the seed and the generation alone, so that a stopped search repeats.
    """
    generator = np.random.default_rng([plan.seed, generation])
    order = np.argsort(cost, kind="stable")
    following = [masks[i].copy() for i in order[:ELITE]]
    while len(following) < plan.population:
        mother, father = (
            masks[min(generator.integers(len(masks), size=TOURNAMENT), key=lambda i: cost[i])] for _ in "ab"
        )
        child = mother.copy()
        start, length = generator.integers(plan.period_slots), generator.integers(1, plan.period_slots)
        stretch = (start + np.arange(length)) % plan.period_slots
        if generator.random() < 0.7:
            child[stretch] = father[stretch]
        if generator.random() < 0.3:  # a stretch moves by some slots
            child[stretch] = np.roll(child[stretch], generator.integers(-8, 9))
        for _ in range(generator.poisson(1.5)):  # a pulse moves
            if 0 < child.sum() < len(child):
                child[generator.choice(np.flatnonzero(child))] = 0
                child[generator.choice(np.flatnonzero(child == 0))] = 1
        following.append(repaired(child, plan, generator))
    return following


def tune_pattern(
    plan: PatternPlan,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    make: MakeVector = make_vector,
) -> dict[str, Any]:
    """Search, choose among the best on fresh search plants, confirm on held-out ones.

    Writes tuned.json and tuning.png into ``out``.

    Returns:
        What tuned.json holds: ``parameters`` (mask and slot rate), ``history``, and ``confirmation``: on held-out
        plants, the best pattern against the regular train of as many pulses, paired, with its 95 % interval.

    Raises:
        UserError: a wrong plan, or a folder in use or of another plan.
    """
    plan.check()
    prepare_output_dir(out, overwrite=overwrite, resume=resume)
    seeds = search_seeds(plan.seeds)
    slots = round(plan.slot_hz)

    def percent(masks: Sequence[Mask]) -> list[float]:
        return _percent(plan, [_text(mask) for mask in masks], seeds, untreated, make)

    state = search_state(out / STATE, asdict(plan))
    if state is None:
        [never] = run_trials(plan.task(), [Never(slots)], seeds, plan.seconds, make=make)
        masks = [_text(mask) for mask in first_generation(plan)]
        state = {"plan": asdict(plan), "untreated": never.beta.tolist(), "masks": masks, "known": {}, "history": []}
    untreated = np.array(state["untreated"])
    known: dict[str, float] = state["known"]
    with progress("pattern search", plan.generations, len(state["history"]), quiet=quiet) as bar:
        while True:
            new = sorted({mask for mask in state["masks"] if mask not in known})
            known.update(zip(new, percent([_mask(mask) for mask in new]), strict=True) if new else ())
            cost = [known[mask] for mask in state["masks"]]
            if len(state["history"]) < plan.generations:
                state["history"].append({"best": min(cost), "mean": float(np.mean(cost)), "patterns": len(known)})
                bar.update(1, f"best {min(cost):.1f} % of untreated")
            if len(state["history"]) >= plan.generations:
                break
            following = offspring([_mask(one) for one in state["masks"]], cost, plan, len(state["history"]))
            state["masks"] = [_text(mask) for mask in following]
            write_json(out / STATE, state)
    even = _text(regular(plan))
    chosen = shortlist(plan, known, even, make)
    best = min(chosen, key=lambda mask: chosen[mask])
    result = {
        "kind": "tuned",
        "controller": "pattern",
        "parameters": {"mask": best, "slot_hz": plan.slot_hz},
        "best": {"mask": best, "beta_percent": known[best]},
        "shortlist": chosen,
        "regular": {"mask": even, "beta_percent": known[even]},
        "confirmation": confirm(plan, best, make),
        "history": state["history"],
        "patterns_tried": len(known),
        "plan": asdict(plan),
        "search_seeds": seeds,
        "machine": machine(),
    }
    write_json(out / TUNED, result)
    from sea_dbs import tune_figures

    picture = tune_figures.evolution(result)
    atomic_write_bytes(out / PICTURE, picture)
    (out / STATE).unlink(missing_ok=True)
    return result


def shortlist(plan: PatternPlan, known: dict[str, float], even: str, make: MakeVector) -> dict[str, float]:
    """The best patterns and the regular train on search plants that the search has not met: mask -> % of untreated."""
    masks = [*sorted(set(known) - {even}, key=lambda mask: (known[mask], mask))[:SHORTLIST], even]
    seeds = search_seeds(plan.seeds + FRESH)[plan.seeds :]
    [never] = run_trials(plan.task(), [Never(round(plan.slot_hz))], seeds, plan.seconds, make=make)
    return dict(zip(masks, _percent(plan, masks, seeds, never.beta, make), strict=True))


def confirm(plan: PatternPlan, mask: str, make: MakeVector = make_vector) -> dict[str, Any]:
    """The pattern and the regular train of as many pulses on plants that the search has not met."""
    slots, slot_us = round(plan.slot_hz), Fraction(1_000_000) / Fraction(plan.slot_hz)
    hz = plan.pulses * plan.slot_hz / plan.period_slots
    seeds = held_out_seeds(plan.confirm_seeds)
    trains = [Never(slots), Pattern(slots, slot_us, mask), Periodic(slots, slot_us, hz)]
    never, best, even = run_trials(plan.task(), trains, seeds, plan.seconds, make=make)
    own, other = 100.0 * best.beta / never.beta, 100.0 * even.beta / never.beta
    there = np.isfinite(own - other)  # a plant that diverged in one of them is in none
    if there.sum() < 2:
        raise UserError(
            f"{there.sum()} of {len(seeds)} held-out plants were left by every train: more --confirm-seeds are needed"
        )
    own, other = own[there], other[there]
    return {
        "held_out_seeds": seeds,
        "lost": len(seeds) - int(there.sum()),
        "pulse_hz": float(best.pulse_hz[there].mean()),
        "pattern_percent": iqm(own),
        "pattern_percent_ci95": interval(own),
        "regular_percent": iqm(other),
        "regular_percent_ci95": interval(other),
        "difference_ci95": interval(own - other),
    }


def _percent(
    plan: PatternPlan, masks: Sequence[str], seeds: Sequence[int], untreated: Values, make: MakeVector
) -> list[float]:
    """P_beta of each pattern, % of untreated."""
    slot_us = Fraction(1_000_000) / Fraction(plan.slot_hz)
    trains = [Pattern(round(plan.slot_hz), slot_us, mask) for mask in masks]
    trials = run_trials(plan.task(), trains, seeds, plan.seconds, make=make)
    return [_cost(one.beta / untreated) for one in trials]


def _cost(shares: Values) -> float:
    """Mean over the plants that were not lost (%); no pattern that loses over a quarter of them is chosen."""
    there = np.isfinite(shares)
    return 100.0 * float(shares[there].mean()) if there.mean() >= 1.0 - MOST_LOST else float("inf")


def _text(mask: Mask) -> str:
    return "".join(map(str, mask))


def _mask(text: str) -> Mask:
    return np.array([bit == "1" for bit in text], np.int8)
