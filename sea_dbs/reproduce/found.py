"""What our runs give for each figure, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sea_dbs.benchmark.jobs import Job
from sea_dbs.benchmark.statistics import Curve, Estimate, aggregate, curve
from sea_dbs.benchmark.store import Store
from sea_dbs.reproduce.plan import Part

Values = NDArray[np.float64]


def training(store: Store, part: Part, measure: str) -> Curve:
    """A measure of training by episode (mean over an episode's decisions): (episodes,) over seeds."""
    runs = []
    for job in part.jobs:
        series = store.series(_training_of(job))
        episodes = series["episode"].astype(int)
        counts = np.bincount(episodes)
        runs.append(np.bincount(episodes, weights=series[measure].astype(np.float64)) / np.maximum(counts, 1))
    shortest = min(len(one) for one in runs)
    values = np.array([one[:shortest] for one in runs])
    return curve(np.arange(shortest, dtype=np.float64), values)


def inference(store: Store, part: Part, last: int = 10) -> Curve:
    """P_beta at inference by step, mean over a seed's plants: (last + 1,) over seeds."""
    runs = np.array([np.nanmean(store.series(job)["P_beta"], axis=0)[: last + 1] for job in part.jobs], np.float64)
    return curve(np.arange(runs.shape[1], dtype=np.float64), runs)


def measure(store: Store, part: Part, name: str) -> Estimate:
    """A measure of the runs: interquartile mean over seeds."""
    return aggregate([float(np.nanmean(store.result(job)["rows"]["own"]["measures"][name])) for job in part.jobs])


def labels(store: Store, part: Part) -> list[str]:
    """What each seed's policy is."""
    return [store.result(job)["label"] or "closed-loop" for job in part.jobs]


def ready(store: Store, parts: Sequence[Part]) -> list[Part]:
    """The parts with finished jobs, these alone in them."""
    kept = []
    for part in parts:
        jobs = tuple(job for job in part.jobs if store.find(job) is not None)
        if jobs:
            kept.append(Part(part.figure, part.task, part.variant, jobs, part.steps, part.precision))
    return kept


def at(found: Curve, place: int) -> dict[str, Any]:
    """One point of a curve; beyond its end, the last one."""
    i = min(place, len(found.value) - 1)
    return {"value": float(found.value[i]), "low": float(found.low[i]), "high": float(found.high[i])}


def _training_of(job: Job) -> Job:
    return next(needed for needed in job.needs if needed.kind == "train")
