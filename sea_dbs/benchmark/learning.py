"""Learning curves of the training jobs: how many samples a learner needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sea_dbs.benchmark.statistics import Curve, Estimate, aggregate, curve, first_reached
from sea_dbs.benchmark.store import Store
from sea_dbs.benchmark.suites import Entry

POINTS = 60  # of a curve: means over as many stretches of the run
SMOOTH = 5  # points over which "reached" is judged
BASELINE = "ddpg"
LAST = 0.1  # share of the run whose mean is the level that a learner ends at

Values = NDArray[np.float64]


def runs_of(store: Store, cells: Sequence[Entry], task: str) -> dict[str, dict[int, dict[str, Values]]]:
    """learner -> seed -> binned curve (steps, P_beta, reward, duty) of every finished training on this task.

    None where policies are trained on another task: their curves are that one's.
    """
    found: dict[str, dict[int, dict[str, Values]]] = {}
    for cell in cells:
        training = [needed for needed in cell.job.needs if needed.kind == "train"]
        if training and cell.task == task == training[0].spec["task"] and store.find(training[0]) is not None:
            found.setdefault(cell.controller, {})[cell.seed] = binned(store.series(training[0]))
    return found


def binned(series: dict[str, Any]) -> dict[str, Values]:
    """A run's values, averaged over stretches of equal length."""
    n = len(series["step"])
    edges = np.unique(np.linspace(0, n, min(POINTS, n) + 1).round().astype(int))

    def means(name: str) -> Values:
        return np.array([np.mean(series[name][a:b]) for a, b in itertools.pairwise(edges)])

    return {"steps": np.asarray(series["step"], np.float64)[edges[1:] - 1]} | {
        name: means(name) for name in ("P_beta", "reward", "duty")
    }


def curves(runs: dict[str, dict[int, dict[str, Values]]], measure: str) -> dict[str, Curve]:
    """learner -> its curve over seeds."""
    return {
        name: curve(next(iter(seeds.values()))["steps"], np.array([one[measure] for one in seeds.values()], np.float64))
        for name, seeds in runs.items()
    }


def samples_needed(runs: dict[str, dict[int, dict[str, Values]]]) -> dict[str, dict[str, Any]]:
    """Environment steps to the level of P_beta that the DDPG baseline ends at, and their ratio to the baseline's own.

    Returns:
        learner -> ``steps`` (a value a seed; infinite: never), ``ratio`` (`Estimate` or None), ``never`` (seeds).
    """
    if BASELINE not in runs:
        return {}
    ends = [_end(one["P_beta"]) for one in runs[BASELINE].values()]
    level = float(np.mean(ends))
    needed = {
        name: {seed: first_reached(one["steps"], _smoothed(one["P_beta"]), level) for seed, one in seeds.items()}
        for name, seeds in runs.items()
    }
    own = needed[BASELINE]
    result: dict[str, dict[str, Any]] = {}
    for name, seeds in needed.items():
        ratios = [
            steps / own[seed] for seed, steps in seeds.items() if seed in own and np.isfinite([steps, own[seed]]).all()
        ]
        ratio: Estimate | None = aggregate(ratios) if ratios else None
        never = sum(not np.isfinite(steps) for steps in seeds.values())
        result[name] = {"level": level, "steps": list(seeds.values()), "ratio": ratio, "never": never}
    return result


def _end(values: Values) -> float:
    return float(np.mean(values[-max(1, round(LAST * len(values))) :]))


def _smoothed(values: Values) -> Values:
    width = min(SMOOTH, len(values))
    kernel = np.ones(width)
    summed = np.convolve(values, kernel)[: len(values)]
    counts = np.convolve(np.ones(len(values)), kernel)[: len(values)]
    smooth: Values = summed / counts
    return smooth
