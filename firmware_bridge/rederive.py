"""Making links again from the link before: does integer.npz follow from the ONNX, C from it, the image from the C?

Hashes show that nothing was changed since; this shows that each file is what this toolkit makes of the one before it.
"""

from __future__ import annotations

from pathlib import Path

from export.chain import Link
from firmware_bridge.boards import BOARDS
from firmware_bridge.images import FORMATS, build_image


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
