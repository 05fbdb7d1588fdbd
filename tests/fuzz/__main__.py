"""``python -m tests.fuzz --target core --runs 100000 --seed 1 --json``; exit code 1 at a finding."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from envs.errors import UserError
from tests.fuzz.targets import TARGETS, Outcome, keep, run


def say(outcome: Outcome) -> str:
    """One line for people."""
    rate = outcome.executions / outcome.seconds if outcome.seconds else 0
    build = "ASan, UBSan" if outcome.sanitized else "plain"
    found = "; ".join(outcome.findings) if outcome.findings else "no finding"
    return (
        f"fuzz {outcome.target} ({build}): {outcome.executions} executions in {outcome.seconds:.0f} s "
        f"({rate:.0f}/s), {outcome.edges} edges, {found}"
    )


def main() -> int:
    """Fuzz one target or both."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append", help="default: both")
    parser.add_argument("--runs", type=int, default=20_000, help="executions of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes, which share the executions")
    parser.add_argument("--plain", action="store_true", help="without ASan and UBSan: several times as fast")
    parser.add_argument("--findings", type=Path, default=Path("out/fuzz"), help="folder for inputs that fail")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="put what was reached, minimised, in place of the corpus")
    given = parser.parse_args()
    try:
        if given.runs < 1 or given.jobs < 1 or given.seed < 1:
            raise UserError("--runs, --jobs and --seed take whole numbers from 1 on")
        targets = given.target or list(TARGETS)
        if given.keep:
            for target in targets:
                sys.stdout.write(f"corpus of {target}: {keep(target, given.runs, given.seed)} inputs\n")
            return 0
        outcomes = [
            run(target, given.runs, given.seed, given.findings, sanitized=not given.plain, jobs=given.jobs)
            for target in targets
        ]
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for outcome in outcomes:
        sys.stdout.write(f"{json.dumps(outcome._asdict()) if given.json else say(outcome)}\n")
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
