"""What happens second by second on a task whose plants drift: whether a controller follows beta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from sea_dbs.benchmark.statistics import Curve, curve
from sea_dbs.benchmark.store import Store
from sea_dbs.benchmark.suites import Entry
from sea_dbs.tasks import find_task

Values = NDArray[np.float64]


def courses(store: Store, cells: Sequence[Entry], task: str) -> dict[str, dict[str, Curve]]:
    """Measure -> controller -> its course over seconds, interquartile mean over seeds; empty where nothing drifts.

    Of the seeds that every controller has finished, so that all curves stand on the same plants; of those, a
    controller's own losses are left out.
    """
    if find_task(task).config().drift == "none":
        return {}
    finished: dict[str, dict[int, Entry]] = {}
    for cell in cells:
        if cell.task == task and store.find(cell.job) is not None:
            finished.setdefault(cell.controller, {})[cell.seed] = cell
    runs = {name: {seed: _means(store.series(one.job)) for seed, one in own.items()} for name, own in finished.items()}
    whole = [{seed for seed, run in own.items() if np.isfinite(run).all()} for own in runs.values()]
    common = sorted(set.intersection(*whole)) if whole else []
    found: dict[str, dict[str, Curve]] = {"P_beta": {}, "pulses a second": {}}
    if not common:
        return {}
    for controller, own in runs.items():
        spec = finished[controller][common[0]].job.spec
        beta, pulses = np.array([own[seed] for seed in common]).transpose(1, 0, 2)
        # A controller with slots of its own decides less often, over the same time.
        decision_s = spec["steps"] * EnvConfig.model_validate(spec["world"]).decision_ms / 1000.0 / beta.shape[1]
        seconds = np.arange(1, beta.shape[1] + 1, dtype=np.float64) * decision_s
        found["P_beta"][controller] = curve(seconds, beta)
        found["pulses a second"][controller] = curve(seconds, pulses / decision_s)
    return found


def _means(series: dict[str, Any]) -> Values:
    """P_beta and pulses of each decision, (2, steps): mean over a seed's plants that were not lost; nan without one."""
    kept = (series["pulses"] >= 0).all(axis=1)
    beta = np.asarray(series["P_beta"], np.float64)[:, 1:]  # the first is the reset's
    both = np.array([beta[kept], np.asarray(series["pulses"], np.float64)[kept]])
    means: Values = both.mean(axis=1) if kept.any() else np.full((2, beta.shape[1]), np.nan)
    return means
