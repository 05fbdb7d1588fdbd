"""cppcheck and its MISRA addon over the core: a finding must be a deviation that is written down, with its reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml

from envs.errors import UserError
from firmware_bridge.build import CORE, sources
from sea_dbs.files import atomic_write_text

HERE = Path(__file__).parent
DOC = HERE.parents[1] / "docs" / "firmware" / "MISRA.md"
MARK = "<!-- table: python -m tests.analysis misra --write -->"


class Deviation(NamedTuple):
    """A rule that may be broken: anywhere (None), or so often at most."""

    rule: str
    permitted: int | None
    reason: str


def deviations() -> list[Deviation]:
    """What tests/analysis/misra.yaml permits."""
    rows = yaml.safe_load((HERE / "misra.yaml").read_text())
    return [
        Deviation(r["rule"], None if r["permitted"] == "anywhere" else int(r["permitted"]), r["reason"]) for r in rows
    ]


def findings(paths: list[Path] | None = None) -> Counter[str]:
    """How often each rule is broken in the core (or some files), a place in a header counted once.

    Raises:
        UserError: cppcheck is not there, or cannot read a file.
    """
    if shutil.which("cppcheck") is None:
        raise UserError("cppcheck is not there: 'make tools' installs it on Debian")
    with tempfile.TemporaryDirectory() as folder:  # the addon writes beside what it reads
        for path in paths or sources(CORE):
            shutil.copy(path, folder)
        command = ["cppcheck", "--enable=warning,style,performance,portability", "--std=c11", "--platform=unix32"]
        command += ["--addon=misra", "--quiet", "--template={file}:{line}:{column}: {id}", f"-I{folder}", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    found = [re.fullmatch(r"(.+:\d+:\d+): (?:misra-c2012-)?([\w.]+)", line) for line in lines]
    if done.returncode or not all(found):
        unread = next((line for line, match in zip(lines, found, strict=True) if not match), f"exit {done.returncode}")
        raise UserError(f"cppcheck failed: {unread}")
    return Counter(rule for _, rule in {(match[1], match[2]) for match in found if match})


def judge(found: Counter[str]) -> list[str]:
    """One sentence for each rule that is broken more often than it is written down."""
    permitted = {row.rule: row.permitted for row in deviations()}
    wrong = []
    for rule, count in sorted(found.items()):
        if rule not in permitted:
            wrong.append(
                f"{rule} is broken {count} times, and no deviation is written down in tests/analysis/misra.yaml"
            )
        elif (limit := permitted[rule]) is not None and count > limit:
            wrong.append(f"{rule} is broken {count} times, {limit} are written down in tests/analysis/misra.yaml")
    return wrong


def table(found: Counter[str]) -> str:
    """The deviations with their counts, for docs/firmware/MISRA.md."""
    rows = ["| rule | found | permitted | reason |", "|---|---|---|---|"]
    for row in deviations():
        limit = "anywhere" if row.permitted is None else str(row.permitted)
        rows.append(f"| {row.rule} | {found[row.rule]} | {limit} | {row.reason} |")
    return "\n".join(rows)


def write(found: Counter[str]) -> None:
    """Put the table into the document."""
    text = DOC.read_text()
    atomic_write_text(DOC, text[: text.index(MARK)] + f"{MARK}\n\n{table(found)}\n")
