"""Reading .npz files that people hand us: data, never code, and one sentence when they are broken."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError

MAX_BYTES = 1 << 30  # unpacked, all arrays together: an hour of a reference run's voltages takes a fifth
MAX_ARRAYS = 1000


def read_npz(path: Path, keys: tuple[str, ...], max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """All arrays of a file.

    Each array's size is known from the archive's table and checked against its own header before it is unpacked.

    Raises:
        UserError: it cannot be read, is truncated, holds objects, unpacks to more than ``max_bytes``, or lacks one of
            ``keys``.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if total > max_bytes or len(entries) > MAX_ARRAYS:
                raise ValueError(
                    f"it unpacks to {total:,} bytes in {len(entries)} arrays, more than the {max_bytes:,} in "
                    f"{MAX_ARRAYS} that are taken"
                )
            arrays = {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    for key in keys:
        if key not in arrays:
            raise UserError(f"the file {path} lacks the field '{key}'")
    return arrays


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    content = io.BytesIO(archive.read(entry))  # never more than the table says: zipfile stops there
    if (version := np.lib.format.read_magic(content)) not in ((1, 0), (2, 0)):
        raise ValueError(f"the array '{entry.filename}' has the format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    if dtype.hasobject:
        raise ValueError(f"the array '{entry.filename}' holds Python objects, which may be code: numbers are taken")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content.getbuffer()) - content.tell():
        raise ValueError(f"the array '{entry.filename}' says {shape}, which is not what it holds")
    content.seek(0)
    found: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    return found
