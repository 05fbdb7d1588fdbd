"""``python -m tests.analysis``: everything, short; or some of it by name. Exit code 1 at a finding.

python -m tests.analysis coverage misra
python -m tests.analysis misra --write      the table of docs/firmware/MISRA.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from envs.errors import UserError
from tests.analysis import coverage, misra, python_codec
from tests.corruption import corrupt
from tests.fuzz.__main__ import say
from tests.fuzz.targets import TARGETS, run

SEED = 1
RUNS = {"decoder": 200_000, "core": 15_000}
CORRUPTIONS = 100_000
CODEC_RUNS = 50_000


def fuzz(write: bool) -> list[str]:
    """Both fuzzers from their kept corpora, with ASan and UBSan."""
    del write
    wrong: list[str] = []
    for target in TARGETS:
        outcome = run(target, RUNS[target], SEED, Path("out/fuzz"), sanitized=True, jobs=2)
        sys.stdout.write(f"{say(outcome)}\n")
        wrong += outcome.findings
    return wrong


def corruption(write: bool) -> list[str]:
    """A share of the 10^7 damaged frames of make soak."""
    del write
    result = corrupt(CORRUPTIONS, SEED)
    line = f"{result['accepted']} of {result['corrupted']} damaged frames accepted"
    sys.stdout.write(f"corruption: {line}\n")
    return [line] if result["accepted"] else []


def codec(write: bool) -> list[str]:
    """The Python codec under atheris."""
    del write
    line, wrong = python_codec.fuzz(CODEC_RUNS, SEED)
    sys.stdout.write(f"codec: {line}\n")
    return wrong


def covered(write: bool) -> list[str]:
    """Lines and branches of the core."""
    del write
    found = coverage.measure()
    sys.stdout.write(f"coverage of the core: {found.lines} % of lines, {found.branches} % of branches\n")
    wrong = coverage.judge(found)
    for name, lines in found.missed.items() if wrong else ():
        sys.stdout.write(f"  {name}: not run, or a branch not taken: {', '.join(map(str, lines))}\n")
    return wrong


def static(write: bool) -> list[str]:
    """cppcheck with its MISRA addon."""
    found = misra.findings()
    if write:
        misra.write(found)
    sys.stdout.write(f"cppcheck, MISRA: {found.total()} findings by {len(found)} rules, each with its reason\n")
    return misra.judge(found)


PARTS: dict[str, Callable[[bool], list[str]]] = {
    "fuzz": fuzz,
    "corruption": corruption,
    "codec": codec,
    "misra": static,
    "coverage": covered,
}


def main() -> int:
    """Run the parts, one after the other, all of them even if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them if none is named")
    parser.add_argument("--write", action="store_true", help="with misra: put its table into docs/firmware/MISRA.md")
    given = parser.parse_args()
    wrong: list[str] = []
    began = time.monotonic()
    try:
        if unknown := [part for part in given.parts if part not in PARTS]:
            raise UserError(f"there is no part '{unknown[0]}': it is one of {', '.join(PARTS)}")
        for part in given.parts or PARTS:
            wrong += PARTS[part](given.write)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for line in wrong:
        sys.stdout.write(f"FINDING {line}\n")
    sys.stdout.write(f"analysis: {len(wrong)} findings, {time.monotonic() - began:.0f} s\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
