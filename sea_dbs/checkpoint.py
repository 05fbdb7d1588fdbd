"""Checkpoints: everything a run needs to go on as if it had never stopped, in one file that is whole or absent.

A checkpoint is a tree of dicts, lists, tensors, numbers and strings, so that ``torch.load(weights_only=True)`` reads
it: a file from elsewhere cannot run code.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.errors import UserError
from sea_dbs.files import atomic_write_bytes
from sea_dbs.networks import build_actor
from sea_dbs.pulse_trains import BANKS, definition

CHECKPOINT = "checkpoint.pt"
POLICY = "policy.pt"
MAX_BYTES = 16 << 30  # the replay memory of `paper` takes 0.1 GB
MAX_OBS, MAX_SLOTS = 5000, 256  # of a policy, as the board takes it
FORMAT = 1  # raised when the layout of either file changes


def pack(value: Any) -> Any:
    """Replace NumPy arrays and numbers by what ``weights_only`` loading accepts; exact to the bit."""
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return {
            "__array__": torch.frombuffer(bytearray(data.tobytes()), dtype=torch.uint8)
            if data.size
            else torch.empty(0),
            "dtype": data.dtype.str,
            "shape": list(value.shape),
        }
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(pack(item) for item in value)
    if isinstance(value, list):
        return [pack(item) for item in value]
    return value


def unpack(value: Any) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, dict):
        if "__array__" in value:
            data = value["__array__"].numpy().tobytes()
            return np.frombuffer(bytearray(data), np.dtype(value["dtype"])).reshape(value["shape"])
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(unpack(item) for item in value)
    if isinstance(value, list):
        return [unpack(item) for item in value]
    return value


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a file of this format atomically.

    Raises:
        UserError: the disk is full or the place cannot be written; the file that was there stays.
    """
    # Through memory: torch.save turns a failing disk into an error of its own kind.
    buffer = io.BytesIO()
    torch.save(pack({"format": FORMAT, **content}), buffer)
    atomic_write_bytes(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a file of this format.

    Raises:
        UserError: missing, truncated, not written by this toolkit, or of another format.
    """
    broken = f"{path} is truncated or not a file of this toolkit, and cannot be read"
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: the folder holds no trained run, or no checkpoint yet") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{broken}: it holds more than numbers, and none of that was run") from error
    except UserError:
        raise
    except Exception as error:  # a hostile pickle fails in any way it likes; it is data all the same
        raise UserError(broken) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path} has format {found}: this version reads format {FORMAT}")
    try:
        unpacked: dict[str, Any] = unpack(content)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(broken) from error
    return unpacked


def _check_archive(path: Path) -> None:
    """What `save` writes: a zip archive of parts stored as they are, so that it unpacks to no more than its size."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, more than the {MAX_BYTES:,} of any checkpoint")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in archive.infolist()):
            raise zipfile.BadZipFile("compressed")


def save_policy(run: Path, actor: torch.nn.Module, spec: dict[str, Any]) -> None:
    """Write ``policy.pt``: the actor's weights and ``spec`` (actor, n_obs, slots, preset, step, config).

    Raises:
        UserError: the file cannot be written.
    """
    save(run / POLICY, {"spec": spec, "weights": actor.state_dict()})


def read_policy(run: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The actor of a run folder with its weights, and its spec.

    Raises:
        UserError: no such file, truncated, of another format, or weights that do not fit the spec.
    """
    path = run / POLICY
    content = load(path)
    try:
        spec: dict[str, Any] = content["spec"]
        if not (spec["n_obs"] in range(1, MAX_OBS + 1) and spec["slots"] in range(1, MAX_SLOTS + 1)):
            raise KeyError("sizes")
        known = definition(BANKS[spec["actor"]]) if spec["actor"] in BANKS else []
        if spec["actor"] in BANKS and spec["trains"] != known:
            raise UserError(f"{path} chooses among the trains {spec['trains']}: this version has {known}")
        own = spec.get("own_duties", 0)
        if type(own) is not int or own not in range(spec["n_obs"]) or own != (spec["config"].get("own_duties") or 0):
            raise KeyError("own_duties")
        actor = build_actor(spec["actor"], spec["n_obs"], spec["slots"], own)
        actor.load_state_dict(content["weights"])
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} does not hold the weights that its own description names") from error
    return actor.eval(), spec
