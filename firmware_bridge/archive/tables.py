"""Rows of a recording as columns of an NWB table: types, blobs, and what each column means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import DynamicTable, VectorData

Row = Mapping[str, Any]

COMPRESS_BYTES = 1 << 16  # from this size on a column is compressed
UNITS = (("_us", "µs"), ("_ms", "ms"), ("_uA", "µA"), ("_pC", "pC"), ("_nC_cm2", "nC/cm²"), ("_ppm", "ppm"))
OWN = {"id", "name", "description", "columns", "colnames", "start_time", "stop_time", "timestamp", "tags"}  # NWB's


def columns(
    rows: Sequence[Row],
    comments: Mapping[str, str],
    skip: Sequence[str] = (),
    shapes: Mapping[str, tuple[int, ...]] = {},
) -> list[VectorData]:
    """Every column that holds anything.

    Numbers that are missing here and there become NaN, texts become empty. Blobs are float32 arrays, of the shape given
    in ``shapes``.

    Raises:
        ValueError: a blob of another size, or a column of mixed types.
    """
    made = []
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if name in skip or all(value is None for value in values):
            continue
        data = _array(name, values, shapes.get(name))
        safe = f"{name}_" if name in OWN else name
        made.append(VectorData(name=safe, description=meaning(name, comments), data=_compressed(data)))
    return made


def meaning(name: str, comments: Mapping[str, str]) -> str:
    """What a column means, with its unit."""
    unit = next((f" ({unit})" for end, unit in UNITS if name.endswith(end)), "")
    return f"{comments.get(name, name.replace('_', ' '))}{unit}"


def unpacked(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A value as text; JSON objects one entry at a time, ``name.key``."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from unpacked(f"{name}.{key}", inner)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


def table(
    make: Callable[..., DynamicTable],
    name: str,
    description: str,
    rows: Sequence[Row],
    comments: Mapping[str, str],
    *,
    first: Sequence[VectorData] = (),
    **options: Any,
) -> DynamicTable:
    """A table of the class ``make`` with the columns ``first`` and those of the rows."""
    cols = [*first, *columns(rows, comments, **options)]
    return make(name=name, description=description, columns=cols, colnames=[column.name for column in cols])


def _array(name: str, values: Sequence[Any], shape: tuple[int, ...] | None) -> Any:
    there = [value for value in values if value is not None]
    if all(isinstance(value, bytes) for value in there):
        return _blobs(name, values, shape)
    if all(isinstance(value, str) for value in there):
        return ["" if value is None else _line(value) for value in values]
    if all(isinstance(value, int) for value in there) and len(there) == len(values):
        return np.array(values, np.int64)
    if all(isinstance(value, int | float) for value in there):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    raise ValueError(f"the column {name} holds values of several types")


def _line(text: str) -> str:
    """Text as it is, a JSON object as ``key: value; ...``: NWB wants no dictionaries in a table."""
    if not text.startswith("{"):
        return text
    return "; ".join(f"{key}: {value}" for item in json.loads(text).items() for key, value in unpacked(*item))


def _blobs(name: str, values: Sequence[Any], shape: tuple[int, ...] | None) -> Any:
    size = max(len(value) for value in values if value is not None)
    if size % 4:
        raise ValueError(f"the column {name} holds {size} bytes, no whole number of float32")
    shape = shape or (size // 4,)
    none = np.full(shape, np.nan, np.float32)
    return np.stack([none if value is None else np.frombuffer(value, "<f4").reshape(shape) for value in values])


def _compressed(data: Any) -> Any:
    if isinstance(data, np.ndarray) and data.nbytes >= COMPRESS_BYTES:
        return H5DataIO(data, compression="gzip", compression_opts=4, shuffle=True)
    return data
