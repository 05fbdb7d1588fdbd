"""Line and branch coverage of the core by its C-level tests, as gcov counts them.

What runs: the tests that hold the core in their own process, random traffic with its judge, and the fuzzers' corpora.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.build import CORE, find_compiler, sources
from tests.board_tools import HERE as C_TESTS
from tests.board_tools import NO_RAMP, dump_source
from tests.fuzz.targets import HERE as FUZZ
from tests.fuzz.targets import SMALL, repack_source, unpack

ROOT = Path(__file__).parents[2]
LEAST = 95.0  # %, of lines and of branches
SEEDS = (1, 2, 3)
ROUNDS = 100_000
#: Tests that drive the core through tests/firmware/harness.c.
TESTS = ("test_board_core.py", "test_board_observe.py", "test_board_agreement.py", "test_security_board.py",
         "test_security_session.py", "test_core_edges.py", "test_board_memory.py")  # fmt: skip
FLAGS = ("-std=c11", "-O0", "--coverage", "-fPIC")


class Coverage(NamedTuple):
    """Percent of the core's lines and branches, and what was missed, by file."""

    lines: float
    branches: float
    missed: dict[str, list[int]]  # lines never run, or with a branch never taken


def _run(command: Sequence[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    if done.returncode:
        last = "; ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise UserError(f"{Path(command[0]).name} failed while coverage was measured: {last}")
    return done.stdout


def _objects(folder: Path, flags: Sequence[str]) -> list[str]:
    """The core, compiled to be counted."""
    folder.mkdir()

    def compile_one(path: Path) -> str:
        made = folder / f"{path.stem}.o"
        _run([find_compiler(), *FLAGS, *flags, "-c", f"-I{CORE}", "-o", str(made), str(path)], folder)
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, [path for path in sources(CORE) if path.suffix == ".c"]))


def _program(folder: Path, name: str, files: Sequence[Path], flags: Sequence[str], extra: str = "") -> Path:
    """A test's own C, not counted, with the counted core."""
    objects = _objects(folder / name, flags)
    (folder / name / "harness_dump.h").write_text(extra)
    program = folder / name / "program"
    link = [find_compiler(), "-std=c11", "-O1", "-fPIC", "--coverage", *flags, f"-I{CORE}", f"-I{folder / name}"]
    _run([*link, "-o", str(program), *map(str, files), *objects], folder / name)
    return program


def _measure(folder: Path) -> None:
    small = (*SMALL, "-DREPLAY_PREPARES")
    fuzz = _program(folder, "random", [C_TESTS / "fuzz.c"], ())
    core = _program(folder, "core", [FUZZ / "core.c", FUZZ / "replay.c"], small)
    decoder = _program(folder, "decoder", [FUZZ / "decoder.c", FUZZ / "replay.c"], (), repack_source())
    harness = _program(folder, "harness", [C_TESTS / "harness.c"], ("-shared", *NO_RAMP), dump_source())
    for seed in SEEDS:
        _run([str(fuzz), str(seed), str(ROUNDS)], folder)
    _run([str(core), *map(str, unpack("core", folder / "kept-core").iterdir())], folder)
    _run([str(decoder), *map(str, unpack("decoder", folder / "kept-decoder").iterdir())], folder)
    tests = [str(ROOT / "tests" / name) for name in TESTS if (ROOT / "tests" / name).exists()]
    _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], ROOT, SEA_HARNESS=str(harness))


def measure() -> Coverage:
    """Compile, run everything, count.

    Raises:
        UserError: gcovr is not there, or a test failed.
    """
    if shutil.which("gcovr") is None:
        raise UserError("gcovr is not there: 'make tools' installs it on Debian")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _measure(folder)
        command = [
            "gcovr",
            "--root",
            str(CORE),
            "--filter",
            f"{CORE}/",
            "--exclude-unreachable-branches",
            "--json",
            "-",
        ]
        report = json.loads(_run([*command, str(folder)], folder))
    return _summary(report)


def _summary(report: dict) -> Coverage:  # type: ignore[type-arg]
    lines = covered = branches = taken = 0
    missed: dict[str, list[int]] = {}
    for file in report["files"]:
        for line in file["lines"]:
            if line.get("gcovr/noncode") or line.get("gcovr/excluded"):
                continue
            lines += 1
            covered += line["count"] > 0
            branches += len(line["branches"])
            taken += sum(branch["count"] > 0 for branch in line["branches"])
            if line["count"] == 0 or any(branch["count"] == 0 for branch in line["branches"]):
                missed.setdefault(file["file"], []).append(line["line_number"])
    return Coverage(round(100 * covered / lines, 2), round(100 * taken / branches, 2), missed)


def judge(coverage: Coverage) -> list[str]:
    """One sentence for each measure that is too low."""
    both = (("lines", coverage.lines), ("branches", coverage.branches))
    return [
        f"coverage of the core's {name} is {got} %, at least {LEAST} % is asked for"
        for name, got in both
        if got < LEAST
    ]
