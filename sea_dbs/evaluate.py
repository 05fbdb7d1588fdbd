"""Evaluation on held-out plants: a policy beside the baselines that it must beat, and beside itself made blind."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.patients import Patient
from sea_dbs import evaluation_figures
from sea_dbs.checkpoint import POLICY
from sea_dbs.closed_loop import BLIND, Played, decisions_on, label, shown
from sea_dbs.config import TrainConfig, config_from_mapping
from sea_dbs.controllers import (
    Controller,
    Periodic,
    Replayed,
    TorchPolicy,
    make_controller,
    split_name,
)
from sea_dbs.evaluation_plan import Plan, other_world
from sea_dbs.evaluation_plants import StandsStill
from sea_dbs.evaluation_rows import (
    MOST_VALUES,
    Episode,
    compare,
    rows_beside,
    settle_steps,
    share_of_most,
    table_row,
)
from sea_dbs.files import atomic_write, atomic_write_bytes, prepare_output_dir, read_json, sha256_file, write_json
from sea_dbs.manifest import machine
from sea_dbs.rollout import Env, begin, rollout
from sea_dbs.seeds import held_out_seeds, search_seeds
from sea_dbs.train import make_env

EVALUATION = "evaluation.json"
PARTIAL = "episodes.partial.json"  # finished episodes of an evaluation that was stopped
SEEN = "seen.partial.npy"  # what its policy saw
LOCKSTEP = 8  # environments at once
RATE_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of the policy's pulse rate, searched for the best periodic train

EnvFactory = Callable[[TrainConfig], Env]


def evaluate(
    run: Path,
    out: Path,
    plan: Plan,
    *,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    env_factory: EnvFactory = make_env,
) -> dict[str, Any]:
    """Evaluate the policy of a run folder beside baselines; writes evaluation.json and figures into ``out``.

    Returns:
        What evaluation.json holds: ``rows`` (see `evaluation_rows.table_row`), ``episodes`` (a series each
        controller and plant), and what it was made with.

    Raises:
        UserError: no readable policy, a wrong plan, or a folder that is in use.
    """
    policy = TorchPolicy.load(run)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    config = config_from_mapping(policy.spec["config"], str(run / POLICY))
    plan = plan.for_run(config)
    plan.check(config)
    steps = plan.steps or config.episode_steps or 0
    config = other_world(config, plan.world, steps)
    facts = {
        "kind": "evaluation",
        "run": run.name,
        "policy_sha256": sha256_file(run / POLICY),
        "config": config.model_dump(mode="json"),
        "plan": {
            **asdict(plan),
            "controllers": list(plan.controllers),
            "world": list(plan.world),
            "steps": steps,
            "beside": None if plan.beside is None else plan.beside.name,
        },
        "held_out_seeds": held_out_seeds(plan.seeds),
        "machine": machine(),
    }
    beside = [] if plan.beside is None else rows_beside(plan.beside, facts)
    prepare_output_dir(out, overwrite=overwrite, resume=resume)
    bench = Bench(config, steps, out, facts, env_factory, quiet, plan.patients())
    rows, episodes = _run_plan(bench, plan, policy)
    rows += beside
    compare(rows)
    block = math.ceil(steps / MOST_VALUES)
    result = {
        **facts,
        "rows": rows,
        "decisions_a_value": block,
        "episodes": [episode.thinned(block) for episode in episodes],
    }
    write_json(out / EVALUATION, result)
    for name, draw in (
        ("comparison.png", evaluation_figures.comparison),
        ("series.png", evaluation_figures.series),
    ):
        picture = draw(result)
        atomic_write_bytes(out / name, picture)
    for name in (PARTIAL, SEEN):
        (out / name).unlink(missing_ok=True)
    return result


class Bench:
    """Runs controllers on plants, eight at a time, and keeps what is finished for a resumed evaluation."""

    def __init__(
        self,
        config: TrainConfig,
        steps: int,
        out: Path,
        facts: dict[str, Any],
        env_factory: EnvFactory,
        quiet: bool,
        patients: Mapping[int, Patient],
    ) -> None:
        self.patients = patients  # of each plant seed; empty: networks drawn at random
        self.config = config
        self.steps = steps
        self.path = out / PARTIAL
        self.facts = facts
        self.env_factory = env_factory
        self.quiet = quiet
        self.envs: list[Env] = []
        self.done: dict[str, list[Episode]] = {}
        self.seen: list[NDArray[np.float32]] | None = None  # gathered while the policy is watched
        if self.path.exists():
            partial = read_json(self.path)
            if partial["facts"] == facts:
                self.done = {key: [Episode(**one) for one in value] for key, value in partial["done"].items()}

    def watch(self, controller: Controller, seeds: Sequence[int]) -> tuple[list[Episode], NDArray[np.float32]]:
        """`run`, and what the controller saw: (plants, decisions, n_obs)."""
        path = self.path.parent / SEEN
        if not path.exists():  # as long as it is there, the episodes are
            self.done.pop(f"{controller.name} | {seeds[0]} + {len(seeds)} | {self.steps}", None)
        self.seen = []
        episodes = self.run(controller, seeds)
        if self.seen:
            seen = np.concatenate(self.seen)
            atomic_write(path, lambda stream: np.save(stream, seen))
        self.seen = None
        kept: NDArray[np.float32] = np.load(path)
        return episodes, kept

    def run(self, controller: Controller, seeds: Sequence[int], steps: int | None = None) -> list[Episode]:
        """One episode of the controller on each plant."""
        steps = steps or self.steps
        key = f"{controller.name} | {seeds[0]} + {len(seeds)} | {steps}"
        if key not in self.done:
            if not self.quiet:
                sys.stderr.write(f"evaluating {controller.name} on {len(seeds)} plants, {steps} decisions each\n")
            self.done[key] = [
                episode
                for first in range(0, len(seeds), LOCKSTEP)
                for episode in self._lockstep(controller, seeds[first : first + LOCKSTEP], steps)
            ]
            done = {name: [asdict(episode) for episode in value] for name, value in self.done.items()}
            write_json(self.path, {"facts": self.facts, "done": done})
        return self.done[key]

    def in_groups(self, make: Callable[[int], Controller], seeds: Sequence[int]) -> list[Episode]:
        """`run` with a controller for each group in lockstep, which ``make`` gets the place of the first plant of."""
        groups = range(0, len(seeds), LOCKSTEP)
        return [episode for at in groups for episode in self.run(make(at), seeds[at : at + LOCKSTEP])]

    def _lockstep(self, controller: Controller, seeds: Sequence[int], steps: int) -> list[Episode]:
        while len(self.envs) < len(seeds):
            self.envs.append(StandsStill(self.env_factory(self.config), int(self.config.episode_steps or 0)))
        environments = self.envs[: len(seeds)]
        whom = [self.patients[seed] for seed in seeds] if self.patients else ()
        start = begin(environments, seeds, patients=whom)
        controller.init_state(len(seeds))
        episodes = [
            Episode(controller.name, seed, P_beta=[float(info["P_beta"])])
            for seed, info in zip(seeds, start.infos, strict=True)
        ]
        seen = []
        for transition in rollout(environments, controller, steps, start=start):
            seen.append(transition.observation)
            for k, episode in enumerate(episodes):
                episode.add(transition, k, self.config.own_duties or 0)
        if self.seen is not None:
            self.seen.append(np.stack(seen, axis=1))
        return episodes


def _run_plan(bench: Bench, plan: Plan, policy: TorchPolicy) -> tuple[list[dict[str, Any]], list[Episode]]:
    """All controllers of a plan, in its order; untreated plants are always run, since percentages refer to them."""
    seeds = held_out_seeds(plan.seeds)
    config = bench.config
    slots = config.slots or 0
    slot_us = Fraction(1_000_000) / Fraction(config.stim_hz or 0)
    untreated = bench.run(make_controller("never", slots, slot_us), seeds)
    with_policy: list[Episode] = []
    if {"policy", "replayed"} & set(plan.controllers):
        with_policy, seen = bench.watch(policy, seeds)
        gone = np.array([bool(one.diverged) for one in with_policy])
        if gone.any() and not gone.all():  # what stands still was not seen
            seen[gone] = seen[~gone].mean(axis=0)
    lived = [episode.mean_duty() for episode in with_policy if not episode.diverged]
    world = config.world()
    duty = float(np.mean(lived)) if lived else 0.5 / world.gap_slots

    rows, episodes = [], []
    for name in plan.controllers if "never" in plan.controllers else ("never", *plan.controllers):
        match name:
            case "never":
                ran = untreated
            case "policy":
                ran = with_policy
            case "replayed":
                trains = [one.decisions for one in (*with_policy, *with_policy)]
                ran = bench.in_groups(lambda at: Replayed(slots, trains[at : at + LOCKSTEP + 1]), seeds)  # noqa: B023
                ran = of_others(ran, with_policy)
            case "periodic":
                ran = bench.run(best_periodic(bench, plan, duty), seeds)
            case "random":
                asked = world.share_asked(duty)
                ran = bench.in_groups(lambda at: make_controller("random", slots, slot_us, duty=asked, seed=at), seeds)  # noqa: B023
            case "random-trains":
                ran = bench.in_groups(lambda at: make_controller(name, slots, slot_us, seed=at), seeds)  # noqa: B023
            case _:
                ran = bench.run(make_controller(name, slots, slot_us, duty=world.share_asked(duty)), seeds)
        row = table_row(name if name == "policy" else split_name(name)[0], ran, untreated, config)
        rows.append(row)
        episodes += ran
        if name == "policy":
            blind = [_blind(bench, policy, mode, seen, ran) for mode in BLIND if mode != "other" or len(seen) > 1]
            if len(seen) > 1:
                blind[-1] = of_others(blind[-1], ran)
            own, *others = _outcomes([ran, *blind])
            row["label"] = label(share_of_most(row["duty"], config), *own, others)
            rows += [table_row("policy, silenced", one, untreated, config) for one in blind]
            episodes += [episode for one in blind for episode in one]
    return rows, episodes


def of_others(played: list[Episode], policy: Sequence[Episode]) -> list[Episode]:
    """Plant k played what the policy did on plant k + 1: nothing, if that one diverged."""
    before = [*policy[1:], policy[0]]
    return [
        replace(one, diverged=one.diverged or (other.diverged and f"its trains are another plant's: {other.diverged}"))
        for one, other in zip(played, before, strict=True)
    ]


def _blind(
    bench: Bench, policy: TorchPolicy, mode: str, seen: NDArray[np.float32], seeing: list[Episode]
) -> list[Episode]:
    """The policy shown something else than its plant; where it decides the same, the episodes are known to be equal."""
    name = f"{policy.name}, observation: {BLIND[mode]}"
    own = bench.config.own_duties or 0
    decisions = decisions_on(policy, shown(mode, seen, own), own)
    texts = [["".join(map(str, one)) for one in plant] for plant in decisions]
    if texts == [episode.decisions for episode in seeing]:
        return [replace(episode, controller=name) for episode in seeing]
    groups = range(0, len(seeing), LOCKSTEP)
    return [
        episode
        for first in groups
        for episode in bench.run(
            Played(name, decisions[first : first + LOCKSTEP]),
            [one.seed for one in seeing[first : first + LOCKSTEP]],
        )
    ]


def _outcomes(runs: Sequence[Sequence[Episode]]) -> list[tuple[list[float], list[float]]]:
    """Reward a decision, and pulses, of each plant that diverged in none of these runs; a pair a run."""
    good = [k for k in range(len(runs[0])) if not any(run[k].diverged for run in runs)]
    return [([run[k].mean_reward() for k in good], [float(sum(run[k].pulses)) for k in good]) for run in runs]


def best_periodic(bench: Bench, plan: Plan, duty: float) -> Controller:
    """The regular train with the lowest P_beta among rates with at most the policy's pulses, found on search plants."""
    slots, hz = bench.config.slots or 0, bench.config.stim_hz or 0.0
    slot_us = Fraction(1_000_000) / Fraction(hz)
    pulses = math.floor(duty * slots * bench.steps + 1e-6)  # at most so many in an episode
    highest = Fraction(hz) * pulses / (slots * bench.steps)
    settled = settle_steps(bench.config)
    steps = min(bench.steps, 2 * settled + 2)
    seeds = search_seeds(plan.search_seeds)

    def beta(train: Controller) -> float:
        ran = [one for one in bench.run(train, seeds, steps) if not one.diverged]
        return float(np.mean([np.mean(one.P_beta[settled + 1 :]) for one in ran])) if ran else math.inf

    trains = {share: Periodic(slots, slot_us, float(highest * Fraction(share))) for share in RATE_SHARES}
    if not highest:
        return trains[1.0]
    return min(trains.values(), key=beta)
