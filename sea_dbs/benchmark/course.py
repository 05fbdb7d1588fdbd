"""What happens second by second on a task whose plants drift: whether a controller follows the need."""

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
    """Measure -> controller -> its course over seconds, interquartile mean over seeds; empty where nothing drifts."""
    if find_task(task).config().drift == "none":
        return {}
    finished: dict[str, list[Entry]] = {}
    for cell in cells:
        if cell.task == task and store.find(cell.job) is not None:
            finished.setdefault(cell.controller, []).append(cell)
    found: dict[str, dict[str, Curve]] = {"P_beta": {}, "pulses a second": {}}
    for controller, own in finished.items():
        decision_s = EnvConfig.model_validate(own[0].job.spec["world"]).decision_ms / 1000.0
        runs = [_means(store.series(cell.job)) for cell in own]
        seconds = np.arange(1, len(runs[0][0]) + 1, dtype=np.float64) * decision_s
        found["P_beta"][controller] = curve(seconds, np.array([beta for beta, _ in runs]))
        found["pulses a second"][controller] = curve(seconds, np.array([pulses for _, pulses in runs]) / decision_s)
    return found


def _means(series: dict[str, Any]) -> tuple[Values, Values]:
    """(P_beta, pulses) of each decision, mean over a seed's plants that were not lost."""
    lost = (series["pulses"] < 0).any(axis=1)
    beta = np.asarray(series["P_beta"], np.float64)[~lost, 1:]  # the first is the reset's
    return beta.mean(axis=0), np.asarray(series["pulses"], np.float64)[~lost].mean(axis=0)
