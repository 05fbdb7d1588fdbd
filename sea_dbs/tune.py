"""The tuner of the classical controllers: grid or random over stated ranges, on search plants alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.errors import UserError
from sea_dbs.controllers import AMPLITUDE, FEEDBACK, KINDS, TESTING, TUNED, Controller, Parameter, build
from sea_dbs.controllers.titration import PERIOD_S
from sea_dbs.files import atomic_write_bytes, prepare_output_dir, search_state, write_json
from sea_dbs.manifest import machine
from sea_dbs.progress import progress
from sea_dbs.seeds import BLOCK, search_seeds
from sea_dbs.tasks import find_task
from sea_dbs.trials import (
    LANES,
    MOST_LOST,
    MakeVector,
    Trial,
    Values,
    each_plant,
    listed,
    make_vector,
    run_trials,
)

PARTIAL = "trials.partial.json"
FORMAT = 3  # of what it holds
PRICE = 0.3  # of charge, as a share of 130 Hz's; ours
PICTURE = "tuning.png"
TUNABLE = tuple(KINDS)

Point = dict[str, float]


@dataclass(frozen=True)
class TunePlan:
    """What is searched, and what is best: the lowest score among those with a mean rate of at most ``most_hz``.

    The score is beta (or tracking error), as a share of untreated, + ``price`` × charge as a share of 130 Hz's; or,
    with ``measure`` "reward", the task's own reward with its sign turned, of every decision from the first. All are
    scored on the plants that none of them lost; whoever lost over a quarter of the plants has no score.
    """

    controller: str
    task: str = "paper"
    method: Literal["random", "grid"] = "random"
    trials: int = 32  # beside the literature's parameters; of a grid: at most so many
    seeds: int = 8
    seconds: float = 8.0  # after settling
    measure: Literal["beta", "error", "reward"] = "beta"
    price: float | None = None  # None: 0.3; of measure "reward" there is none
    most_hz: float | None = None  # Hz
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for an unknown name, or a number out of range."""
        find_task(self.task)
        if self.controller not in TUNABLE:
            raise UserError(f"'{self.controller}' cannot be tuned: one of {', '.join(TUNABLE)}, pattern is expected")
        if self.controller in AMPLITUDE and not find_task(self.task).graded:
            raise UserError(
                f"'{self.controller}' sets amplitudes, which the plants of the task '{self.task}' answer all or "
                "nothing: --task graded is allowed"
            )
        if self.controller in AMPLITUDE and self.most_hz is not None:
            raise UserError(f"--most-hz bounds rates: '{self.controller}' has one rate and sets amplitudes")
        if self.method not in ("random", "grid") or self.measure not in ("beta", "error", "reward"):
            raise UserError(
                f"method '{self.method}', measure '{self.measure}': random or grid, and beta, error or reward, are due"
            )
        if self.measure == "reward" and self.price is not None:
            raise UserError(f"--price is {self.price}: the task's reward (--measure reward) has a price of its own")
        if self.controller in (*FEEDBACK, *TESTING) and find_task(self.task).config().obs != "gpi":
            raise UserError(f"'{self.controller}' reads the GPi's beta, which the task '{self.task}' does not show")
        if self.controller in TESTING and self.seconds <= (longest := KINDS[self.controller]["test_s"].high):
            raise UserError(f"--seconds is {self.seconds}: more than the longest test of {longest:g} s are needed")
        for name, value, low, high in (
            ("trials", self.trials, 1, 10_000),
            ("seeds", self.seeds, 1, BLOCK),
            ("seconds", self.seconds, 0.02, 3600.0),
            ("price", self.price or 0.0, 0.0, 100.0),
            ("most-hz", 1.0 if self.most_hz is None else self.most_hz, 0.0, 185.0),
            ("seed", self.seed, 0, 2**31),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: from {low} to {high} are allowed")


def points(plan: TunePlan, slot_hz: float) -> list[Point]:
    """The parameters to try, the default ones first; thresholds keep their order, others fit slots and decisions."""
    space = _space(plan.controller, slot_hz)
    literature = {key: min(own.value, own.high) for key, own in space.items()}
    if plan.method == "grid":
        each = max(2, int(plan.trials ** (1.0 / len(space)) + 1e-9))
        axes = [[_scaled(own, share) for share in np.linspace(0.0, 1.0, each)] for own in space.values()]
        tried = [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    else:
        generator = np.random.default_rng([plan.seed, *plan.controller.encode()])
        tried = []
        while len(tried) < plan.trials:
            tried.append({key: _scaled(own, float(generator.random())) for key, own in space.items()})
    decision_s = find_task(plan.task).config().decision_ms / 1000.0
    return [literature, *({**one, **_ordered(one), **_whole(one, decision_s)} for one in tried)]


def _space(kind: str, slot_hz: float) -> dict[str, Parameter]:
    space = dict(KINDS[kind])
    if "hz" in space:
        own = space["hz"]
        space["hz"] = Parameter(min(own.value, slot_hz), own.low, min(own.high, slot_hz), own.unit, own.source)
    if "group_pulses" in space:
        own = space["group_pulses"]
        most = min(own.high, slot_hz * PERIOD_S)
        space["group_pulses"] = Parameter(min(own.value, most), min(own.low, most), most, own.unit, own.source)
    return space


def _whole(point: Point, decision_s: float) -> Point:
    """A test ends with a decision, whatever is asked for."""
    if "test_s" not in point:
        return {}
    return {"test_s": float(f"{decision_s * math.ceil(point['test_s'] / decision_s - 1e-9):.6g}")}


def _scaled(own: Parameter, share: float) -> float:
    value = own.low * (own.high / own.low) ** share if own.log else own.low + share * (own.high - own.low)
    return float(f"{value:.4g}")


def _ordered(point: Point) -> Point:
    if "low" in point and "high" in point:
        return {"low": min(point["low"], point["high"]), "high": max(point["low"], point["high"])}
    return {}


def tune(
    plan: TunePlan,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    make: MakeVector = make_vector,
) -> dict[str, Any]:
    """Search and write tuned.json and tuning.png into ``out``; a stopped search goes on with ``resume``.

    Returns:
        What tuned.json holds: ``parameters`` and ``literature`` (each with its measures), and every trial.

    Raises:
        UserError: a wrong plan, a folder in use or of another plan, or no trial within ``most_hz``.
    """
    plan.check()
    task = find_task(plan.task)
    config = task.config()
    slot_us = Fraction(1_000_000) / Fraction(config.stim_hz)
    prepare_output_dir(out, overwrite=overwrite, resume=resume)
    seeds, tried = search_seeds(plan.seeds), points(plan, config.stim_hz)
    done = _resumed(out, plan)
    controllers: list[Controller] = [build("never", config.slots, slot_us, {})]
    controllers += [build(plan.controller, config.slots, slot_us, point) for point in tried]
    with progress(f"tuning {plan.controller}", len(controllers), len(done), quiet=quiet) as bar:
        group = max(1, LANES // len(seeds))
        while len(done) < len(controllers):
            ran = run_trials(task, controllers[len(done) : len(done) + group], seeds, plan.seconds, make=make)
            done += [_measured(trial) for trial in ran]
            write_json(out / PARTIAL, {"plan": _kept(plan), "done": done})
            bar.update(len(ran))
    rows = score(plan, done[0], [{"parameters": a, **b} for a, b in zip(tried, done[1:], strict=True)])
    best = choose(plan, rows)
    result = {
        "kind": "tuned",
        "controller": plan.controller,
        "parameters": best["parameters"],
        "best": best,
        "literature": rows[0],
        "untreated": done[0],
        "trials": rows,
        "plan": asdict(plan),
        "search_seeds": seeds,
        "machine": machine(),
    }
    write_json(out / TUNED, result)
    from sea_dbs import tune_figures

    picture = tune_figures.tuning(result)
    atomic_write_bytes(out / PICTURE, picture)
    (out / PARTIAL).unlink(missing_ok=True)
    return result


def _resumed(out: Path, plan: TunePlan) -> list[dict[str, Any]]:
    state = search_state(out / PARTIAL, _kept(plan))
    if state is None:
        return []
    done = state.get("done")
    if not isinstance(done, list) or not all(_whole_row(row, plan.seeds) for row in done):
        raise UserError(f"{out / PARTIAL} was not left by a search: choose another --out, or pass --overwrite")
    return done


def _whole_row(row: Any, plants: int) -> bool:
    return isinstance(row, dict) and all(len(row.get(key) or ()) == plants for key in ("P_beta", "error", "reward"))


def _kept(plan: TunePlan) -> dict[str, Any]:
    """What a stopped search must have in common with the one that goes on with it."""
    return {**asdict(plan), "format": FORMAT}


def _measured(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "P_beta": listed(trial.beta),
        "error": listed(trial.error),
        "pulse_hz": _mean(trial.pulse_hz),
        "charge_percent_of_130Hz": 100.0 * _mean(trial.charge),
        "reward": listed(trial.reward),
    }


def _mean(values: Values) -> float:
    """Of the plants that were not lost; 0 where all were."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else 0.0


def score(plan: TunePlan, untreated: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with shares of untreated (%), mean reward and score on the plants that none lost; how many each lost.

    A row that lost over a quarter of the plants is not judged: its values are None.

    Raises:
        UserError: no plant is left.
    """
    lost = [np.isnan(each_plant(row["P_beta"])) for row in rows]
    judged = [own.mean() <= MOST_LOST for own in lost]
    there = ~np.any([np.isnan(each_plant(untreated["P_beta"])), *itertools.compress(lost, judged)], axis=0)
    if not there.any() or not any(judged):
        raise UserError(f"none of the {len(there)} search plants was left by every trial: more --seeds are needed")
    price = PRICE if plan.price is None else plan.price

    def seen(row: dict[str, Any], key: str) -> Values:
        values: Values = each_plant(row[key])[there]
        return values

    beta, error = seen(untreated, "P_beta"), seen(untreated, "error")
    scored = []
    for row, own, fair in zip(rows, lost, judged, strict=True):
        told: dict[str, float | None] = dict.fromkeys(("beta_percent", "error_percent", "mean_reward", "score"))
        if fair:
            beta_share = float(np.mean(seen(row, "P_beta") / beta))
            error_share = float(np.mean(seen(row, "error")) / error.mean()) if error.any() else 0.0
            reward = float(np.mean(seen(row, "reward")))
            share = error_share if plan.measure == "error" else beta_share
            whole = -reward if plan.measure == "reward" else share + price * row["charge_percent_of_130Hz"] / 100.0
            told = {
                "beta_percent": 100.0 * beta_share,
                "error_percent": 100.0 * error_share,
                "mean_reward": reward,
                "score": whole,
            }
        scored.append({**row, "lost": int(own.sum()), **told})
    return scored


def choose(plan: TunePlan, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the lowest score among those with few enough pulses.

    Raises:
        UserError: none has so few pulses.
    """
    bound = float("inf") if plan.most_hz is None else plan.most_hz
    judged = [row for row in rows if row["score"] is not None]
    allowed = [row for row in judged if row["pulse_hz"] <= bound + 1e-9]
    if not allowed:
        raise UserError(
            f"no trial kept to --most-hz {bound:g}: the least was {min(r['pulse_hz'] for r in judged):.1f} Hz"
        )
    return min(allowed, key=lambda row: float(row["score"]))
