"""A benchmark from its suite to its tables: ``sea-dbs benchmark``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envs.errors import UserError
from sea_dbs.benchmark import figures
from sea_dbs.benchmark.course import courses
from sea_dbs.benchmark.jobs import Job, everything
from sea_dbs.benchmark.learning import curves, runs_of, samples_needed
from sea_dbs.benchmark.schedule import Engine, Schedule
from sea_dbs.benchmark.statistics import improvement
from sea_dbs.benchmark.store import Store
from sea_dbs.benchmark.suites import Entry, Options, entries
from sea_dbs.benchmark.tables import OURS, Row, as_json, markdown, reward_apart, rows_of, table
from sea_dbs.files import atomic_write_bytes, atomic_write_text, write_json
from sea_dbs.manifest import machine
from sea_dbs.progress import progress


def run_jobs(store: Store, jobs: Sequence[Job], engine: Engine, name: str, *, quiet: bool = False) -> dict[str, str]:
    """Run what is not there yet; who failed, and why.

    Raises:
        UserError: another benchmark is running in the folder, or it cannot be written.
    """
    with store.locked():
        total = len(everything(jobs))
        missing = [job for job in everything(jobs) if store.find(job) is None]
        with progress(name, total, total - len(missing), quiet=quiet) as bar:
            schedule = Schedule(jobs, store, bar)
            engine(schedule)
    return schedule.failures


def benchmark(
    suite: str,
    options: Options,
    out: Path,
    engine: Engine,
    *,
    any_version: bool = False,
    tables_only: bool = False,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Run a suite, or go on with one, and write its tables and figures into ``out``.

    Returns:
        What ``SUITE.json`` holds; ``failures`` names the jobs that failed.

    Raises:
        UserError: an unknown name, a number out of range, a folder in use, or nothing finished to make a table of.
    """
    cells = entries(suite, options)
    store = Store(out, any_version=any_version)
    failures = {} if tables_only else run_jobs(store, [cell.job for cell in cells], engine, suite, quiet=quiet)
    rows = rows_of(store, cells)
    if not rows:
        raise UserError(f"no job of the suite '{suite}' is finished in {out}: there is nothing to make a table of")
    drawn = {f"{suite}-{name}.png": picture for name, picture in pictures(rows, store, cells).items()}
    facts = provenance(store, [cell.job for cell in cells], command)
    result = {
        "kind": "benchmark",
        "suite": suite,
        "options": asdict(options),
        "failures": failures,
        **facts,
        "rows": as_json(rows),
        "samples": {task: _plain(samples_needed(runs_of(store, cells, task))) for task in _tasks(rows)},
        "pictures": [name for name in drawn if not name.endswith("-comparison.png")],  # for a page
        "improvement": {task: _improvement([row for row in rows if row.task == task]) for task in _tasks(rows)},
    }
    write_json(out / f"{suite}.json", result)
    atomic_write_text(out / f"{suite}.md", report(suite, rows, store, cells, result))
    for name, picture in drawn.items():
        atomic_write_bytes(out / name, picture)
    return result


def provenance(store: Store, jobs: Sequence[Job], command: str) -> dict[str, Any]:
    """Command, commit, day, machine, and what the finished jobs took."""
    found = [store.result(job) for job in everything(jobs) if store.find(job) is not None]
    return {
        "command": command,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "jobs": len(everything(jobs)),
        "finished": len(found),
        "wall_s": round(sum(one["wall_s"] for one in found), 1),
        "code": sorted({one["code"] for one in found}),
    }


