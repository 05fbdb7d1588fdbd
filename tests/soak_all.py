"""Everything at its full count, in one command: ``python -m tests.soak_all`` (``make soak``).

Each part is a command of its own that says JSON and exits 0 where all is well. What a part said is kept in ``--out`` at
once, so that a run that was killed goes on with the parts that are missing; docs/SOAK.md and docs/soak.json are written
anew after each. A part is run again with ``--again NAME``, or when its command has changed.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envs.errors import UserError
from firmware_bridge.faults.tables import commit_text
from sea_dbs.files import atomic_write_text, read_json, write_json
from sea_dbs.progress import progress

ROOT = Path(__file__).resolve().parent.parent
EMULATED = ("qemu-m4f", "qemu-m7", "qemu-m55")
Said = list[Any]  # the JSON values that a command wrote, one after another


@dataclass(frozen=True)
class Part:
    """A command, and how its result is read."""

    name: str
    what: str
    limit: str
    command: tuple[str, ...]  # arguments of this interpreter
    read: Callable[[Said], tuple[str, str]]  # count, result
    minutes: float  # about; for the bar


def _cli(*words: str) -> tuple[str, ...]:
    return ("-m", "sea_dbs.cli", *words)


def _kills(said: Said) -> tuple[str, str]:
    [row] = said[0]["rows"]
    return f"{row['trials']:,} kills", f"{row['passed']:,} of {row['trials']:,}"


def _fuzz(said: Said) -> tuple[str, str]:
    runs = sum(entry["executions"] for entry in said)
    found = sum(len(entry["findings"]) for entry in said)
    each = ", ".join(f"{entry['target']} {entry['executions']:,}" for entry in said)
    return f"{runs:,} executions ({each})", f"{found} findings"


def _corruption(said: Said) -> tuple[str, str]:
    return f"{said[0]['corrupted']:,} frames", f"{said[0]['accepted']} accepted"


def _attack(said: Said) -> tuple[str, str]:
    entry = said[0]
    return (
        f"{entry['sent']:,} frames ({entry['forged']:,} forged, {entry['replayed']:,} replayed, "
        f"{entry['reordered']:,} reordered)",
        f"{entry['applied']} applied",
    )


def _soak(said: Said) -> tuple[str, str]:
    entry = said[0]
    count = f"{entry['device_s'] / 60:.0f} min, {sum(entry['faults'].values())} faults, {entry['pulses']:,} pulses"
    grown = entry["board_kb"][1] - entry["board_kb"][0]
    result = f"{len(entry['violations'])} violations, {len(entry['problems'])} reactions missed; board {grown:+d} kB"
    return count, result


def _clock(said: Said) -> tuple[str, str]:
    [row] = said[0]["rows"]
    worst = max(trial["worst_us"] for trial in row["said"])
    return f"{row['trials']} hours of up to ±200 ppm", f"offset at most {worst} µs wrong"


def parts(scale: float = 1.0) -> tuple[Part, ...]:
    """Every part; ``scale`` < 1 takes that share of each count."""

    def n(count: int) -> str:
        return str(max(1, round(count * scale)))

    def kills(board: str, count: int) -> Part:
        return Part(
            f"kills-{board}",
            f"host killed (SIGKILL) amid its renewals, {board}",
            "FALLBACK and last ordered pulse <= lease + 20 ms, then nothing above the ramp, each time",
            _cli("faults", "--board", board, "--rows", "host_killed", "--trials", n(count), "--json"),
            _kills,
            5,
        )

    def attack(name: str, where: str, count: int, *more: str) -> Part:
        command = ("-m", "tests.security_attack", n(count), *more)
        return Part(name, f"forged, replayed, reordered frames, {where}", "0 applied", command, _attack, 3)

    def fuzz(target: str, count: int, minutes: float) -> Part:
        command = ("-m", "tests.fuzz", "--target", target, "--runs", n(count), "--plain", "--jobs", "2", "--json")
        return Part(f"fuzz-{target}", f"libFuzzer, {target}", "0 findings", command, _fuzz, minutes)

    return (
        kills("host", 1_000),
        *(kills(board, 100) for board in EMULATED),
        Part(
            "corruption",
            "random corruptions of whole frames, C decoder",
            "0 accepted",
            ("-m", "tests.corruption", n(10_000_000), "--json"),
            _corruption,
            2,
        ),
        fuzz("decoder", 97_000_000, 30),
        fuzz("core", 3_000_000, 15),
        attack("attack", "C core in process", 1_000_000),
        *(attack(f"attack-{board}", board, 1_000, "--board", board) for board in ("host", *EMULATED)),
        Part(
            "soak",
            "simulated closed loop with randomised faults, host board",
            "nothing outside the envelope, each fault's reaction, no leak",
            _cli("soak", "--minutes", str(max(0.1, 60 * scale)), "--seed", "1", "--json"),
            _soak,
            4,
        ),
        Part(
            "clock",
            "clocks of host and board drift apart (simulated)",
            "offset < 2 ms",
            _cli("faults", "--rows", "clock", "--trials", n(2), "--json"),
            _clock,
            1,
        ),
    )


def _values(text: str) -> Said:
    """The JSON values of a command's output, one after another."""
    decoder, said, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        said.append(value)
        text = text[end:].strip()
    return said


