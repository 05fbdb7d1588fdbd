"""Learners in a benchmark and in the reproduction of the paper's figures, in small: real training, real plants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import UserError
from sea_dbs.benchmark.course import courses
from sea_dbs.benchmark.run import benchmark, run_jobs
from sea_dbs.benchmark.schedule import Schedule
from sea_dbs.benchmark.store import RESULT, SERIES, Store
from sea_dbs.benchmark.suites import Options, entries, play_of, train_of
from sea_dbs.benchmark.work import _npz, run_job
from sea_dbs.closed_loop import BLIND
from sea_dbs.config import config_from_mapping
from sea_dbs.reproduce import plan
from sea_dbs.reproduce.plan import FIGURES, parts
from sea_dbs.reproduce.run import reproduce

SETTINGS = ("episodes=2", "episode_steps=2", "n_envs=2", "warmup_steps=2", "batch_size=2", "buffer_size=32")
OPTIONS = Options(1, 2, 3, SETTINGS)


def here(schedule: Schedule) -> None:
    """An engine in this process."""
    while (job := schedule.next()) is not None:
        schedule.done(job, run_job(job, schedule.inputs(job), schedule.store.root / "work" / job.key))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    options = Options(1, 2, 3, SETTINGS, ("sea-dbs", "continuous"), ("paper",))
    benchmark("paper", options, folder, here, quiet=True, command="sea-dbs benchmark --suite paper")
    return folder


def test_a_policy_stands_beside_itself_made_blind_and_trains_with_its_pulses(out: Path) -> None:
    store = Store(out)
    result = store.result(play_of("paper", "sea-dbs", 0, OPTIONS))
    assert set(result["rows"]) == {"own", *BLIND, "random", "periodic"}
    own, periodic = result["rows"]["own"]["measures"], result["rows"]["periodic"]["measures"]
    assert all(a <= b + 1e-9 for a, b in zip(periodic["pulses"], own["pulses"], strict=True))
    assert all(row["violations"] == 0 for row in result["rows"].values())
    text = (out / "paper.md").read_text()
    assert "| sea-dbs |" in text
    assert "↳ random at its duty" in text
    assert "observation shuffled in time" in text
    assert "`sea-dbs benchmark --suite paper`" in text
    assert (out / "paper-paper-learning.png").read_bytes().startswith(b"\x89PNG")


def test_figures_take_the_benchmarks_jobs_and_show_published_values_beside_ours(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def watched(schedule: Schedule) -> None:
        ran.extend(job.name for job in schedule.waiting)
        here(schedule)

    made = reproduce("fig4", OPTIONS, out, watched, released=True, quiet=True, command="x")
    assert not [name for name in ran if "sea-dbs" in name]  # there already
    rows = {row["what"]: row for row in made["figures"]["fig4"]["rows"]}
    assert rows["SEA-DBS: beta at episode 0"]["published"] == "0.471"
    assert float(rows["SEA-DBS: beta at episode 0"]["ours"].split()[0]) > 0.1
    assert any(what.startswith("released code") for what in rows)
    assert any("never acts in training" in sentence for sentence in made["figures"]["fig4"]["words"])
    half = reproduce("fig6", OPTIONS, out, here, quiet=True)
    assert [row["published"] for row in half["figures"]["fig6"]["rows"]] == ["371", "385", "310", "320"]
    monkeypatch.setattr(plan, "TABLE2_STEPS", (3, 4))
    table = reproduce("table2", OPTIONS, out, here, quiet=True)
    assert len(table["figures"]["table2"]["rows"]) == 6
    for figure in ("fig4", "fig6", "table2"):
        assert (out / f"reproduce-{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"reproduce-{figure}.md").read_text().count("| what | published | ours")


def test_a_task_whose_policies_were_trained_on_another_has_no_curves_of_its_own(out: Path) -> None:
    options = Options(1, 2, 3, SETTINGS, ("sea-dbs",), ("healthy",))
    result = benchmark("robust", options, out, here, quiet=True, command="sea-dbs benchmark --suite robust")
    assert "sea-dbs" in {row["controller"] for row in result["rows"]}
    assert result["samples"] == {"healthy": {}}
    assert (out / "robust-healthy-pareto.png").is_file()
    assert not (out / "robust-healthy-learning.png").exists()


def test_a_task_that_drifts_is_drawn_second_by_second(tmp_path: Path) -> None:
    options = Options(2, 2, 3, controllers=("always", "continuous"), tasks=("drift", "healthy"))
    benchmark("robust", options, tmp_path, here, quiet=True)
    cells, store = entries("robust", options), Store(tmp_path)
    found = courses(store, cells, "drift")
    for name, rate in (("never", 0.0), ("always", 50.0), ("continuous", 130.0)):
        own = found["pulses a second"][name]
        assert own.steps.tolist() == [1.0, 2.0, 3.0]
        assert own.value.tolist() == [rate] * 3
    results = [store.result(cell.job) for cell in cells if (cell.task, cell.controller) == ("drift", "never")]
    whole = [np.mean(one["rows"]["own"]["measures"]["P_beta_all"]) for one in results]
    np.testing.assert_allclose(found["P_beta"]["never"].value.mean(), np.mean(whole), rtol=1e-5)
    assert (tmp_path / "robust-drift-course.png").read_bytes().startswith(b"\x89PNG")
    assert courses(store, cells, "healthy") == {}
    assert not (tmp_path / "robust-healthy-course.png").exists()


def test_a_course_stands_on_the_seeds_that_all_have_and_leaves_lost_plants_out(tmp_path: Path) -> None:
    options = Options(2, 2, 3, controllers=("always",), tasks=("drift",))
    cells, store = entries("robust", options), Store(tmp_path)
    for cell in cells:
        beta, pulses = np.full((2, 4), 400.0 + cell.seed), np.full((2, 3), 7)
        beta[1], pulses[1] = np.nan, -1  # lost
        if (cell.controller, cell.seed) != ("always", 1):
            store.put(cell.job, {RESULT: b"{}", SERIES: _npz({"P_beta": beta, "pulses": pulses})})
    found = courses(store, cells, "drift")
    for name in ("never", "always"):
        assert found["P_beta"][name].value.tolist() == [400.0] * 3
        assert found["pulses a second"][name].value.tolist() == [7.0] * 3


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_names_its_jobs(figure: str) -> None:
    found = parts(figure, Options(seeds=2), released=True)
    assert all(len(part.jobs) == 2 for part in found)
    assert {"sea-dbs", "ddpg"} <= {part.variant for part in found}


def test_the_released_variant_acts_by_chance_and_does_not_train_its_reward_model() -> None:
    [part] = [one for one in parts("fig4", OPTIONS, released=True) if one.variant == "released"]
    trained = next(job for job in part.jobs[0].needs if job.kind == "train")
    config = config_from_mapping(trained.spec["config"], "the job")
    assert (config.exploration, config.epsilon_min, config.critic_target) == ("epsilon", 1.0, "printed")
    assert config.reward_model_lr < 1e-9


def test_the_learners_differ_in_their_switches_alone() -> None:
    configs: dict[str, dict[str, Any]] = {
        name: train_of("paper", name, 0, OPTIONS).spec["config"] for name in ("sea-dbs", "gs-only", "pm-only", "ddpg")
    }
    for name, config in configs.items():
        different = {key for key in config if config[key] != configs["sea-dbs"][key]}
        assert different <= {"exploration", "critic_target"}, name


def test_a_figure_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown figure 'fig9'"):
        reproduce("fig9", OPTIONS, tmp_path, here)
    with pytest.raises(UserError, match="nothing to draw"):
        reproduce("fig4", OPTIONS, tmp_path, here, tables_only=True)


def test_a_training_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder survives the job's process, and is taken away with the finished job."""
    job = train_of("paper", "sea-dbs", 5, Options(1, 2, 3, (*SETTINGS, "checkpoint_steps=2")))
    import sea_dbs.train as training

    save, saved = training._save, []

    def dying(*arguments: Any) -> None:
        save(*arguments)
        saved.append(1)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", dying)
    scratch = tmp_path / "work" / job.key
    with pytest.raises(KeyboardInterrupt):
        run_job(job, [], scratch)
    assert (scratch / "run" / "checkpoint.pt").exists()
    store = Store(tmp_path)
    assert run_jobs(store, [job], here, "test", quiet=True) == {}
    assert store.result(job)["env_steps"] == 4
    assert not scratch.exists()
