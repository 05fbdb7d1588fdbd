"""The catalogue's table in docs/safety.md: written by the command, one column a board, from docs/faults.json.

A run of some rows replaces those rows alone; each row keeps the command, date and commit it was measured with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.errors import UserError
from firmware_bridge.boards import BOARDS
from firmware_bridge.faults.catalogue import load
from firmware_bridge.faults.run import PASS, RowResult
from firmware_bridge.faults.tables import NOTE
from sea_dbs.files import atomic_write_text, read_json, write_json

DATA, PAGE = "faults.json", "safety.md"
BEGIN, END = "<!-- faults: written by sea-dbs faults --write-docs -->", "<!-- /faults -->"

Data = dict[str, dict[str, dict[str, Any]]]  # board -> row -> result


def write_docs(folder: Path, results: Sequence[RowResult], head: Mapping[str, Any]) -> None:
    """Merge these results into ``folder``'s data, and write the page's table anew.

    Raises:
        UserError: the page or its place for the table is not there.
    """
    page = read_page(folder / PAGE)
    data = _read(folder / DATA)
    for result in results:
        row = {name: value for name, value in result.as_json().items() if name in _KEPT}
        where = {name: head[name] for name in ("date", "commit", "command")}
        data.setdefault(str(head["board"]), {})[result.row.name] = {**row, **where}
    write_json(folder / DATA, data)
    before, rest = page.split(BEGIN, 1)
    atomic_write_text(folder / PAGE, f"{before}{BEGIN}\n\n{table(data)}\n{END}{rest.split(END, 1)[1]}")


_KEPT = ("verdict", "trials", "passed", "pulses", "reaction_ms_max", "problems")


def read_page(path: Path) -> str:
    """The page, which has a place for the table.

    Raises:
        UserError: it is not there, or has none.
    """
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"{path} has no place for the table: two lines, '{BEGIN}' and '{END}'")
    return page


def _read(path: Path) -> Data:
    if not path.is_file():
        return {}
    data: Data = read_json(path)
    return data


def table(data: Data) -> str:
    """Markdown: a line a row, a column a board; beneath, what was run and where it went wrong."""
    boards = [board for board in (*BOARDS, *sorted(set(data) - set(BOARDS))) if board in data]
    lines = [
        f"| row | fault | safe reaction | passes when | {' | '.join(boards)} |",
        f"|---|---|---|---|{len(boards) * '---|'}",
    ]
    for row in load():
        cells = [_cell(data[board].get(row.name)) for board in boards]
        lines.append(f"| {row.name} | {row.fault} | {row.reaction} | {row.passes} | {' | '.join(cells)} |")
    lines += ["", NOTE, ""]
    for board in boards:
        runs: dict[tuple[str, str, str], list[str]] = {}
        for name, done in data[board].items():
            runs.setdefault((done["command"], done["date"], done["commit"]), []).append(name)
        for (command, date, commit), names in sorted(runs.items(), key=lambda run: -len(run[1])):
            which = "" if len(names) > len(data[board]) / 2 else f" ({', '.join(names)})"
            lines.append(f"- {board}: `{command}`, {date}, commit {commit}{which}")
    wrong = [
        f"- {board}, {name}: {done['problems'][0]}"
        for board in boards
        for name, done in data[board].items()
        if done["verdict"] != PASS and done["problems"]
    ]
    return "\n".join([*lines, *(["", "What was wrong:", "", *wrong] if wrong else []), ""])


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run"
    if row["verdict"] != PASS:
        return f"**{row['verdict']}** {row['passed']}/{row['trials']}"
    took = "" if row["reaction_ms_max"] is None else f", {row['reaction_ms_max']:.0f} ms"
    return f"{row['passed']}/{row['trials']}{took}"
