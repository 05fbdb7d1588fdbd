"""From finished jobs to rows, and from rows to Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sea_dbs.benchmark.play import CONTINUOUS
from sea_dbs.benchmark.statistics import Estimate, aggregate
from sea_dbs.benchmark.store import Store
from sea_dbs.benchmark.suites import Entry
from sea_dbs.closed_loop import BLIND

#: measure -> (heading, digits, relative to untreated)
COLUMNS: dict[str, tuple[str, int, bool]] = {
    "P_beta": ("beta, % of untreated", 0, True),
    "pulse_hz": ("pulses a second", 1, False),
    "charge_percent": ("charge, % of 130 Hz", 0, False),
    "reward": ("reward a decision", 2, False),
    "error": ("tracking error, %", 0, True),
    "above_percent": ("time above target, %", 0, False),
}
MORE: dict[str, tuple[str, int, bool]] = {
    "P_beta_7_35": ("7-35 Hz, % of untreated", 0, True),
    "lfp_beta": ("LFP beta, % of untreated", 0, True),
    "burst_ms": ("burst, ms", 0, False),
    "bursts_per_min": ("bursts a minute", 0, False),
    "EI": ("error index", 2, False),
    "duty": ("duty", 2, False),
    "time_on_percent": ("time on, %", 0, False),
    "charge_smallest_percent": ("charge at the smallest pulse, %", 1, False),
    "teed_uW": ("TEED, µW", 1, False),
    "triggers_per_min": ("triggers a minute", 1, False),
}
BESIDE = {
    "random": "random at its duty",
    "periodic": "best periodic at its pulses",
    "other": "another plant's decisions",
}

OURS = ("sea-dbs", "trains", "trains-memory", "titration")  # SEA-DBS, in slots and over trains, and a rule


@dataclass(frozen=True)
class Row:
    """One controller on one task over its seeds: a value a seed (mean over its plants) for each measure."""

    task: str
    controller: str
    seeds: tuple[int, ...]
    values: dict[str, list[float]]
    labels: tuple[str, ...]
    violations: int
    losses: dict[str, Estimate]  # reward lost in each way of blinding, paired
    gains: dict[str, Estimate]  # % of untreated beta below random and periodic at its own pulses, paired
    beside: dict[str, dict[str, list[float]]]  # the same measures of `BESIDE`
    lost: int = 0  # plants of its seeds that diverged, in its own row or one beside it
    rewards: tuple[tuple[float, ...], ...] = ()  # a decision, of each seed's plants; nan where one diverged

    @property
    def word(self) -> str:
        """What stands in the table: the label of most seeds, and of how many."""
        own = "closed-loop" if self.losses else "reads beta"  # only a policy is tested for what it reads
        names = sorted(set(self.labels), key=lambda one: (-self.labels.count(one), one))
        if len(names) == 1:
            return names[0] or own
        return ", ".join(f"{one or own} {self.labels.count(one)} of {len(self.labels)}" for one in names)

    def estimate(self, measure: str) -> Estimate | None:
        """Interquartile mean over seeds with its interval."""
        return aggregate(self.values[measure]) if measure in self.values else None


def rows_of(store: Store, cells: Sequence[Entry]) -> list[Row]:
    """The rows of everything that is finished, in the order of the cells."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for cell in cells:
        if store.find(cell.job) is not None:
            groups.setdefault((cell.task, cell.controller), []).append(cell)
    untreated = {
        (cell.task, cell.seed): store.result(cell.job)["rows"]["own"]["measures"]
        for (_, controller), own in groups.items()
        if controller == "never"
        for cell in own
    }
    return [_row(store, own, untreated) for own in groups.values()]


def _row(store: Store, cells: Sequence[Entry], untreated: dict[tuple[str, int], dict[str, list[float]]]) -> Row:
    cells = [cell for cell in cells if (cell.task, cell.seed) in untreated]
    results = [store.result(cell.job) for cell in cells]
    without = [untreated[cell.task, cell.seed] for cell in cells]

    def values(name: str) -> dict[str, list[float]]:
        pairs = [(one["rows"][name]["measures"], other) for one, other in zip(results, without, strict=True)]
        return {key: [relative(key, own, other) for own, other in pairs] for key in pairs[0][0]}

    def difference(name: str, other: str, measure: str) -> Estimate:
        """Of two rows, a seed's mean over the plants that neither lost."""
        pairs = [(one["rows"][name]["measures"], one["rows"][other]["measures"]) for one in results]
        return aggregate([_apart(measure, a, b, base) for (a, b), base in zip(pairs, without, strict=True)])

    own = values("own")
    beside = {name: values(name) for name in BESIDE if name in results[0]["rows"]}
    blind = {mode: values(mode) for mode in BLIND if mode in results[0]["rows"]}
    return Row(
        task=cells[0].task,
        controller=cells[0].controller,
        seeds=tuple(cell.seed for cell in cells),
        values=own,
        labels=tuple(one["label"] for one in results),
        violations=sum(each["violations"] for one in results for each in one["rows"].values()),
        losses={mode: difference("own", mode, "reward") for mode in blind},
        gains={name: difference(name, "own", "P_beta") for name in beside if name != "other"},
        beside=beside,
        lost=sum(len(_lost_in(one)) for one in results),
        rewards=tuple(tuple(one["rows"]["own"]["measures"]["reward"]) for one in results),
    )


def reward_apart(own: Row, other: Row) -> Estimate | None:
    """By how much more reward one controller earns than another: a seed's mean over the plants that neither lost."""
    theirs = dict(zip(other.seeds, other.rewards, strict=True))
    pairs = [(one, theirs[seed]) for seed, one in zip(own.seeds, own.rewards, strict=True) if seed in theirs]
    apart = [np.array(a, np.float64) - np.array(b, np.float64) for a, b in pairs]
    means = [float(np.nanmean(one)) for one in apart if not np.isnan(one).all()]
    return aggregate(means) if len(means) > 1 else None