def commit() -> str:
    """The commit of the source, where it is a repository."""
    here = Path(__file__).parent
    asked = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def report(suite: str, rows: Sequence[Row], store: Store, cells: Sequence[Entry], result: dict[str, Any]) -> str:
    """The Markdown of a suite."""
    head = (
        f"`{result['command'] or 'sea-dbs benchmark --suite ' + suite}`, {result['date']}, commit "
        f"`{result['commit']}`, {spent(result)}; {result['machine']['cpu']}. "
        f"Interquartile mean over seeds (a seed is one training and {result['options']['plants']} held-out plants), "
        "95 % stratified bootstrap interval. A learner's ablations share its configuration."
    )
    parts = [head, "", markdown(rows)]
    for task in _tasks(rows):
        needed = samples_needed(runs_of(store, cells, task))
        if needed:
            parts += [f"Samples to the level that DDPG ends at, task `{task}`:", "", _samples(needed), ""]
        better = result["improvement"][task]
        for name, others in better.items():
            told = f"Reward of `{name}` beside that of each other row, task `{task}` (differences: plant by plant):"
            parts += [told, "", better_table(others), ""]
    violations = sum(row.violations for row in rows)
    lost = [f"{row.controller} ({row.task}) {row.lost}" for row in rows if row.lost]
    if lost:
        told = ", ".join(lost)
        parts += [
            f"Plants that diverged and are left out (docs/plant.md), with the trains beside a policy: {told}.",
            "",
        ]
    parts += [
        f"Decisions that a plant got otherwise than decided: {violations}. Net charge is 0 by construction in the "
        "plant; on boards it is measured (safety.md).",
        "",
    ]
    return "\n".join(parts)


def spent(result: dict[str, Any]) -> str:
    """Jobs and time."""
    return f"{result['finished']} of {result['jobs']} jobs, {result['wall_s'] / 3600:.1f} h of processes"


def _samples(needed: dict[str, dict[str, Any]]) -> str:
    lines = [["learner", "seeds", "never reached", "steps, ratio to DDPG's own"]]
    for name, one in needed.items():
        ratio = "" if one["ratio"] is None else one["ratio"].text(2)
        lines.append([name, str(len(one["steps"])), str(one["never"]), ratio])
    return table(lines)


def better_table(others: dict[str, dict[str, Any]]) -> str:
    """Differences of reward and probabilities of improvement as a table."""
    measures = {
        "higher by": "difference",
        "probability that a seed of it is above any of the other": "probability",
    }
    return table(
        [
            ["", *others],
            *(
                [
                    words,
                    *(
                        f"{one[key]['value']:.2f} ({one[key]['low']:.2f} to {one[key]['high']:.2f})"
                        for one in others.values()
                    ),
                ]
                for words, key in measures.items()
            ),
        ]
    )


def _improvement(rows: Sequence[Row]) -> dict[str, Any]:
    """Of SEA-DBS, in slots and over trains: its reward beside that of each other row with the same seeds."""
    several = [row for row in rows if len(row.seeds) > 1 and row.controller != "continuous"]
    found: dict[str, Any] = {}
    for own in (row for row in several if row.controller in OURS):
        found[own.controller] = {}
        for other in (row for row in several if row is not own):
            if (apart := reward_apart(own, other)) is not None:
                chance = improvement(own.values["reward"], other.values["reward"])
                found[own.controller][other.controller] = {"difference": vars(apart), "probability": vars(chance)}
    return found


def pictures(rows: Sequence[Row], store: Store, cells: Sequence[Entry]) -> dict[str, bytes]:
    """Every figure of a suite, PNG bytes."""
    drawn: dict[str, bytes] = {}
    for task in _tasks(rows):
        drawn[f"{task}-pareto"] = figures.pareto(rows, task)
        drawn[f"{task}-comparison"] = figures.comparison(rows, task)
        if over_time := courses(store, cells, task):
            drawn[f"{task}-course"] = figures.course(over_time, task)
        runs = runs_of(store, cells, task)
        if runs:
            by_measure = {"P_beta in training": curves(runs, "P_beta"), "reward in training": curves(runs, "reward")}
            drawn[f"{task}-learning"] = figures.learning(by_measure, task)
    return drawn


def _tasks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.task for row in rows))


def _plain(needed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {**one, "ratio": None if one["ratio"] is None else vars(one["ratio"])} for name, one in needed.items()
    }
