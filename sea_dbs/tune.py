"""The tuner of the classical controllers: grid or random over stated ranges, on search plants alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.errors import UserError
from sea_dbs.controllers import AMPLITUDE, KINDS, TUNED, Controller, Parameter, build
from sea_dbs.files import atomic_write_bytes, prepare_output_dir, search_state, write_json
from sea_dbs.manifest import machine
from sea_dbs.progress import progress
from sea_dbs.seeds import BLOCK, search_seeds
from sea_dbs.tasks import find_task
from sea_dbs.trials import LANES, MakeVector, Trial, Values, make_vector, run_trials

PARTIAL = "trials.partial.json"
FORMAT = 3  # of what it holds
PICTURE = "tuning.png"
TUNABLE = tuple(KINDS)

Point = dict[str, float]


@dataclass(frozen=True)
class TunePlan:
    """What is searched, and what is best: the lowest score among those with a mean rate of at most ``most_hz``.

    The score is beta (or tracking error), as a share of untreated, + ``price`` × charge as a share of 130 Hz's; or,
    with ``measure`` "reward", the task's own reward with its sign turned, of every decision from the first.
    """

    controller: str
    task: str = "paper"
    method: Literal["random", "grid"] = "random"
    trials: int = 32  # beside the literature's parameters; of a grid: at most so many
    seeds: int = 8
    seconds: float = 8.0  # after settling
    measure: Literal["beta", "error", "reward"] = "beta"
    price: float = 0.3
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
        for name, value, low, high in (
            ("trials", self.trials, 1, 10_000),
            ("seeds", self.seeds, 1, BLOCK),
            ("seconds", self.seconds, 0.02, 3600.0),
            ("price", self.price, 0.0, 100.0),
            ("most-hz", 1.0 if self.most_hz is None else self.most_hz, 0.0, 185.0),
            ("seed", self.seed, 0, 2**31),
        ):
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}: from {low} to {high} are allowed")


def points(plan: TunePlan, slot_hz: float) -> list[Point]:
    """The parameters to try, the literature's first; thresholds keep their order, rates fit the slots."""
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
    return [literature, *({**one, **_ordered(one)} for one in tried)]


def _space(kind: str, slot_hz: float) -> dict[str, Parameter]:
    space = dict(KINDS[kind])
    if "hz" in space:
        own = space["hz"]
        space["hz"] = Parameter(min(own.value, slot_hz), own.low, min(own.high, slot_hz), own.unit, own.source)
    return space


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
    return [] if state is None else list(state["done"])


def _kept(plan: TunePlan) -> dict[str, Any]:
    """What a stopped search must have in common with the one that goes on with it."""
    return {**asdict(plan), "format": FORMAT}


def _measured(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "P_beta": _listed(trial.beta),
        "error": _listed(trial.error),
        "pulse_hz": float(np.nanmean(trial.pulse_hz)),
        "charge_percent_of_130Hz": 100.0 * float(np.nanmean(trial.charge)),
        "reward": _listed(trial.reward),
    }


def _listed(values: Values) -> list[float | None]:
    """A value a plant; None where it was lost."""
    return [None if np.isnan(value) else float(value) for value in values]


def each_plant(values: Sequence[float | None]) -> Values:
    """The inverse: nan where a plant was lost."""
    return np.array(values, np.float64)


def score(plan: TunePlan, untreated: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with shares of untreated (%) and the score."""
    beta, error = each_plant(untreated["P_beta"]), each_plant(untreated["error"])
    scored = []
    for row in rows:
        beta_share = float(np.nanmean(each_plant(row["P_beta"]) / beta))
        error_share = _share(each_plant(row["error"]), error)
        share = error_share if plan.measure == "error" else beta_share
        scored.append(
            {
                **row,
                "beta_percent": 100.0 * beta_share,
                "error_percent": 100.0 * error_share,
                "score": -float(np.nanmean(each_plant(row["reward"])))
                if plan.measure == "reward"
                else share + plan.price * row["charge_percent_of_130Hz"] / 100.0,
            }
        )
    return scored


def _share(error: Values, untreated: Values) -> float:
    """Of the plants that neither lost; 0 where untreated ones have none."""
    both = np.isfinite(error) & np.isfinite(untreated)
    return float(error[both].mean() / untreated[both].mean()) if untreated[both].any() else 0.0


def choose(plan: TunePlan, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the lowest score among those with few enough pulses.

    Raises:
        UserError: none has so few pulses.
    """
    bound = float("inf") if plan.most_hz is None else plan.most_hz
    allowed = [row for row in rows if row["pulse_hz"] <= bound + 1e-9]
    if not allowed:
        raise UserError(
            f"no trial kept to --most-hz {bound:g}: the least was {min(r['pulse_hz'] for r in rows):.1f} Hz"
        )
    return min(allowed, key=lambda row: float(row["score"]))