def _lost_in(result: Mapping[str, Any]) -> set[int]:
    """The plants of a job that diverged in any of its rows."""
    return {k for row in result["rows"].values() for k, word in enumerate(row.get("lost", ())) if word}


def _apart(
    measure: str, own: Mapping[str, list[float]], other: Mapping[str, list[float]], untreated: dict[str, list[float]]
) -> float:
    """By how much two runs of a seed differ, over the plants that neither lost."""
    mine, theirs = np.asarray(own[measure]), np.asarray(other[measure])
    gone = np.isnan(mine) | np.isnan(theirs)
    a, b = (relative(measure, {measure: np.where(gone, np.nan, one).tolist()}, untreated) for one in (mine, theirs))
    return a - b


def relative(measure: str, own: dict[str, list[float]], untreated: dict[str, list[float]]) -> float:
    """The mean over plants; a measure that is told as a share of untreated is divided plant by plant.

    The tracking error, which may be 0 on an untreated plant, is divided as a whole; NaN where untreated is 0 in all.
    """
    heading = COLUMNS.get(measure) or MORE.get(measure)
    told_as_share = heading is not None and heading[2]
    mine = np.asarray(own[measure])
    theirs = np.asarray(untreated[measure]) if told_as_share else mine
    there = ~(np.isnan(mine) | np.isnan(theirs))  # a plant that was lost counts in neither
    if not there.any():
        return float("nan")
    mine, theirs = mine[there], theirs[there]
    if not told_as_share:
        return float(np.mean(mine))
    if measure == "error" or (theirs == 0.0).any():
        return float(100.0 * mine.mean() / theirs.mean()) if theirs.mean() > 0.0 else float("nan")
    return float(np.mean(100.0 * mine / theirs))


def markdown(rows: Sequence[Row]) -> str:
    """The tables of one suite: effect, the closed-loop test, and all other measures."""
    parts = []
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task]
        parts += [f"#### Task `{task}`", "", _effect(own), ""]
        if any(row.losses for row in own):
            parts += [_closed_loop([row for row in own if row.losses]), ""]
        parts += ["<details><summary>all other measures</summary>", "", _others(own), "", "</details>", ""]
    return "\n".join(parts)


def _effect(rows: Sequence[Row]) -> str:
    lines = [["controller", *(heading for heading, _, _ in COLUMNS.values()), "seeds", "what it is"]]
    for row in rows:
        lines.append([row.controller, *_numbers(row, COLUMNS), str(len(row.seeds)), row.word])
        if row.controller in OURS:
            for name, words in BESIDE.items():
                if name in row.beside:
                    other = Row(row.task, words, row.seeds, row.beside[name], (), 0, {}, {}, {})
                    lines.append([f"↳ {words}", *_numbers(other, COLUMNS), str(len(row.seeds)), "open-loop"])
    return table(lines)


def _closed_loop(rows: Sequence[Row]) -> str:
    head = ["policy", *(f"reward lost, observation {words}" for words in BLIND.values())]
    head += ["beta below random at its duty, points", "beta below best periodic at its pulses, points", "verdict"]
    lines = [head]
    for row in rows:
        lost = [row.losses[mode].text(3) for mode in BLIND]
        gained = [row.gains[name].text(1) for name in ("random", "periodic")]
        lines.append([row.controller, *lost, *gained, row.word])
    return table(lines)


def _others(rows: Sequence[Row]) -> str:
    present = {key: value for key, value in MORE.items() if any(key in row.values for row in rows)}
    continuous = next((row for row in rows if row.controller == CONTINUOUS), None)
    lines = [["controller", "beta, % of 130 Hz", "suppression a charge", *(h for h, _, _ in present.values())]]
    for row in rows:
        share = "" if continuous is None else _share(row, continuous)
        lines.append([row.controller, share, _efficiency(row), *_numbers(row, present)])
    return table(lines)


def _share(row: Row, continuous: Row) -> str:
    by_seed = dict(zip(continuous.seeds, continuous.values["P_beta"], strict=True))
    pairs = [(v, by_seed[s]) for s, v in zip(row.seeds, row.values["P_beta"], strict=True) if s in by_seed]
    return aggregate([100.0 * own / other for own, other in pairs]).text(0) if pairs else ""


def _efficiency(row: Row) -> str:
    """% of untreated beta removed for each % of 130 Hz's charge."""
    pairs = zip(row.values["P_beta"], row.values["charge_percent"], strict=True)
    shares = [(100.0 - beta) / charge for beta, charge in pairs if charge > 0.0]
    return aggregate(shares).text(2) if shares else ""


def _numbers(row: Row, columns: dict[str, tuple[str, int, bool]]) -> list[str]:
    found = []
    for key, (_, digits, _) in columns.items():
        estimate = row.estimate(key)
        found.append("" if estimate is None or np.isnan(estimate.value) else estimate.text(digits))
    return found


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is its head."""
    head, *body = lines
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in body)]
    )


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON: every value a seed, and every estimate."""
    return [
        {
            "task": row.task,
            "controller": row.controller,
            "seeds": list(row.seeds),
            "what_it_is": row.word,
            "labels": list(row.labels),
            "violations": row.violations,
            "lost": row.lost,
            "values": row.values,
            "iqm": {key: vars(row.estimate(key)) for key in row.values},
            "reward_lost": {mode: vars(one) for mode, one in row.losses.items()},
            "beta_below": {name: vars(one) for name, one in row.gains.items()},
            "beside": row.beside,
        }
        for row in rows
    ]
