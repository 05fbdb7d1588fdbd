"""A controller on the plants of one seed; a policy is made blind too, and put beside trains with its own pulses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.stimulation import CONTINUOUS_HZ
from sea_dbs.benchmark.measure import burst_thresholds, measures, series
from sea_dbs.benchmark.trains import best_periodic, decided, second_by_second, slot_us
from sea_dbs.benchmark.world import MakeWorld, Play, make_world, play
from sea_dbs.closed_loop import BLIND, CONSTANT, CONSTANT_DUTY, OPEN_LOOP, Played, decisions_on, label, shown
from sea_dbs.controllers import Controller, RandomDuty, TorchPolicy, build
from sea_dbs.tasks import find_task

OPEN_LOOP_KINDS = ("never", "periodic", "random", "random-trains", "pattern")
CONTINUOUS = "continuous"  # regular 130 Hz, in slots of its own

Answer = tuple[dict[str, Any], dict[str, Any]]


def play_job(
    spec: Mapping[str, Any], policy: Path | None, thresholds: Sequence[float] | None, make: MakeWorld = make_world
) -> Answer:
    """Run what a play job describes.

    Args:
        spec: task, world (values of `EnvConfig`), controller, plants, steps, tests.
        policy: a folder with policy.pt where the controller is one.
        thresholds: of beta bursts, a value a plant: the untreated plants'.
        make: of the environments.

    Returns:
        The result (rows of measures, the label), and arrays for figures.
    """
    config = EnvConfig.model_validate(spec["world"])
    people = find_task(spec["task"]).patients("test")
    plants, steps, chosen = list(spec["plants"]), int(spec["steps"]), dict(spec["controller"])

    def run(controller: Controller) -> Play:
        return play(config, controller, plants, steps, people, make)

    kind = chosen.pop("kind")
    if kind == "policy":
        assert policy is not None
        return _play_policy(config, _load(policy, **chosen), run, thresholds, bool(spec["tests"]), make)
    if kind == CONTINUOUS:
        config = second_by_second(config, CONTINUOUS_HZ).model_copy(
            update={"measures": config.measures, "precision": config.precision}
        )
        seconds = spec["steps"] * EnvConfig.model_validate(spec["world"]).decision_ms / 1000.0
        steps, kind = max(1, round(seconds)), "always"
        config = config.model_copy(update={"episode_steps": steps})
    own = run(build(kind, config.slots, slot_us(config), chosen, seed=plants[0]))
    row = _row(own, config, thresholds)
    word = OPEN_LOOP if kind in OPEN_LOOP_KINDS else ""
    if _duty(own) * _strength(own, config) > CONSTANT_DUTY:
        word = CONSTANT
    result: dict[str, Any] = {"rows": {"own": row}, "label": word}
    if own.envelope:
        result["burst_thresholds"] = burst_thresholds(own)
    return result, series(own)


def _play_policy(
    config: EnvConfig,
    controller: Controller,
    run: Any,
    thresholds: Sequence[float] | None,
    tests: bool,
    make: MakeWorld,
) -> Answer:
    own: Play = run(controller)
    rows = {"own": _row(own, config, thresholds)}
    duty = _duty(own)
    if not tests:
        return {"rows": rows, "label": CONSTANT if duty > CONSTANT_DUTY else ""}, series(own)
    known = {own.decisions.tobytes(): own}

    def played(name: str, decisions: NDArray[np.int8]) -> dict[str, Any]:
        key = decisions.tobytes()
        if key not in known:  # equal decisions on equal plants: an equal run
            known[key] = run(Played(name, decisions))
        return _row(replace(known[key], name=name), config, thresholds)

    gone = np.array([bool(word) for word in own.lost])
    seen = own.seen.copy()
    seen[gone] = seen[~gone].mean(axis=0)  # what a lost lane saw was another plant
    own_duties = config.own_duties
    for mode, words in BLIND.items():
        decisions = decisions_on(controller, shown(mode, seen, own_duties), own_duties)
        rows[mode] = played(f"policy, observation: {words}", decisions)
    n, steps, _ = own.decisions.shape
    chance = RandomDuty(config.slots, duty, seed=n * steps)
    rows["random"] = played(f"random at its duty ({duty:.2f})", decided(chance, config, n, steps))
    regular = best_periodic(config, duty, make)
    rows["periodic"] = played(f"{regular.name}, at most its pulses", decided(regular, config, n, steps))
    bad = np.any([[bool(word) for word in rows[name]["lost"]] for name in ("own", *BLIND)], axis=0)
    bad |= np.roll(gone, -1)  # plant k was shown what plant k + 1 saw
    good = np.flatnonzero(~bad)

    def kept(name: str) -> tuple[list[float], list[float]]:
        found = rows[name]["measures"]
        return [found["reward"][k] for k in good], [found["pulses"][k] for k in good]

    word = label(duty, *kept("own"), [kept(mode) for mode in BLIND])
    return {"rows": rows, "label": word}, series(own)


def _duty(run: Play) -> float:
    """Share of slots decided on, of the plants that were not lost."""
    return float(run.decisions[[k for k, word in enumerate(run.lost) if not word]].mean())


def _strength(run: Play, config: EnvConfig) -> float:
    """Charge as a share of what these pulses have at the configuration's amplitude; 1 without a pulse."""
    pulses = float(np.nansum(run.pulses))
    return float(np.nansum(run.charge)) / (pulses * config.amplitude_uA_cm2 * config.width_ms) if pulses else 1.0


def _row(run: Play, config: EnvConfig, thresholds: Sequence[float] | None) -> dict[str, Any]:
    return {
        "name": run.name,
        "violations": run.violations,
        "lost": list(run.lost),
        "measures": measures(run, config, thresholds),
    }


def _load(run: Path, precision: str = "fp32") -> Controller:
    policy = TorchPolicy.load(run)
    if precision == "fp16":  # stored in half precision, computed in single: what an FP16 file does
        policy.module = policy.module.half().float()
        policy.name = f"{policy.name}, FP16 weights"
    return policy
