"""Damaged frames at the decoder: ``python -m tests.corruption 10000000 --json``; exit code 1 if one is accepted."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from envs.errors import UserError
from firmware_bridge.build import WARNINGS
from firmware_bridge.layout import TYPES
from tests.board_tools import compiled
from tests.fuzz.targets import HERE


def sizes_source() -> str:
    """C: the types of all messages with the sizes of their payloads, the longest where they vary."""
    rows = ", ".join(f"{{{row.type_id}, {row.size}}}" for row in TYPES.values())
    return f"static const struct {{ uint8_t type, size; }} SIZES[] = {{{rows}}};\n"


def corrupt(count: int, seed: int) -> dict[str, Any]:
    """``count`` damaged frames, in one process; what became of them."""
    flags = (*WARNINGS, "-O2")
    program = compiled("corruption", [HERE / "corruption.c"], flags, "#include <stdint.h>\n" + sizes_source())
    began = time.monotonic()
    done = subprocess.run([str(program), str(count), str(seed)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise UserError(f"the corruption of frames ended with {done.returncode}: {done.stderr[:200]}")
    result: dict[str, Any] = json.loads(done.stdout)
    # What a random 32-bit sum lets through; a tag, where there is a key, lets 2^-64 of these through.
    return {**result, "seed": seed, "expected_by_chance": count / 2**32, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """Count, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.corruption", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        if given.count < 1 or given.seed < 1:
            raise UserError("the count and --seed take whole numbers from 1 on")
        result = corrupt(given.count, given.seed)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    line = f"corruption: {result['accepted']} of {result['corrupted']} damaged frames accepted in {result['seconds']} s"
    sys.stdout.write(f"{json.dumps(result) if given.json else line}\n")
    return int(result["accepted"] != 0)


if __name__ == "__main__":
    sys.exit(main())
