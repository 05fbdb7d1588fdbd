"""Does a precision change what the policy achieves? The plant is run with each of them, on the same held-out plants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from export.plants import EnvFactory, lockstep
from export.runner import OnnxRunner
from sea_dbs.closed_loop import CONSTANT, CONSTANT_DUTY, OPEN_LOOP
from sea_dbs.config import TrainConfig
from sea_dbs.controllers import decide
from sea_dbs.evaluation_rows import Episode, settle_steps
from sea_dbs.progress import progress
from sea_dbs.rollout import Start, Transition
from sea_dbs.seeds import held_out_seeds
from sea_dbs.statistics import mean_interval

SEEDS = 10  # held-out plants
SECONDS = 10.0  # simulated s after the plant has settled, and at least one decision
EQUAL_PERCENT = 3.0  # of beta: a difference whose interval lies within counts as none

KEYS = ("P_beta", "duty", "charge_nC_cm2")

Series = list[tuple[NDArray[np.float32], NDArray[np.int8]]]  # (observation, action) of a decision, a row for each plant


def run(
    config: TrainConfig,
    models: Mapping[str, bytes],
    env_factory: EnvFactory,
    *,
    seeds: int = SEEDS,
    seconds: float = SECONDS,
    quiet: bool = False,
) -> dict[str, Any]:
    """Outcome of each precision's file on ``seeds`` held-out plants, and its paired difference to FP32 (or the first).

    A precision that decides as the first did on all that the first saw on a plant has, by determinism, the same
    outcome there: such a plant is not simulated again.

    Returns:
        ``rows``: precision -> means and ``difference`` (percent for P_beta, 95 % bootstrap interval of the mean);
        ``by_seed``: precision -> values for each plant; and how they were made.

    Raises:
        UserError: fewer than 1 or more than 10,000 plants.
    """
    plants = held_out_seeds(seeds)
    decision_s = (config.slots or 1) / (config.stim_hz or 1.0)
    settled = settle_steps(config)
    steps = settled + max(1, round(seconds / decision_s))
    config = config.model_copy(update={"episode_steps": _whole_episode(config, steps)})
    names = list(models)
    runners = {name: OnnxRunner(data, f"policy-onnx-{name}") for name, data in models.items()}
    episodes: dict[str, list[Episode]] = {}
    simulated: dict[str, int] = {}
    with progress("closed loop", steps * len(names), quiet=quiet) as bar:
        first, series = _episodes(config, runners[names[0]], plants, steps, env_factory, bar)
        episodes[names[0]], simulated[names[0]] = first, len(plants)
        for name in names[1:]:
            other = _differs(runners[name], series)
            again = [seed for seed, new in zip(plants, other, strict=True) if new]
            rerun = _episodes(config, runners[name], again, steps, env_factory, bar)[0] if again else []
            if not again:
                bar.update(steps, f"{name}: decides as {names[0]} on every plant")
            fresh = iter(rerun)
            episodes[name] = [next(fresh) if new else old for new, old in zip(other, first, strict=True)]
            simulated[name] = len(again)
    values = {name: _outcomes(each, settled) for name, each in episodes.items()}
    rows = {
        name: _row(values[name], values[names[0]]) | {"plants_that_differ": simulated[name] if name != names[0] else 0}
        for name in names
    }
    return {
        "seeds": plants,
        "decisions": steps,
        "settled_after": settled,
        "seconds": steps * decision_s,
        "reference": names[0],
        "what": _what(episodes[names[0]]),
        "rows": rows,
        "by_seed": {name: {key: each.tolist() for key, each in values[name].items()} for name in names},
    }


def _whole_episode(config: TrainConfig, steps: int) -> int:
    """Decisions of an episode that holds them all, a multiple of the config's: dt divides it then."""
    episode = config.episode_steps or 1
    return -(-steps // episode) * episode


def _episodes(
    config: TrainConfig,
    runner: OnnxRunner,
    seeds: Sequence[int],
    steps: int,
    env_factory: EnvFactory,
    bar: progress,
) -> tuple[list[Episode], Series]:
    episodes: list[Episode] = []
    series: Series = []
    for item in lockstep(config, runner, seeds, steps, env_factory):
        if isinstance(item, Start):
            pairs = zip(seeds, item.infos, strict=True)
            episodes = [Episode(runner.name, seed, P_beta=[float(info["P_beta"])]) for seed, info in pairs]
        else:
            _add(episodes, item)
            series.append((item.observation, item.action))
            bar.update(1, runner.name)
    return episodes, series


def _add(episodes: list[Episode], transition: Transition) -> None:
    for k, episode in enumerate(episodes):
        episode.add(transition, k)


def _differs(runner: OnnxRunner, series: Series) -> list[bool]:
    """For each plant, whether the runner decides anything else on what another policy saw there."""
    plants = len(series[0][0])
    runner.init_state(plants)
    differs = np.zeros(plants, np.bool_)
    for observation, action in series:
        differs |= (decide(runner.logits(observation)) != action).any(axis=1)
    return [bool(value) for value in differs]


def _outcomes(episodes: Sequence[Episode], settled: int) -> dict[str, NDArray[np.float64]]:
    """P_beta (spikes²/s²) after settling, duty, and charge of an episode (nC/cm²), a value for each plant."""
    return {
        "P_beta": np.array([np.mean(one.P_beta[settled + 1 :]) for one in episodes]),
        "duty": np.array([one.mean_duty() for one in episodes]),
        "charge_nC_cm2": np.array([sum(one.charge_nC_cm2) for one in episodes]),
    }


def _row(values: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    row: dict[str, Any] = {key: float(values[key].mean()) for key in KEYS}
    beta = 100.0 * (values["P_beta"] - reference["P_beta"]) / reference["P_beta"].mean()
    row["difference"] = {
        "P_beta_percent": float(beta.mean()),
        "P_beta_percent_ci95": mean_interval(beta),
        "duty": float((values["duty"] - reference["duty"]).mean()),
        "duty_ci95": mean_interval(values["duty"] - reference["duty"]),
        "charge_nC_cm2": float((values["charge_nC_cm2"] - reference["charge_nC_cm2"]).mean()),
        "charge_nC_cm2_ci95": mean_interval(values["charge_nC_cm2"] - reference["charge_nC_cm2"]),
    }
    bounds = row["difference"]["P_beta_percent_ci95"]
    row["equal"] = None if bounds is None else bounds[0] <= 0 <= bounds[1] and max(map(abs, bounds)) < EQUAL_PERCENT
    return row


def _what(episodes: Sequence[Episode]) -> str:
    """What kind of policy this is: a table of equal outcomes says little about one that never reacts."""
    duty = float(np.mean([one.mean_duty() for one in episodes]))
    if duty > CONSTANT_DUTY:
        return CONSTANT
    return OPEN_LOOP if len({decision for one in episodes for decision in one.decisions}) == 1 else "reacts"


def check_seeds(seeds: int) -> None:
    """Refuse a number of plants before anything else is done.

    Raises:
        UserError: below 0 or above 10,000.
    """
    if not 0 <= seeds <= 10_000:
        raise UserError(f"--closed-loop-seeds is {seeds}: from 1 to 10000 plants, or 0 for none")