def run(part: Part, log: Path) -> dict[str, Any]:
    """Run a part; what is kept of it. Its errors go to ``log``."""
    commit, began = commit_text(), time.monotonic()
    with log.open("wb") as errors:
        done = subprocess.run(
            [sys.executable, *part.command], stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, check=False
        )
    kept = {
        "command": shlex.join(part.command),
        "code": done.returncode,
        "wall_s": round(time.monotonic() - began, 1),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "commit": commit,
        "machine": f"{os.cpu_count()} cores, {platform.platform(terse=True)}, Python {platform.python_version()}",
    }
    try:
        count, result = part.read(_values(done.stdout.decode()))
        return {**kept, "count": count, "result": result, "good": done.returncode == 0}
    except (ValueError, KeyError, IndexError, TypeError):
        words = log.read_text(errors="replace").strip().splitlines()
        return {**kept, "count": "", "result": words[-1] if words else "said nothing", "good": False}


def kept_of(out: Path, part: Part) -> dict[str, Any] | None:
    """What was kept of a part that ended well with this very command."""
    path = out / f"{part.name}.json"
    if not path.is_file():
        return None
    kept: dict[str, Any] = read_json(path)
    return kept if kept["good"] and kept["command"] == shlex.join(part.command) else None


def page(chosen: Sequence[Part], kept: Mapping[str, dict[str, Any]]) -> str:
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
        entry = kept.get(part.name)
        if entry is None:
            lines.append(f"| {part.what} | {part.limit} | not run yet | | | | |")
            continue
        verdict = "pass" if entry["good"] else "**FAIL**"
        where = f"{entry['date']}, {entry['commit']}"
        cells = (part.what, part.limit, entry["count"], entry["result"], verdict, f"{entry['wall_s']:.0f} s", where)
        lines.append(f"| {' | '.join(cells)} |")
    commands = [f"    python {entry['command']}" for part in chosen if (entry := kept.get(part.name))]
    machines = sorted({entry["machine"] for entry in kept.values()})
    lines += ["", "Commands, in the same order:", "", *commands, ""]
    lines += [f"Machine: {'; '.join(machines)}; shared with other work, so wall times are upper bounds.", ""]
    return "\n".join(lines)


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
        kept = _run_all(everything, wanted or names, again, given.out, given.docs)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return int(not all(name in kept and kept[name]["good"] for name in wanted or names))


def _names(text: str, known: Sequence[str]) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise UserError(f"there is no part '{name}' of the soak: choose from {', '.join(known)}")
    return found


def _run_all(
    everything: Sequence[Part], wanted: Sequence[str], again: Sequence[str], out: Path, docs: Path
) -> dict[str, dict[str, Any]]:
    kept = {part.name: entry for part in everything if (entry := kept_of(out, part)) and part.name not in again}
    due = [part for part in everything if part.name in wanted and part.name not in kept]
    with progress("soak (about minutes)", round(sum(part.minutes for part in due))) as bar:
        for part in due:
            bar.update(0, part.name)
            kept[part.name] = run(part, out / f"{part.name}.log")
            write_json(out / f"{part.name}.json", kept[part.name])
            bar.update(round(part.minutes), f"{part.name}: {kept[part.name]['result']}")
            _write(everything, kept, docs)
    _write(everything, kept, docs)
    return kept


def _write(everything: Sequence[Part], kept: Mapping[str, dict[str, Any]], docs: Path) -> None:
    atomic_write_text(docs / "SOAK.md", page(everything, kept))
    write_json(docs / "soak.json", dict(kept))


if __name__ == "__main__":
    sys.exit(main())
