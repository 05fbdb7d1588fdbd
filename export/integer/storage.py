"""integer.npz: an integer policy as NumPy arrays and one JSON header. Equal models, equal bytes: no time stamps."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import UserError
from export.integer.layers import Dense, Gru, Input, Layer, Pool
from export.integer.model import IntegerModel, Meaning, check_model

FORMAT = "sea-dbs-integer-1"
KINDS: dict[str, type[Input] | type[Pool] | type[Dense] | type[Gru]] = {
    "input": Input, "pool": Pool, "dense": Dense, "gru": Gru,
}  # fmt: skip
HEADER = "header"
MAX_BYTES = 64 * 2**20  # the paper's actor takes 17 MB
MAX_LAYERS = 64
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold


def to_bytes(model: IntegerModel) -> bytes:
    """The bytes of integer.npz; readable by numpy.load."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    layers = []
    for i, layer in enumerate(model.layers):
        scalars: dict[str, Any] = {"kind": next(kind for kind, made in KINDS.items() if type(layer) is made)}
        for field in dataclasses.fields(layer):
            value = getattr(layer, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{i}.{field.name}"] = value
            else:
                scalars[field.name] = value
        layers.append(scalars)
    head = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in ("layers", "meaning")}
    header = {"format": FORMAT, "meaning": dataclasses.asdict(model.meaning), "model": head, "layers": layers}
    text = json.dumps(header, sort_keys=True, allow_nan=False).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in [(HEADER, np.frombuffer(text, np.uint8)), *sorted(arrays.items())]:
            entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            entry.create_system = 3  # the same on every system
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(value), version=(1, 0), allow_pickle=False)
            archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


def read(path: Path) -> IntegerModel:
    """Read and check a saved model.

    Raises:
        UserError: missing, damaged, too large, of another format, or not consistent in itself.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size:,} bytes: an integer policy has at most {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        model = _parse(_arrays(data))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged, or no integer policy of format {FORMAT}: {error}") from error
    try:
        check_model(model)
    except UserError as error:
        raise UserError(f"{path} holds no policy that can run: {error}") from error
    return model


def _arrays(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data):
                raise ValueError(f"the entry {entry.filename} is compressed or too long")
            content = io.BytesIO(archive.read(entry))
            arrays[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(
                content, allow_pickle=False, max_header_size=1000
            )
    return arrays


def _parse(arrays: dict[str, np.ndarray[Any, Any]]) -> IntegerModel:
    header = json.loads(arrays.pop(HEADER).tobytes())
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {str(header['format'])[:40]}")
    if not 2 <= len(header["layers"]) <= MAX_LAYERS:
        raise ValueError(f"it has {len(header['layers'])} layers")
    layers: list[Layer] = []
    for i, scalars in enumerate(header["layers"]):
        kind = KINDS[scalars.pop("kind")]
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(kind):
            if str(field.type).startswith("NDArray"):
                value = arrays.pop(f"{i}.{field.name}")
                wanted = str(field.type).removeprefix("NDArray[np.").removesuffix("]")
                if value.dtype != np.dtype(wanted):
                    raise ValueError(f"{i}.{field.name} is {value.dtype}, not {wanted}")
                fields[field.name] = value
            else:
                fields[field.name] = _scalar(scalars.pop(field.name), str(field.type), f"{i}.{field.name}")
        if scalars:
            raise ValueError(f"layer {i} has the unknown fields {sorted(scalars)}")
        layers.append(kind(**fields))
    if arrays:
        raise ValueError(f"the unknown arrays {sorted(arrays)[:3]}")
    types = {field.name: str(field.type) for field in dataclasses.fields(IntegerModel)}
    head = {name: _scalar(value, types[name], name) for name, value in header["model"].items()}
    meaning = Meaning(**{name: _scalar(value, "int", name) for name, value in header["meaning"].items()})
    return IntegerModel(meaning=meaning, layers=tuple(layers), **head)


def _scalar(value: Any, kind: str, name: str) -> Any:
    wanted: type | tuple[type, ...] = {"int": (int,), "float": (int, float), "str": (str,)}[kind]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ValueError(f"{name} is {str(value)[:40]}, not {kind}")
    return value
