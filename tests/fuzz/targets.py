"""The fuzzers: how they are compiled, run, and what they say."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from envs.errors import UserError
from firmware_bridge.build import WARNINGS
from firmware_bridge.layout import TYPES
from sea_dbs.files import atomic_write_text
from tests.board_tools import compiled

HERE = Path(__file__).parent
#: Inputs that once failed: none may fail again.
REGRESSIONS = HERE / "regressions"
COMPILER = "clang-14"
TARGETS = ("decoder", "core")
#: Longest input: two of the longest frames; 40 steps.
MAX_LENGTH = {"decoder": 506, "core": 482}
#: Arrays of the core's for the policy of world.h alone: a smaller core is copied faster.
SMALL = ("-DSEA_OBSERVATION_MAX=230", "-DSEA_DECIDED_SLOTS_MAX=60")
SANITIZERS = ("-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
FAST = ("-O2", "-g", "-fsanitize=fuzzer")


class Outcome(NamedTuple):
    """What a run of a fuzzer came to."""

    target: str
    sanitized: bool
    seed: int
    executions: int
    seconds: float
    edges: int  # of the C control flow that were covered
    findings: list[str]  # the input's file and what was wrong


def repack_source() -> str:
    """C that unpacks a payload and packs it again, for every message."""
    out = ["#define REPACK_NONE ((size_t)-1)", '#include "sea_messages.h"', ""]
    out += ["static size_t repack(uint8_t type, const uint8_t *in, size_t size, uint8_t *out)", "{"]
    out += ["    (void)in;", "    (void)out;", "    switch (type) {"]
    for row in TYPES.values():
        name = row.name.lower()
        out += [f"    case SEA_{row.name}: {{"]
        if not row.fields:
            out += [f"        return size == SEA_{row.name}_SIZE ? size : REPACK_NONE;", "    }"]
            continue
        out += [f"        sea_msg_{name}_t m;", f"        if (!sea_unpack_{name}(&m, in, size)) {{"]
        out += ["            return REPACK_NONE;", "        }"]
        pack = f"sea_pack_{name}(out, &m);"
        out += [f"        return {pack}"] if row.tail else [f"        {pack}", f"        return SEA_{row.name}_SIZE;"]
        out += ["    }"]
    return "\n".join([*out, "    default:", "        return REPACK_NONE;", "    }", "}", ""])


def build(target: str, *, sanitized: bool) -> Path:
    """The fuzzer of a target.

    Raises:
        UserError: clang-14 is not there.
    """
    if shutil.which(COMPILER) is None:
        raise UserError(f"the fuzzers need {COMPILER} with its libFuzzer: 'make tools' installs it on Debian")
    flags = (*WARNINGS, *(SANITIZERS if sanitized else FAST), *(SMALL if target == "core" else ()))
    return compiled(f"fuzz-{target}", [HERE / f"{target}.c"], flags, repack_source(), COMPILER)


def corpus(target: str) -> Path:
    """The kept inputs, one a line, base64."""
    return HERE / "corpus" / f"{target}.txt"


def unpack(target: str, folder: Path) -> Path:
    """The kept inputs and those that once failed, as files in a new folder."""
    folder.mkdir(parents=True)
    for path in (corpus(target), REGRESSIONS / f"{target}.txt"):
        for i, line in enumerate(path.read_text().split() if path.exists() else ()):
            (folder / f"{path.parent.name}-{i}").write_bytes(base64.b64decode(line))
    return folder


def _run_one(
    program: Path, target: str, runs: int, seed: int, found: Path, kept: Path, findings: Path
) -> tuple[int, int, str]:
    """Executions, edges, and the last words of a fuzzer that stopped at a finding."""
    found.mkdir(parents=True, exist_ok=True)
    command = [str(program), f"-runs={runs}", f"-seed={seed}", f"-max_len={MAX_LENGTH[target]}", "-timeout=10"]
    command += [f"-artifact_prefix={findings}/", "-print_final_stats=1", "-reload=0", str(found), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    edges = re.findall(r"cov: (\d+)", done.stderr)
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if re.search("violation|ERROR|runtime error", line)
    ]
    wrong = "; ".join(said[:2]) or f"exit code {done.returncode}"
    return int(executed[1]) if executed else 0, int(edges[-1]) if edges else 0, wrong if done.returncode else ""


def run(target: str, runs: int, seed: int, findings: Path, *, sanitized: bool, jobs: int = 1) -> Outcome:
    """``runs`` executions from the kept corpus on, in ``jobs`` processes with seeds of their own.

    An input that fails is written to ``findings``. Nothing is added to the corpus: see `keep`.
    """
    program = build(target, sanitized=sanitized)
    findings.mkdir(parents=True, exist_ok=True)
    shares = [runs // jobs + (i < runs % jobs) for i in range(jobs)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        kept = unpack(target, Path(folder, "kept"))

        def one(i: int) -> tuple[int, int, str]:
            return _run_one(program, target, shares[i], seed + i, Path(folder, str(i)), kept, findings)

        results = list(pool.map(one, range(jobs)))
    seconds = time.monotonic() - began
    wrong = [f"{findings}: {result[2]}" for result in results if result[2]]
    return Outcome(
        target, sanitized, seed, sum(r[0] for r in results), round(seconds, 1), max(r[1] for r in results), wrong
    )


def keep(target: str, runs: int, seed: int) -> int:
    """Fuzz, then put the smallest set of inputs that reaches the same edges in place of the corpus; their number."""
    program = build(target, sanitized=False)
    with tempfile.TemporaryDirectory() as folder:
        found, least, kept = Path(folder, "found"), Path(folder, "least"), unpack(target, Path(folder, "kept"))
        least.mkdir()
        _, _, wrong = _run_one(program, target, runs, seed, found, kept, Path(folder))
        if wrong:
            raise UserError(f"the fuzzer of {target} found something, and the corpus stays: {wrong}")
        merge = [str(program), "-merge=1", "-use_counters=0", str(least), str(kept), str(found)]
        subprocess.run(merge, check=True, capture_output=True)
        inputs = sorted(path.read_bytes() for path in least.iterdir())
    atomic_write_text(corpus(target), "".join(f"{base64.b64encode(data).decode()}\n" for data in inputs))
    return len(inputs)
