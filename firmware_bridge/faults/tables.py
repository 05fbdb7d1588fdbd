"""The catalogue's table, as markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from firmware_bridge.faults.run import PASS, RowResult, Settings
from firmware_bridge.session import git_commit

NOTE = (
    "Judged from the electrode's trace by a checker with its own numbers (`firmware_bridge/faults/checker.py`). In "
    "every trial: no pulse above a limit, net charge 0, ramp, lease, states, no re-arming by itself. *Reaction*: the "
    "longest time from the fault, or from the last frame of a lost host that the board took, to the change of state, "
    "in device time."
)


def head(settings: Settings, rows: str = "") -> dict[str, Any]:
    """What was run, where and when."""
    words = ["sea-dbs faults", f"--board {settings.board}", f"--seed {settings.seed}"]
    words += [f"--rows {rows}"] if rows else []
    words += [f"--trials {settings.trials}"] if settings.trials is not None else []
    words += [f"--port {settings.port}"] if settings.port else []
    words += ["--full"] if settings.full else []
    words += [f"--jobs {settings.jobs}"] if settings.jobs is not None else []
    words += [f"--broken {settings.broken}"] if settings.broken else []
    return {
        "board": settings.board if settings.port is None else settings.port,
        "seed": settings.seed,
        "date": datetime.now(tz=UTC).date().isoformat(),
        "commit": commit_text(),
        "command": " ".join(words),
    }


def commit_text() -> str:
    """The commit that runs, shortened; with '+' where files differ from it."""
    commit = git_commit() or "unknown"
    return commit[:12] + "+" * commit.endswith("+")


def as_json(results: Sequence[RowResult], head: dict[str, Any]) -> dict[str, Any]:
    """Plain values: ``head`` (board, seed, commit, command) and a list of rows."""
    return {**head, "rows": [result.as_json() for result in results]}


def markdown(results: Sequence[RowResult], head: dict[str, Any]) -> str:
    """A table for people."""
    lines = [
        f"Board {head['board']}, seed {head['seed']}, {head['date']}, commit {head['commit']}; `{head['command']}`",
        "",
        "| row | fault | safe reaction | passes when | trials | reaction | result |",
        "|---|---|---|---|---:|---:|---|",
    ]
    for result in results:
        row = result.row
        took = f"{max(result.reaction_ms):.1f} ms" if result.reaction_ms else ""
        verdict = result.verdict if result.verdict == PASS else f"**{result.verdict}**"
        cells = (row.name, row.fault, row.reaction, row.passes, f"{result.passed}/{result.trials}", took, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    wrong = [result for result in results if result.problems]
    if wrong:
        lines += ["", "What was wrong:", ""]
        lines += [f"- {result.row.name}: {result.problems[0]}" for result in wrong]
    return "\n".join([*lines, "", NOTE, ""])
