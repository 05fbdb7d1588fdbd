"""Output folders and atomic writes: nothing recorded or trained is ever lost or half written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from envs.errors import UserError


def prepare_output_dir(
    out: Path, *, overwrite: bool = False, resume: bool = False, inputs: Sequence[Path | None] = ()
) -> Path:
    """Make ``out`` an output folder and return it.

    A non-empty folder is refused unless ``resume`` (kept as it is) or ``overwrite`` (emptied) is set. ``inputs``: what
    the command reads; a folder that holds one of them is never emptied.

    Raises:
        UserError: the folder is not empty, is a file, cannot be made, or would be emptied of an input.
    """
    with writing(out):
        if out.exists() and not out.is_dir():
            raise UserError(f"the output folder {out} is a file: choose another --out")
        if out.is_dir() and any(out.iterdir()):
            if not (resume or overwrite):
                raise UserError(f"the output folder {out} is not empty: choose another --out, or pass --overwrite")
            if overwrite and not resume:
                _empty(out, [path for path in inputs if path is not None])
        out.mkdir(parents=True, exist_ok=True)
    return out


def _empty(folder: Path, inputs: Sequence[Path]) -> None:
    """Empty a folder, but only one that sea-dbs may call its own."""
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--overwrite would delete {path}, which is read: choose another --out than {folder}")
    if folder.resolve() in (Path.home().resolve(), Path.cwd().resolve(), Path("/")) or (folder / ".git").exists():
        raise UserError(f"--overwrite would empty {folder}: choose a folder that holds outputs only")
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (disk full, no permission) into one sentence that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left on the disk of {path}: free some and start again") from error
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader, or a crash at any time, sees the old content or the new, never a part.

    Raises:
        UserError: the disk is full or the place cannot be written; the old content stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def atomic_write_bytes(path: Path, data: bytes | memoryview) -> None:
    """`atomic_write` for bytes that are there already, such as a picture."""
    atomic_write(path, lambda stream: stream.write(data))


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write` for UTF-8 text."""
    atomic_write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented, so that two equal results are equal files."""
    atomic_write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=True) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def search_state(path: Path, plan: Any) -> dict[str, Any] | None:
    """What a search, stopped or finished, has left in ``path``; under its key ``plan`` is what was asked for.

    Returns:
        The file's content; None: there is no such file.

    Raises:
        UserError: it was left by a search with another plan, or is damaged.
    """
    if not path.exists():
        return None
    state = read_json(path)
    if not isinstance(state, dict) or "plan" not in state:
        raise UserError(f"{path} was not left by a search: choose another --out, or pass --overwrite")
    if state["plan"] != json.loads(json.dumps(plan)):
        raise UserError(f"{path.parent} holds a search with another plan: choose another --out, or pass --overwrite")
    return state


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
