"""Numba, with a cache that notices every change of our kernels.

Numba does not recompile a cached caller when a callee or a constant in another file changes. So the cache folder of a
kernel is keyed by a hash of all sources that it can read: its module and whatever that imports of this package, and so
on. Other sources, other folder; an edit elsewhere leaves the compiled kernel in use.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_ROOT = Path(__file__).parent.parent  # holds the package `envs`
# What decides on compiled code besides sources: the compiler, NumPy (it fits polynomials), the width of vectors.
_TOOLS = (sys.version, *(f"{name} {version(name)}" for name in ("numba", "llvmlite", "numpy")))
_VARIABLES = ("SEA_DBS_VECTOR_BYTES", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT")


def _file_of(module: str, root: Path) -> Path | None:
    """Source of one of our modules; None for any other."""
    path = root.joinpath(*module.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


@lru_cache(maxsize=256)
def _imports(path: Path, root: Path) -> tuple[Path, ...]:
    """Our files that a file imports, wherever in it the import stands."""

    def names(tree: ast.AST) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = path.relative_to(root).parent.parts[: None if node.level < 2 else 1 - node.level]
                parts = [*(package if node.level else ()), *([node.module] if node.module else [])]
                module = ".".join(parts)
                for alias in node.names:  # a module of a package, or a name of a module
                    yield f"{module}.{alias.name}" if _file_of(f"{module}.{alias.name}", root) else module

    found = (_file_of(name, root) for name in names(ast.parse(path.read_bytes())))
    return tuple(sorted({file for file in found if file is not None}))


@lru_cache(maxsize=64)
def sources(module: str, root: Path = _ROOT) -> tuple[Path, ...]:
    """Every file of ours that code compiled in a module can read, sorted."""
    first = _file_of(module, root)
    reached, left = set(), [first] if first else []
    while left:
        path = left.pop()
        if path not in reached:
            reached.add(path)
            left += _imports(path, root)
    return tuple(sorted(reached))


@lru_cache(maxsize=64)
def cache_key(module: str, root: Path = _ROOT) -> str:
    """Changes with anything that a kernel of this module is compiled from."""
    digest = hashlib.sha256(repr((_TOOLS, [os.environ.get(name) for name in _VARIABLES])).encode())
    for path in sources(module, root):
        digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_dir(module: str) -> str:
    """Where the compiled kernels of a module lie."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "sea-dbs" / "numba" / cache_key(module))


def kernel(function: F) -> F:
    """Compile a kernel: strict IEEE arithmetic, GIL released, cached on disk."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = cache_dir(function.__module__)  # read once, when the dispatcher is made
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    finally:
        config.CACHE_DIR = before


def rate(function: F) -> F:
    """Compile a small function that kernels call; it is inlined and cached with its caller."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))
