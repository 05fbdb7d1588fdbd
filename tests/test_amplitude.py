"""A controller that sets amplitudes, on plants with graded recruitment: one charge, wherever it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import envs
from envs.errors import UserError
from sea_dbs.benchmark.measure import measures
from sea_dbs.benchmark.play import play_job
from sea_dbs.benchmark.suites import TUNED, tuned
from sea_dbs.benchmark.trains import slot_us
from sea_dbs.benchmark.world import make_world, play
from sea_dbs.closed_loop import CONSTANT
from sea_dbs.config import load_config
from sea_dbs.controllers import build
from sea_dbs.controllers.catalogue import read_tuned
from sea_dbs.evaluation_plan import Plan
from sea_dbs.rollout import rollout
from sea_dbs.seeds import HELD_OUT
from sea_dbs.tasks import find_task
from sea_dbs.trials import run_trials
from sea_dbs.tune import TunePlan, tune


def test_a_weaker_pulse_is_less_charge_in_benchmarks_and_in_rollouts_alike() -> None:
    config = find_task("graded").config(episode_steps=3, settle_ms=2200.0)
    people = find_task("graded").patients("test")
    controller = build("pi-amplitude", config.slots, slot_us(config), {"kp": 0.5, "ti": 20.0})
    run = play(config, controller, [HELD_OUT, HELD_OUT + 1], 3, people)
    each = run.charge / np.maximum(run.pulses, 1) / config.width_ms
    assert (run.pulses[:, 0] == 130).all()
    assert (each[:, 0] > 10.0).all()
    assert (each < 290.0).all()
    found = measures(run, config)
    assert found["charge_percent"] == pytest.approx(list(100.0 * run.charge.mean(axis=1) / (130.0 * 90.0)))
    assert all(a < b for a, b in zip(found["teed_uW"], (0.54 * run.pulses.mean(axis=1)), strict=True))
    env = envs.make_env(**config.model_dump(), patient=people[HELD_OUT % len(people)])
    alone = [one.infos[0]["charge_nC_cm2"] for one in rollout([env], controller, 3, [HELD_OUT])]
    assert alone == pytest.approx(list(run.charge[0]))
    vector = make_world(config, 2, people)
    together = [one.infos[1]["charge_nC_cm2"] for one in rollout(vector, controller, 3, [HELD_OUT, HELD_OUT + 1])]
    assert together == pytest.approx(list(run.charge[1]))
    assert "charge_smallest_percent" not in found  # no pulse is the smallest that still reaches every cell


@pytest.mark.parametrize(
    ("kind", "label"), [({"kind": "pi-amplitude", "kp": 0.5, "ti": 20.0}, ""), ({"kind": "always"}, CONSTANT)]
)
def test_weak_pulses_in_every_slot_are_no_constant_stimulation(kind: dict[str, Any], label: str) -> None:
    world = find_task("graded").config(episode_steps=3, settle_ms=2200.0).model_dump(mode="json")
    plants = [HELD_OUT, HELD_OUT + 1]
    spec = {"task": "graded", "world": world, "controller": kind, "plants": plants, "steps": 3, "tests": False}
    assert play_job(spec, None, None)[0]["label"] == label


def test_a_search_knows_the_task_s_patients_and_counts_charge() -> None:
    task = find_task("graded")
    made = [
        build(kind, task.config().slots, slot_us(task.config()), given)
        for kind, given in (("always", {}), ("pi-amplitude", {"kp": 0.02, "ti": 20.0}))
    ]
    whole, weak = run_trials(task, made, [HELD_OUT], 1.0)
    assert whole.charge[0] == pytest.approx(1.0)
    assert weak.pulse_hz[0] == pytest.approx(130.0)
    assert weak.charge[0] < 0.05  # below every threshold: the plant as untreated
    assert whole.beta[0] < 0.75 * weak.beta[0]


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (TunePlan("pi-amplitude"), "the plants of the task 'paper' answer all or nothing: --task graded is allowed"),
        (TunePlan("pi-amplitude", "graded", most_hz=50.0), "--most-hz bounds rates"),
        (Plan(("never", "pi-amplitude")), "'pi-amplitude' sets amplitudes"),
    ],
)
def test_it_is_for_graded_recruitment_alone(plan: TunePlan | Plan, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan.check(load_config("paper")) if isinstance(plan, Plan) else plan.check()


def test_every_tuned_controller_comes_with_its_file() -> None:
    rates = {"pi-tuned": (50.0, 130.0)}
    assert all(tuned(name, hz) for name in TUNED for hz in rates.get(name, (130.0,)))


def test_a_tuned_amplitude_follows_beta_with_less_charge(tmp_path: Path) -> None:
    result = tune(TunePlan("pi-amplitude", "graded", trials=1, seeds=1, seconds=2.0), tmp_path / "out", quiet=True)
    assert {row["pulse_hz"] for row in result["trials"]} <= {130.0 * k / 4 for k in range(5)}  # whole trains or none
    assert result["best"]["charge_percent_of_130Hz"] < 60.0
    assert read_tuned(tmp_path / "out", "pi-amplitude") == result["parameters"]
