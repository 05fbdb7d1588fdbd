"""Find a C compiler, compile, keep the result in a cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envs.errors import UserError
from sea_dbs.files import writing

FIRMWARE = Path(__file__).parent / "firmware"
CORE = FIRMWARE / "core"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow")


def find_compiler() -> str:
    """The C compiler: $CC, cc, gcc or clang.

    Raises:
        UserError: there is none.
    """
    wanted = os.environ.get("CC")
    for name in (wanted,) if wanted else ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return found
    missing = f"the compiler $CC = {wanted} is not there" if wanted else "no C compiler (cc, gcc or clang) was found"
    raise UserError(f"{missing}: the host board needs one, on Debian 'apt-get install gcc libc6-dev'")


def cache_dir() -> Path:
    """Where compiled boards are kept: $XDG_CACHE_HOME or ~/.cache, below sea-dbs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sea-dbs" / "firmware"


def sources(*folders: Path) -> list[Path]:
    """All C files and headers of some folders, in a fixed order."""
    return sorted(path for folder in folders for path in folder.glob("*.[ch]"))


def compile_c(target: Path, files: Sequence[Path], flags: Sequence[str], compiler: str | None = None) -> Path:
    """Compile to ``target`` by one call; a half-written target is never seen.

    Raises:
        UserError: no compiler, it failed (its first error is named), or the folder cannot be written.
    """
    compiler = compiler or find_compiler()
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            units = [str(path) for path in files if path.suffix == ".c"]
            done = subprocess.run(
                [compiler, *flags, "-I", str(CORE), "-o", str(made), *units],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
                raise UserError(f"{compiler} could not compile the board: {lines[0] if lines else done.returncode}")
            made.replace(target)
    return target
