"""Making links again from the link before: does integer.npz follow from the ONNX, C from it, the image from the C?

Hashes show that nothing was changed since; this shows that each file is what this toolkit makes of the one before it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from envs.errors import UserError
from envs.untrusted import read_bounded
from export.chain import Link
from export.manifest import load as load_manifest
from firmware_bridge.boards import BOARDS
from firmware_bridge.images import FORMATS, build_image

INTEGER = "integer.npz"
MAX_SOURCE_BYTES = 256 << 20


def derived(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of integer.npz and of each C source, made again from the ONNX files of an export folder.

    Raises:
        UserError: the export holds no INT8 model, a graph that is not understood, or onnx is not installed.
    """
    from sea_dbs.extras import need

    need("export", "onnx")
    from export.targets import c_sources

    described = load_manifest(folder)
    models = {name: (folder / entry.file).read_bytes() for name, entry in described.precisions.items()}
    if "int8" not in models or not (folder / INTEGER).is_file():
        raise UserError("this export holds no INT8 model")
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


def compiled(note: str, folder: Path | None, sha256: str) -> str | None:
    """What these sources make that image of: "BOARD FORMAT" or "BOARD without a policy"; None: nothing that they make.

    Args:
        note: of the image's link; its board's name comes first.
        folder: the export folder.
        sha256: the image's, hex.

    Raises:
        UserError: no cross compiler, or a failed compilation.
    """
    board = (note.split() or [""])[0].rstrip(",")
    if board not in BOARDS:
        return None
    if build_image(board).sha256 == sha256:
        return f"{board} without a policy"
    for name in FORMATS:
        there = folder is not None and (folder / "c" / name / "sea_policy.c").is_file()
        if there and build_image(board, folder, name).sha256 == sha256:
            return f"{board} {name}"
    return None


def came_again(name: str, link: Link, made: dict[str, str]) -> str | None:
    """What is wrong with a file that was made again; None: it is equal."""
    if made[name] == link.parts.get(name):
        return None
    return f"{name} is not what this version makes of the link before it ({made[name][:12]}…)"
