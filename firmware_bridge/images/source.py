"""Whether an export's C source follows from the ONNX file beside it: the one is code, the other data."""

from __future__ import annotations

import hashlib
from pathlib import Path

from envs.errors import UserError
from envs.untrusted import read_bounded
from export.manifest import load as load_manifest

INTEGER = "integer.npz"
MAX_SOURCE_BYTES = 256 << 20
_made: dict[tuple[tuple[str, bytes], ...], dict[str, str]] = {}  # by the ONNX files' hashes: a large one takes 8 s


def derived(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of integer.npz and of each C source, made again from the ONNX files of an export folder.

    Raises:
        UserError: the export holds no INT8 model, a graph that is not understood, or onnx is not installed.
    """
    from sea_dbs.extras import need

    need("export", "onnx")
    described = load_manifest(folder)
    models = {name: (folder / entry.file).read_bytes() for name, entry in described.precisions.items()}
    if "int8" not in models or not (folder / INTEGER).is_file():
        raise UserError("this export holds no INT8 model")
    key = tuple((name, hashlib.sha256(data).digest()) for name, data in sorted(models.items()))
    if key not in _made:
        _made.clear()  # one policy at a time
        _made[key] = _make(models)
    return dict(_made[key])


def _make(models: dict[str, bytes]) -> dict[str, str]:
    from export.targets import c_sources

    single = models.get("fp32", b"")
    floats = [name for name in ("fp32", "fp16") if single and name in models]
    integer, sources = c_sources({name: models[name] for name in ("int8", *floats)}, single)
    made = {f"c/{name}/sea_policy.c": text.encode() for name, text in sources.items()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in {INTEGER: integer, **made}.items()}


def check_source(folder: Path, format: str) -> None:
    """Refuse to compile what did not come out of this toolkit: an export's C source is code, its ONNX file is data.

    Raises:
        UserError: the source is not, byte for byte, what this version makes of the ONNX file beside it; as `derived`.
    """
    name = f"c/{format}/sea_policy.c"
    path = folder / name
    if not path.is_file():
        return  # whoever needs it says so
    found = hashlib.sha256(read_bounded(path, MAX_SOURCE_BYTES, "the policy's source")).hexdigest()
    if derived(folder).get(name) != found:
        raise UserError(
            f"{path} is not what this version makes of the ONNX file beside it, so it is not compiled: export the run "
            "again"
        )
