"""Everything at its full count, in one command: ``python -m tests.soak_all`` (``make soak``).

Each part (soak_parts.py) is a command of its own, or several with a share of the count each. What one said is kept in
``--out`` at once, so that a run that was killed goes on with what is missing; docs/SOAK.md and docs/soak.json are
written anew after each. A part is run again with ``--again NAME``, or when its command has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envs.errors import UserError
from firmware_bridge.faults.tables import commit_text
from sea_dbs.files import atomic_write_text, read_json, write_json
from sea_dbs.progress import progress
from tests.soak_parts import Part, Said, parts

ROOT = Path(__file__).resolve().parent.parent


def _values(text: str) -> Said:
    """The JSON values of a command's output, one after another."""
    decoder, said, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        said.append(value)
        text = text[end:].strip()
    return said


def run(part: Part, share: int, out: Path) -> dict[str, Any]:
    """Run one command of a part; what is kept of it. Its errors go to a file beside it."""
    log, command, commit, began = out / f"{part.name}.log", part.commands[share], commit_text(), time.monotonic()
    with log.open("wb") as errors:
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, check=False)
    kept = {
        "command": shlex.join(command),
        "code": done.returncode,
        "wall_s": round(time.monotonic() - began, 1),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "commit": commit,
        "machine": f"{os.cpu_count()} cores, {platform.platform(terse=True)}, Python {platform.python_version()}",
        "said": [],
    }
    try:
        said = _values(done.stdout.decode())
        part.read([said[0], *said[1:]])
        return {**kept, "said": said, "good": done.returncode == 0}
    except (ValueError, KeyError, IndexError, TypeError):
        words = log.read_text(errors="replace").strip().splitlines()
        return {**kept, "words": words[-1] if words else "said nothing", "good": False}


def _path(out: Path, part: Part, share: int) -> Path:
    return out / (f"{part.name}.json" if len(part.commands) == 1 else f"{part.name}-{share + 1}.json")


def kept_of(out: Path, part: Part, share: int) -> dict[str, Any] | None:
    """What was kept of this very command, if it ended well."""
    path = _path(out, part, share)
    if not path.is_file():
        return None
    kept: dict[str, Any] = read_json(path)
    return kept if kept["good"] and kept["command"] == shlex.join(part.commands[share]) else None


def summed(part: Part, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A part's row: what all its commands said together."""
    said = [value for entry in entries for value in entry["said"]]
    words = [entry["words"] for entry in entries if "words" in entry]
    count, result = part.read(said) if said else ("", "")
    if len(entries) < len(part.commands):
        count += f"; {len(entries)} of {len(part.commands)} shares so far"
    return {
        "count": count,
        "result": "; ".join([*([result] if result else []), *words]),
        "good": all(entry["good"] for entry in entries),
        "whole": len(entries) == len(part.commands),
        "wall_s": round(sum(entry["wall_s"] for entry in entries), 1),
        "date": max(entry["date"] for entry in entries),
        "commits": sorted({entry["commit"] for entry in entries}),
        "command": entries[0]["command"],
        "machine": entries[-1]["machine"],
    }


def page(chosen: Sequence[Part], rows: Mapping[str, dict[str, Any]]) -> str:
    """docs/SOAK.md."""
    lines = [
        "# Soak: everything at its full count",
        "",
        "Written by `make soak` (`python -m tests.soak_all`), part by part: a run that is killed goes on from there.",
        "Research use only. All figures: [soak.json](soak.json); how faults are judged: [safety.md](safety.md).",
        "",
        "| what | limit | count | result | | wall time | date, commit |",
        "|---|---|---|---|---|---:|---|",
    ]
    for part in chosen:
        row = rows.get(part.name)
        if row is None:
            lines.append(f"| {part.what} | {part.limit} | not run yet | | | | |")
            continue
        verdict = "**FAIL**" if not row["good"] else "pass" if row["whole"] else "not whole yet"
        where = f"{row['date']}, {' '.join(row['commits'])}"
        cells = (part.what, part.limit, row["count"], row["result"], verdict, f"{row['wall_s']:.0f} s", where)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Commands, in the same order:", ""]
    for part in chosen:
        more = f"  # and {len(part.commands) - 1} more seeds" if len(part.commands) > 1 else ""
        lines.append(f"    python {shlex.join(part.commands[0])}{more}")
    machines = sorted({row["machine"] for row in rows.values()})
    note = (
        "'+' at a commit: files differed from it. The machine was shared with other work: wall times are upper bounds."
    )
    return "\n".join([*lines, "", f"Machine: {'; '.join(machines)}. {note}", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; exit code 1 where a part is not good."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak_all", description=__doc__)
    parser.add_argument("--parts", default="", help="only these, by name, with commas; --list names them")
    parser.add_argument("--again", default="", help="run these once more, though they ended well")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="what is kept between runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of SOAK.md and soak.json")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each count, for a try; not for docs/")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args(arguments)
    everything = parts(given.scale)
    names = [part.name for part in everything]
    if given.list:
        sys.stdout.write("".join(f"{part.name:15} {part.what}\n" for part in everything))
        return 0
    try:
        wanted, again = (_names(text, names) for text in (given.parts, given.again))
        if not 0 < given.scale <= 1 or (given.scale < 1 and given.docs.resolve() == ROOT / "docs"):
            raise UserError(f"--scale {given.scale} is outside 0 to 1, or would write small counts into docs/")
        given.out.mkdir(parents=True, exist_ok=True)
        rows = _run_all(everything, wanted or names, again, given.out, given.docs)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return int(not all(name in rows and rows[name]["good"] and rows[name]["whole"] for name in wanted or names))


def _names(text: str, known: Sequence[str]) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise UserError(f"there is no part '{name}' of the soak: choose from {', '.join(known)}")
    return found


def _run_all(
    everything: Sequence[Part], wanted: Sequence[str], again: Sequence[str], out: Path, docs: Path
) -> dict[str, dict[str, Any]]:
    kept: dict[str, dict[int, dict[str, Any]]] = {}
    for part in everything:
        found = {k: entry for k in range(len(part.commands)) if (entry := kept_of(out, part, k))}
        kept[part.name] = {} if part.name in again else found
    due = [
        (part, k)
        for part in everything
        if part.name in wanted
        for k in range(len(part.commands))
        if k not in kept[part.name]
    ]
    rows = _write(everything, kept, docs)
    with progress("soak", len(due)) as bar:
        for part, k in due:
            bar.update(0, part.name)
            kept[part.name][k] = run(part, k, out)
            write_json(_path(out, part, k), kept[part.name][k])
            rows = _write(everything, kept, docs)
            bar.update(1, f"{part.name}: {rows[part.name]['result']}")
    return rows


def _write(
    everything: Sequence[Part], kept: Mapping[str, Mapping[int, dict[str, Any]]], docs: Path
) -> dict[str, dict[str, Any]]:
    before = read_json(docs / "soak.json") if (docs / "soak.json").exists() else {}
    # what another checkout has run, its commit with it, as long as it is still the same command
    rows = {
        part.name: before[part.name]
        for part in everything
        if before.get(part.name, {}).get("command") == shlex.join(part.commands[0])
    }
    rows |= {part.name: summed(part, list(kept[part.name].values())) for part in everything if kept[part.name]}
    atomic_write_text(docs / "SOAK.md", page(everything, rows))
    write_json(docs / "soak.json", rows)
    return rows


if __name__ == "__main__":
    sys.exit(main())
