"""``sea-dbs reproduce``: run what a figure needs, draw it, and say how and why it differs from the published one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envs.errors import UserError
from sea_dbs.benchmark.run import provenance, run_jobs, spent
from sea_dbs.benchmark.schedule import Engine
from sea_dbs.benchmark.store import Store
from sea_dbs.benchmark.suites import Options
from sea_dbs.files import atomic_write_bytes, atomic_write_text, write_json
from sea_dbs.reproduce.figures import draw
from sea_dbs.reproduce.found import ready
from sea_dbs.reproduce.plan import FIGURES, Part, parts
from sea_dbs.reproduce.words import rows, words


def reproduce(
    figure: str,
    options: Options,
    out: Path,
    engine: Engine,
    *,
    released: bool = False,
    any_version: bool = False,
    tables_only: bool = False,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Make one figure (or ``all``) in ``out``; jobs that a benchmark there has run are taken from it.

    Returns:
        ``figures`` (name -> rows and sentences), ``failures``, and what it was made with.

    Raises:
        UserError: an unknown figure, a number out of range, a folder in use, or nothing finished.
    """
    wanted = parts(figure, options, released=released)
    jobs = [job for part in wanted for job in part.jobs]
    store = Store(out, any_version=any_version)
    failures = {} if tables_only else run_jobs(store, jobs, engine, f"reproduce {figure}", quiet=quiet)
    found = ready(store, wanted)
    if not found:
        raise UserError(f"no job of '{figure}' is finished in {out}: there is nothing to draw")
    made: dict[str, Any] = {}
    for one in FIGURES:
        own = [part for part in found if part.figure == one]
        if own:
            made[one] = _make(store, one, own, out)
    facts = provenance(store, jobs, command)
    result = {"kind": "reproduction", "options": asdict(options), "failures": failures, **facts, "figures": made}
    write_json(out / f"reproduce-{figure}.json", result)
    atomic_write_text(out / f"reproduce-{figure}.md", page(result))
    return result


def _make(store: Store, figure: str, own: Sequence[Part], out: Path) -> dict[str, Any]:
    picture = draw(store, figure, own)
    atomic_write_bytes(out / f"reproduce-{figure}.png", picture)
    numbers = rows(store, figure, own)
    return {"rows": numbers, "words": words(store, figure, own, numbers)}


def page(result: dict[str, Any]) -> str:
    """The Markdown of a reproduction."""
    parts_ = [
        f"`{result['command']}`, {result['date']}, commit `{result['commit']}`, {spent(result)}.",
        "",
    ]
    for figure, one in result["figures"].items():
        parts_ += [f"#### {figure}", "", _table(one["rows"]), ""]
        parts_ += [f"- {sentence}" for sentence in one["words"]]
        parts_.append("")
    return "\n".join(parts_)


def _table(numbers: Sequence[dict[str, Any]]) -> str:
    lines = ["| what | published | ours (95 % interval) | seeds |", "|---|---|---|---|"]
    lines += [f"| {one['what']} | {one['published']} | {one['ours']} | {one['seeds']} |" for one in numbers]
    return "\n".join(lines)
