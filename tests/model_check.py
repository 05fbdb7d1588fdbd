"""The model checker of the board's core: ``python -m tests.model_check``; see tests/firmware/model.c."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firmware_bridge.build import CORE, find_compiler, sources

MODEL = Path(__file__).parent / "firmware" / "model.c"
#: Windows and counts are shortened, so that the states are few; the resistance is raised, so that the small pulses of
#: the model reach the cap of the dose. Ramp, ranges, lease and electrode are as compiled into the boards.
SCALED = {"WINDOW_US": 50_000, "WINDOW_BUCKETS": 1, "TOGGLE_GAP_US": 100_000, "TOGGLES_MAX": 4, "OVERRUNS_MAX": 2,
          "NOT_FINITE_MAX": 2, "INFERENCE_MAX": 2, "SENSING_MAX": 2, "DOSE_OHM": 400_000}  # fmt: skip
FLAGS = ("-std=c11", "-O2", "-DSEA_OBSERVATION_MAX=8", "-DSEA_DECIDED_SLOTS_MAX=2")


def compile_model(folder: Path, flags: Sequence[str] = (), right: str = "", wrong: str = "") -> Path:
    """The core and its model in a folder, as one program; ``right`` replaced by ``wrong`` breaks the core."""
    for path in sources(CORE):
        text = path.read_text()
        if path.name == "sea_limits.h":
            for name, value in SCALED.items():
                text, found = re.subn(rf"(#define SEA_{name} )UINT32_C\(\d+\)", rf"\1UINT32_C({value})", text)
                assert found == 1, name
        (folder / path.name).write_text(text.replace(right, wrong) if right else text)
    program = folder / "model"
    units = [str(MODEL), *map(str, sorted(folder.glob("*.c")))]
    subprocess.run([find_compiler(), *FLAGS, *flags, "-I", str(folder), "-o", str(program), *units], check=True)
    return program


def check(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to closure, or to the first violation."""
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=120)


def main() -> int:
    """Without and with a fixed setting for FALLBACK."""
    with tempfile.TemporaryDirectory() as folder:
        program = compile_model(Path(folder))
        status = 0
        for arguments, name in (((), "FALLBACK ramps to 0"), (("fixed",), "FALLBACK has a fixed setting")):
            done = check(program, *arguments)
            sys.stdout.write(f"{name}: {done.stdout}")
            status |= done.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
