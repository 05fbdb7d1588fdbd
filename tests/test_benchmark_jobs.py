"""Benchmarks with real plants and real processes: each job once, nothing lost when something is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import UserError
from sea_dbs.benchmark import jobs
from sea_dbs.benchmark.engine_local import LocalEngine
from sea_dbs.benchmark.jobs import Job, everything
from sea_dbs.benchmark.page import publish
from sea_dbs.benchmark.run import benchmark, run_jobs
from sea_dbs.benchmark.schedule import Schedule
from sea_dbs.benchmark.store import Store
from sea_dbs.benchmark.suites import SUITES, Options, controllers_of, entries, job_of
from sea_dbs.benchmark.trains import second_by_second
from sea_dbs.progress import progress
from sea_dbs.tasks import TASKS, find_task

ROOT = Path(__file__).parents[1]
SMALL = ["--seeds", "2", "--plants", "2", "--steps", "3", "--tasks", "paper", "--controllers", "always,on-off"]
OPTIONS = Options(2, 2, 3, (), ("always", "on-off"), ("paper",))


def _command(out: Path) -> list[str]:
    return [sys.executable, "-c", "from sea_dbs.cli import main; main()", "benchmark", *SMALL, "--out", str(out)]


def _finished(out: Path) -> dict[str, float]:
    return {file.parent.name: file.stat().st_mtime_ns for file in (out / "jobs").glob("[!.]*/result.json")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small benchmark, whose command was killed with SIGKILL after its first result."""
    folder = tmp_path_factory.mktemp("benchmark")
    process = subprocess.Popen(_command(folder), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not _finished(folder):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _finished(folder)
    assert 1 <= len(before) < 6
    done = subprocess.run(_command(folder), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = _finished(folder)
    assert {key: after[key] for key in before} == before  # not run again
    assert len(after) == 6
    assert not list((folder / "jobs").glob(".*"))
    return folder


def test_a_finished_benchmark_runs_nothing_and_says_the_same(out: Path) -> None:
    class Nothing(LocalEngine):
        def __call__(self, schedule: Schedule) -> None:
            assert schedule.next() is None

    before = json.loads((out / "paper.json").read_text())
    again = benchmark("paper", OPTIONS, out, Nothing(1), quiet=True)
    assert again["rows"] == before["rows"]
    assert again["finished"] == again["jobs"] == 6


def test_the_tables_and_figures_say_what_the_jobs_found(out: Path) -> None:
    rows = {row["controller"]: row for row in json.loads((out / "paper.json").read_text())["rows"]}
    assert list(rows) == ["never", "always", "on-off"]
    assert rows["never"]["iqm"]["P_beta"]["value"] == pytest.approx(100.0)
    assert rows["always"]["what_it_is"] == "constant stimulation"
    assert rows["always"]["iqm"]["pulse_hz"]["value"] == pytest.approx(50.0)
    assert rows["always"]["iqm"]["charge_percent"]["value"] == pytest.approx(100 * 50 / 130)
    assert rows["on-off"]["what_it_is"] == "reads beta"
    assert all(row["violations"] == 0 for row in rows.values())
    assert rows["never"]["values"]["EI"] != rows["always"]["values"]["EI"]
    text = (out / "paper.md").read_text()
    assert "| always |" in text
    assert "beta, % of untreated" in text
    for name in ("paper-paper-pareto.png", "paper-paper-comparison.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_a_lost_process_is_run_again_and_a_failed_job_takes_only_its_own_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    start = LocalEngine.__call__.__globals__["_start"]

    def killing(*arguments: Any) -> Any:
        connection, process = start(*arguments)
        if not killed:
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        return connection, process

    monkeypatch.setitem(LocalEngine.__call__.__globals__, "_start", killing)
    good = job_of("paper", "never", 0, Options(1, 2, 3))
    wrong = Job("play", "wrong", {**good.spec, "controller": {"kind": "pi", "kp": -1.0}})
    store = Store(tmp_path)
    failures = run_jobs(store, [good, wrong, Job("play", "needs it", good.spec, (wrong,))], LocalEngine(1), "test")
    assert killed
    assert store.find(good) is not None
    assert set(failures) == {"wrong", "needs it"}
    assert "kp" in failures["wrong"]


def test_a_job_that_always_dies_is_given_up(tmp_path: Path) -> None:
    job = job_of("paper", "never", 0, Options(1, 2, 3))
    with progress("test", 1, quiet=True) as bar:
        schedule = Schedule([job], Store(tmp_path), bar)
        for _ in range(3):
            assert schedule.next() == job
            schedule.vanished(job)
    assert schedule.next() is None
    assert "lost 3 times" in schedule.failures[job.name]


def test_two_benchmarks_do_not_share_a_folder_at_the_same_time(tmp_path: Path) -> None:
    with (
        Store(tmp_path).locked(),
        pytest.raises(UserError, match="another benchmark is running"),
        Store(tmp_path).locked(),
    ):
        pass


def test_a_jobs_files_are_whole_or_absent_and_the_first_ones_stay(tmp_path: Path) -> None:
    job, store = job_of("paper", "never", 0, OPTIONS), Store(tmp_path)
    store.put(job, {"result.json": b'{"a": 1}\n'})
    store.put(job, {"result.json": b'{"a": 2}\n'})
    assert store.result(job) == {"a": 1}
    with pytest.raises(TypeError):
        store.put(job_of("paper", "always", 0, OPTIONS), {"a": b"", "result.json": None})  # type: ignore[dict-item]
    assert [file.name for file in store.jobs.iterdir()] == [job.key]


def test_a_key_follows_the_values_and_the_meaning_of_the_code_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job_of("paper", "never", 0, OPTIONS)
    assert one.key == job_of("paper", "never", 0, OPTIONS).key
    assert one.config_hash != job_of("paper", "never", 1, OPTIONS).config_hash
    assert one.config_hash != job_of("paper-lfp", "never", 0, OPTIONS).config_hash
    file = tmp_path / "code.py"
    file.write_text('"""Words."""\nX = 1  # why\n')
    meaning = jobs._meaning(file)
    file.write_text('"""Other words."""\n\nX = 1\n')
    assert jobs._meaning(file) == meaning
    file.write_text("X = 2\n")
    assert jobs._meaning(file) != meaning
    read = {file.name for root in jobs.ROOTS["train"] for file in jobs.sources(root, ROOT)}
    assert {"update.py", "learner.py", "trainer.py", "batch_kernel.py", "sliding.py", "vector.py"} <= read
    other = Store(tmp_path)
    other.put(one, {"result.json": b"{}"})
    monkeypatch.setattr(jobs, "code_version", lambda kind: "changed")
    assert other.find(one) is None
    assert Store(tmp_path, any_version=True).find(one) is not None


def test_a_needed_job_comes_first_and_only_once() -> None:
    cells = entries("paper", OPTIONS)
    ordered = everything([cell.job for cell in cells[::-1]])
    assert len(ordered) == 6
    assert [job.name.split(", ")[1] for job in ordered] == ["never", "on-off", "always"] * 2


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_names_its_jobs_without_running_them(suite: str) -> None:
    cells = entries(suite, Options(seeds=1))
    assert {cell.task for cell in cells} == set(SUITES[suite])
    assert len({cell.job.key for cell in cells}) == len(cells)
    for cell in cells:
        if cell.task == "drift" and cell.controller == "sea-dbs":
            assert cell.job.needs[0].spec["task"] == "paper"  # judged under drift, trained without


def test_who_stands_on_which_task() -> None:
    assert {"dqn", "qr-dqn"} <= set(controllers_of("pattern"))
    assert not {"dqn", "recurrent"} & set(controllers_of("paper"))
    assert "recurrent" in controllers_of("realtime")
    assert "pi" not in controllers_of("paper-lfp")  # its thresholds are in GPi beta
    assert {"pi-tuned", "pi"} <= set(controllers_of("paper")) & set(controllers_of("efficient-1"))
    assert not {"pi-tuned"} & {*controllers_of("realtime"), *controllers_of("pattern")}  # tuned at a decision a second
    assert "pattern-45" in controllers_of("pattern")
    assert {"sea-dbs", "gs-only", "pm-only", "ddpg", "ppo"} <= set(controllers_of("cohort-lfp"))
    assert [task for task in TASKS if "pi-amplitude" in controllers_of(task)] == ["graded"]
    assert {"pi-tuned", "pi-amplitude-tuned"} <= set(controllers_of("graded"))
    alone = {"train-65-hz", "train-43-hz", "train-groups-26-hz", "train-group-16-hz", "random-trains"}
    assert alone <= set(controllers_of("efficient-3"))
    assert alone <= {cell.controller for cell in entries("trains", Options(seeds=1))}
    assert not alone & {cell.controller for cell in entries("efficient", Options(seeds=1))}


def test_continuous_stimulation_pays_for_its_pulses_wherever_pulses_are_priced() -> None:
    for task in ("pattern", "efficient-3"):
        config = find_task(task).config()
        assert second_by_second(config, 130.0).energy_price == config.energy_price > 0.0


def test_a_cohort_is_tested_on_patients_that_it_was_not_trained_on() -> None:
    train, test = (TASKS["cohort"].patients(purpose) for purpose in ("train", "test"))  # type: ignore[arg-type]
    assert len(train) == len(test) == 20
    assert not {one.seed for one in train} & {one.seed for one in test}


@pytest.mark.parametrize(
    ("suite", "options", "words"),
    [
        ("papers", OPTIONS, "unknown suite 'papers'"),
        ("paper", Options(0), "--seeds is 0"),
        ("paper", Options(controllers=("sometimes",)), "unknown controller 'sometimes'"),
        ("paper", Options(tasks=("efficient-x",)), "a number from 0 to 1000"),
    ],
)
def test_a_wrong_benchmark_is_refused(tmp_path: Path, suite: str, options: Options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        benchmark(suite, options, tmp_path / "out", LocalEngine(1), quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_page_takes_the_tables_between_its_marks(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "out" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    page.write_text("before\n<!-- x -->\nold\n<!-- /x -->\nafter\n")
    publish(page, "x", "new \\1", [picture])
    assert page.read_text() == "before\n<!-- x -->\nnew \\1\n\n![a](a.png)\n<!-- /x -->\nafter\n"
    assert (tmp_path / "a.png").read_bytes() == b"png"
    with pytest.raises(UserError, match="must hold the lines"):
        publish(page, "y", "", [])


def test_a_page_gets_the_tables_and_their_pictures_from_the_command(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = "<!-- benchmark paper -->\n<!-- /benchmark paper -->\n"
    page.write_text(f"{marks}\n<!-- one task -->\n<!-- /one task -->\n")
    command = [*_command(out), "--tables-only", "--write", str(page), "--mark", "one task"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "#### Task `paper`" in page.read_text().removeprefix(marks)
    assert page.read_text().startswith(marks)
    assert page.read_text().count("![") == 1
    assert [file.name for file in tmp_path.glob("*.png")] == ["paper-paper-pareto.png"]


def test_the_series_hold_what_the_table_was_made_of(out: Path) -> None:
    store = Store(out)
    job = job_of("paper", "on-off", 1, OPTIONS)
    series, result = store.series(job), store.result(job)
    assert series["P_beta"].shape == (2, 4)
    assert result["rows"]["own"]["measures"]["pulses"] == pytest.approx(list(series["pulses"].sum(axis=1)))
    assert np.isfinite(series["reward"]).all()
