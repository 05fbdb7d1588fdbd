"""What a result was made with: versions, machine, hashes."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("numpy", "numba", "scipy", "gymnasium", "torch", "cmaes", "onnx", "onnxruntime")


def machine() -> dict[str, Any]:
    """Toolkit and library versions, Python and the CPU's name: float results repeat to the byte on one CPU type."""
    return {
        "sea_dbs": version("sea-dbs"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
