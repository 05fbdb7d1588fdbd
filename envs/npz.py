"""Reading .npz files that people hand us: data, never code, and one sentence when they are broken."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError


def read_npz(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """All arrays of a file.

    Raises:
        UserError: it cannot be read, is truncated, or lacks one of ``keys``.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    for key in keys:
        if key not in arrays:
            raise UserError(f"the file {path} lacks the field '{key}'")
    return arrays
