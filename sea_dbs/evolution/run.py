"""A search as a training run: its folder, its metrics, its picture."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from envs.errors import UserError
from sea_dbs import checkpoint
from sea_dbs.config import TrainConfig
from sea_dbs.evolution.actors import policy_of
from sea_dbs.evolution.search import Evolution, Generation
from sea_dbs.files import atomic_write_bytes
from sea_dbs.runlog import RunLog, read_metrics

PICTURE = "search.png"


def evolve(config: TrainConfig, run: Path, *, quiet: bool) -> tuple[nn.Module, int, float]:
    """Search, or go on with a search; a checkpoint follows each generation.

    Returns:
        The policy, environment steps, wall seconds over all processes of the run.

    Raises:
        UserError: an unreadable checkpoint, or one of another run; the disk is full.
    """
    costs, before_s = _done(run, config)
    search = Evolution(config, costs)
    total, size = search.steps_a_generation * config.generations, search.steps_a_generation
    began = time.monotonic() - before_s
    with RunLog(run, size * len(costs), total, quiet=quiet) as log:
        for generation in search.generations():
            log.write([_line(generation, size, config)], size)
            log.sync()
            _save(run, config, search, time.monotonic() - began)
    _save(run, config, search, time.monotonic() - began)
    _draw(run, search)
    return policy_of(search), total, time.monotonic() - began


def _draw(run: Path, search: Evolution) -> None:
    """The picture, where the extra 'report' is there to draw it."""
    from sea_dbs.evolution.figure import draw

    config = search.config
    try:
        picture = draw(read_metrics(run), search.weights(), search.candidates.slot_ms, config.pulse_budget_hz)
    except UserError as error:
        if "extra" not in str(error):
            raise
        sys.stderr.write(f"no picture: {error}\n")
        return
    atomic_write_bytes(run / PICTURE, picture)


def _save(run: Path, config: TrainConfig, search: Evolution, wall_s: float) -> None:
    content = {"config_sha256": config.sha256(), "costs": np.array(search.costs), "wall_s": wall_s}
    checkpoint.save(run / checkpoint.CHECKPOINT, content)


def _done(run: Path, config: TrainConfig) -> tuple[list[NDArray[np.float64]], float]:
    """Costs of the generations that are done, and the time they took (s)."""
    path = run / checkpoint.CHECKPOINT
    if not path.exists():
        return [], 0.0
    state: dict[str, Any] = checkpoint.load(path)
    costs = state.get("costs")
    if state.get("config_sha256") != config.sha256():
        raise UserError(f"{path} belongs to a run with other values than the config beside it")
    if not isinstance(costs, np.ndarray) or costs.shape[1:] != (config.population,) or not np.isfinite(costs).all():
        raise UserError(f"{path} does not hold the costs of a search with population {config.population}")
    return list(costs), float(state["wall_s"])


def _line(done: Generation, size: int, config: TrainConfig) -> dict[str, Any]:
    """A generation's line of metrics.jsonl, means over its candidates; ``best``: the cheapest of them."""
    best = int(np.argmin(done.cost))
    return {
        "step": (done.number + 1) * size,
        "episode": done.number,
        "env": 0,
        "P_beta": float(np.nanmean(done.beta)),
        "reward": -float(done.cost.mean()),
        "duty": float(np.nanmean(done.pulse_hz)) / float(config.stim_hz or 1.0),
        "cost": float(done.cost.mean()),
        "best_cost": float(done.cost[best]),
        "best_beta_percent": float(done.beta_percent[best]),
        "best_pulse_hz": float(done.pulse_hz[best]),
        "best_milder_percent": None if np.isnan(done.milder_percent[best]) else float(done.milder_percent[best]),
        "best_milder_hz": None if np.isnan(done.milder_hz[best]) else float(done.milder_hz[best]),
        "best_healthy_hz": None if np.isnan(done.healthy_hz[best]) else float(done.healthy_hz[best]),
        "diverged": done.diverged,
    }
