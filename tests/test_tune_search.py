"""The searches: they find what is better, go on where they stopped, and never meet a held-out plant unasked."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tune_toy import ToyVector

from envs.errors import UserError
from sea_dbs import tune_pattern as patterns
from sea_dbs.controllers import PIFrequency, make_controller
from sea_dbs.seeds import HELD_OUT, SEARCH
from sea_dbs.tasks import TASKS, find_task
from sea_dbs.trials import make_vector, run_trials
from sea_dbs.tune import KINDS, TUNABLE, TunePlan, points, tune
from sea_dbs.tune_pattern import PatternPlan, tune_pattern

PI = TunePlan("pi", task="slots-130", trials=12, seeds=2, seconds=4.0)
SMALL = PatternPlan(generations=6, population=8, seeds=2, seconds=1.0, confirm_seeds=3)


def _tune(plan: TunePlan, out: Path, **options: Any) -> dict[str, Any]:
    return tune(plan, out, quiet=True, **{"make": ToyVector, **options})


class Stopping(ToyVector):
    """Is interrupted at the fourth environment."""

    count = 0

    def reset(self, *, seed: list[int], options: dict[str, Any] | None = None) -> Any:
        Stopping.count += 1
        if Stopping.count == 4:
            raise KeyboardInterrupt
        return super().reset(seed=seed, options=options)


def test_the_tuned_controller_is_at_least_as_good_as_the_literature_and_can_be_used(tmp_path: Path) -> None:
    result = _tune(PI, tmp_path / "pi")
    assert result["best"]["score"] <= result["literature"]["score"]
    assert result["best"]["score"] == min(row["score"] for row in result["trials"])
    assert len(result["trials"]) == 13
    assert result["literature"]["parameters"] == {key: own.value for key, own in KINDS["pi"].items()}
    written = json.loads((tmp_path / "pi" / "tuned.json").read_text())
    assert written["parameters"] == result["parameters"]
    assert (tmp_path / "pi" / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in sorted((tmp_path / "pi").iterdir())] == ["tuned.json", "tuning.png"]
    made = make_controller(f"pi:{tmp_path / 'pi'}", 50, 20_000)
    assert isinstance(made, PIFrequency)
    assert made.kp == result["parameters"]["kp"]


@pytest.mark.parametrize("kind", TUNABLE)
@pytest.mark.parametrize("method", ["random", "grid"])
def test_what_is_tried_lies_in_the_stated_ranges(kind: str, method: Any) -> None:
    plan = TunePlan(kind, method=method, trials=9)
    tried = points(plan, 50.0)[1:]
    assert 2 <= len(tried) <= 9
    for point in tried:
        for key, value in point.items():
            own = KINDS[kind][key]
            assert own.low - 1e-3 <= value <= (50.0 if key == "hz" else own.high) + 1e-3
        assert point.get("low", 0.0) <= point.get("high", 1.0)
    assert points(plan, 50.0) == points(plan, 50.0)


def test_most_hz_bounds_what_is_chosen_and_a_price_what_it_costs(tmp_path: Path) -> None:
    plan = TunePlan("periodic", task="slots-130", method="grid", trials=9, seeds=2, seconds=1.0, price=0.0)
    free = _tune(plan, tmp_path / "free")
    assert free["parameters"]["hz"] == 130.0  # the toy's beta falls with every pulse
    bounded = _tune(TunePlan(**{**plan.__dict__, "most_hz": 50.0}), tmp_path / "bounded")
    assert 30.0 < bounded["best"]["pulse_hz"] <= 50.0
    dear = _tune(TunePlan(**{**plan.__dict__, "price": 5.0}), tmp_path / "dear")
    assert dear["best"]["pulse_hz"] <= 5.0
    with pytest.raises(UserError, match="no trial kept to --most-hz 1"):
        _tune(TunePlan(**{**plan.__dict__, "most_hz": 1.0}), tmp_path / "none")


class Diverging(ToyVector):
    """The first search plant fails once under more than 100 Hz, and refuses to go on until it alone is reset."""

    at = (SEARCH,)  # plants that fail
    above = 100  # pulses a second

    def reset(self, *, seed: list[int], options: dict[str, Any] | None = None) -> Any:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self.steps, self.dead = np.zeros(self.lanes), np.zeros(self.lanes, np.bool_)
        else:
            assert (mask == self.dead).all()  # the failed lanes, no other one
            self.dead[:] = False
            self.steps[mask] = 0
        return super().reset(seed=seed, options=options)

    def step(self, actions: NDArray[np.int8]) -> tuple[Any, ...]:
        assert not self.dead.any()
        observation, reward, a, b, info = super().step(actions)
        self.dead = np.isin(self.seeds, self.at) & (actions.sum(axis=1) > self.above) & (self.steps == 1)
        self.steps += 1
        if self.dead.any():
            reward = np.where(self.dead, 5.0, reward)  # would be the best of all
            info["failure"] = np.where(self.dead, "diverged", "")
        return observation, reward, a, b, info


class DivergingUntreated(Diverging):
    at = (SEARCH + 1,)
    above = -1


class AllDiverging(Diverging):
    at = tuple(SEARCH + k for k in range(16))


class NoneIsLeft(Diverging):
    at = tuple(HELD_OUT + k for k in range(2))
    above = 40


PERIODIC = TunePlan("periodic", task="slots-130", method="grid", trials=5, seeds=5, seconds=2.0, price=0.0)


def test_all_are_scored_on_the_plants_that_none_lost(tmp_path: Path) -> None:
    whole, found = _tune(PERIODIC, tmp_path / "whole"), _tune(PERIODIC, tmp_path / "out", make=Diverging)
    for own, other in zip(found["trials"], whole["trials"], strict=True):
        fast = own["pulse_hz"] > 100.0
        assert own["lost"] == fast
        assert own["P_beta"] == [None if fast else other["P_beta"][0], *other["P_beta"][1:]]
        assert own["reward"] == [None if fast else other["reward"][0], *other["reward"][1:]]
        untreated = np.array(whole["untreated"]["P_beta"][1:])
        assert own["beta_percent"] == pytest.approx(100.0 * np.mean(other["P_beta"][1:] / untreated))
        assert own["mean_reward"] == pytest.approx(np.mean(other["reward"][1:]))
    assert sum(row["lost"] for row in found["trials"]) >= 1
    assert found["parameters"] == whole["parameters"]
    assert json.loads((tmp_path / "out" / "tuned.json").read_text()) == json.loads(json.dumps(found))
    untreated = _tune(PERIODIC, tmp_path / "untreated", make=DivergingUntreated)
    assert all(np.isfinite(row["score"]) for row in untreated["trials"])


def test_whoever_loses_many_plants_is_not_judged(tmp_path: Path) -> None:
    found = _tune(PERIODIC, tmp_path / "out", make=AllDiverging)
    fast = [row for row in found["trials"] if row["lost"]]
    assert [row["lost"] for row in fast] == [5] * len(fast)
    assert [row["score"] for row in fast] == [None] * len(fast)
    assert 50.0 < found["best"]["pulse_hz"] <= 100.0
    assert (tmp_path / "out" / "tuning.png").read_bytes().startswith(b"\x89PNG")
    pair = TunePlan(**{**PERIODIC.__dict__, "seeds": 1})
    with pytest.raises(UserError, match="none of the 1 search plants was left by every trial"):
        _tune(pair, tmp_path / "none", make=type("Both", (DivergingUntreated,), {"at": (SEARCH,)}))


def test_a_pattern_is_confirmed_on_two_plants_or_more(tmp_path: Path) -> None:
    plan = PatternPlan(**{**SMALL.__dict__, "confirm_seeds": 3})
    with pytest.raises(UserError, match="1 of 3 held-out plants were left by every train: more --confirm-seeds"):
        tune_pattern(plan, tmp_path / "none", quiet=True, make=NoneIsLeft)
    one = type("One", (NoneIsLeft,), {"at": (HELD_OUT,)})
    found = tune_pattern(plan, tmp_path / "out", quiet=True, make=one)["confirmation"]
    assert found["lost"] == 1
    assert np.isfinite([*found["difference_ci95"], found["pattern_percent"], found["pulse_hz"]]).all()


@pytest.mark.parametrize("done", [None, {}, [None], [{"P_beta": [1.0]}], [{"P_beta": [1.0], "error": [0.0]}]])
def test_a_damaged_search_is_not_gone_on_with(tmp_path: Path, done: Any) -> None:
    plan = TunePlan("pi", trials=2, seeds=2, seconds=1.0)
    tmp_path.joinpath("trials.partial.json").write_text(
        json.dumps({"plan": {**asdict(plan), "format": 3}, "done": done})
    )
    with pytest.raises(UserError, match="was not left by a search"):
        _tune(plan, tmp_path, resume=True)


def test_a_stopped_search_goes_on_and_ends_as_the_whole_one(tmp_path: Path) -> None:
    plan = TunePlan("pi", trials=8, seeds=8, seconds=1.0)
    whole = _tune(plan, tmp_path / "whole")
    Stopping.count = 1
    with pytest.raises(KeyboardInterrupt):
        _tune(plan, tmp_path / "out", make=Stopping)
    with pytest.raises(UserError, match="another plan"):
        _tune(TunePlan("pi", trials=9, seeds=8, seconds=1.0), tmp_path / "out", resume=True)
    before = Stopping.count
    result = _tune(plan, tmp_path / "out", make=Stopping, resume=True)
    assert Stopping.count - before == 1  # what was missing, and no more
    assert result == whole


def test_a_search_meets_search_plants_alone_and_a_pattern_is_confirmed_on_held_out_ones(tmp_path: Path) -> None:
    seen: set[int] = set()

    class Watching(ToyVector):
        def reset(self, *, seed: list[int], options: dict[str, Any] | None = None) -> Any:
            seen.update(seed)
            return super().reset(seed=seed, options=options)

    _tune(PI, tmp_path / "pi", make=Watching)
    assert seen == {SEARCH, SEARCH + 1}
    tune_pattern(SMALL, tmp_path / "pattern", quiet=True, make=Watching)
    fresh = {SEARCH + SMALL.seeds + k for k in range(patterns.FRESH)}
    assert seen == {SEARCH, SEARCH + 1, HELD_OUT, HELD_OUT + 1, HELD_OUT + 2} | fresh


def test_the_genetic_search_finds_the_toys_groups_within_its_rate(tmp_path: Path) -> None:
    result = tune_pattern(SMALL, tmp_path / "out", quiet=True, make=ToyVector)
    best = [one["best"] for one in result["history"]]
    assert len(best) == 6
    assert all(later <= earlier for earlier, later in pairwise(best))  # the best go on
    assert best[-1] < result["regular"]["beta_percent"] - 5.0
    assert result["parameters"]["mask"].count("1") == 45
    assert len(result["parameters"]["mask"]) == 130
    assert result["parameters"]["mask"] == min(result["shortlist"], key=result["shortlist"].__getitem__)
    assert len(result["shortlist"]) == patterns.SHORTLIST + 1
    assert result["regular"]["mask"] in result["shortlist"]
    found = result["confirmation"]
    assert found["difference_ci95"][1] < 0.0
    assert found["pulse_hz"] == pytest.approx(45.0)
    assert make_controller(f"pattern:{tmp_path / 'out'}", 130, 7692).act(np.full((1, 3), 0.4, np.float32)).sum() == 45


def test_a_stopped_pattern_search_ends_as_the_whole_one(tmp_path: Path) -> None:
    whole = tune_pattern(SMALL, tmp_path / "whole", quiet=True, make=ToyVector)
    Stopping.count = 0
    with pytest.raises(KeyboardInterrupt):
        tune_pattern(SMALL, tmp_path / "out", quiet=True, make=Stopping)
    assert tune_pattern(SMALL, tmp_path / "out", quiet=True, make=Stopping, resume=True) == whole


@pytest.mark.parametrize(("slot_hz", "period", "rate"), [(50.0, 50, 45.0), (130.0, 130, 26.0), (130.0, 39, 45.0)])
def test_every_pattern_of_every_generation_keeps_its_number_of_pulses(slot_hz: float, period: int, rate: float) -> None:
    plan = PatternPlan(rate=rate, slot_hz=slot_hz, period_slots=period, population=10)
    masks = patterns.first_generation(plan)
    generator = np.random.default_rng(0)
    for generation in range(1, 6):
        assert len(masks) == 10
        assert all(mask.sum() == plan.pulses <= rate * period / slot_hz + 1e-9 for mask in masks)
        masks = patterns.offspring(masks, list(generator.random(10)), plan, generation)
    gaps = np.diff(np.flatnonzero(np.tile(patterns.regular(plan), 2)))
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (TunePlan("never"), "'never' cannot be tuned"),
        (TunePlan("pi", task="papr"), "unknown task 'papr'; did you mean 'paper'"),
        (TunePlan("pi", trials=0), "--trials is 0"),
        (TunePlan("pi", method="luck"), "method 'luck'"),  # type: ignore[arg-type]
        (PatternPlan(rate=0.5), "--rate is 0.5 Hz"),
        (PatternPlan(slot_hz=100.0), "--slot-hz is 100"),
        (PatternPlan(population=2), "--population is 2"),
    ],
)
def test_a_wrong_plan_is_refused(plan: TunePlan | PatternPlan, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan.check()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_an_environment(name: str) -> None:
    assert find_task(name).config().slots >= 1


def test_the_real_plant_answers_a_search(tmp_path: Path) -> None:
    task = find_task("slots-130")
    config = task.config()
    trains = [make_controller(name, config.slots, 7692) for name in ("never", "always")]
    never, always = run_trials(task, trains, [SEARCH], 1.0, make=make_vector)
    assert always.beta[0] < 0.75 * never.beta[0]
    assert never.pulse_hz[0] == 0.0
    assert always.pulse_hz[0] == pytest.approx(130.0)
