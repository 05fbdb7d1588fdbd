"""Numba, with a cache that notices every change of our kernels.

Numba does not recompile a cached caller when a callee or a constant in another file changes. So the cache folder is
keyed by a hash of all kernel sources: other sources, other folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_HERE = Path(__file__).parent
_KERNEL_FOLDERS = ("plant", "biomarkers")  # whatever is compiled lives here


def _cache_dir() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for folder in _KERNEL_FOLDERS:
        for source in sorted((_HERE / folder).glob("*.py")):
            digest.update(source.name.encode() + source.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "sea-dbs" / "numba" / digest.hexdigest()[:16])


_CACHE_DIR = _cache_dir()


def kernel(function: F) -> F:
    """Compile a kernel: strict IEEE arithmetic, GIL released, cached on disk."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = _CACHE_DIR  # read once, when the dispatcher is made
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    finally:
        config.CACHE_DIR = before


def rate(function: F) -> F:
    """Compile a small function that kernels call; it is inlined and cached with its caller."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))
