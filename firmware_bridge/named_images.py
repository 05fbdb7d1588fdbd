"""The images that an export folder names: firmware/BOARD/FORMAT/image.json, and whether they are what they say."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from envs.errors import UserError
from export.chain import SOURCE, Chain, Link
from firmware_bridge.images import IMAGE_JSON, Image, load_image, patched

_PT_LOAD = 1  # ELF: a segment that is loaded


def named_images(folder: Path) -> list[Image]:
    """All images of an export folder, as their image.json describes them.

    Raises:
        UserError: an image.json that is damaged.
    """
    return [load_image(path.parent) for path in sorted(folder.glob(f"firmware/*/*/{IMAGE_JSON}"))]


def file_of(folder: Path, image: Image) -> str:
    """The image.json of an image, seen from its export folder."""
    return (image.folder / IMAGE_JSON).relative_to(folder).as_posix()


def image_broken(image: Image, links: Mapping[str, Link]) -> str | None:
    """What of an image does not hold, in one clause: its files, or the model that it was made for; None: all holds."""
    name = f"{image.board}/{image.format}"
    try:
        binary, elf = image.bin.read_bytes(), image.elf.read_bytes()
        actual = patched(binary)[1]
    except (OSError, UserError) as error:
        return f"an image of {name} is missing or damaged ({error})"
    if actual != image.sha256:
        return f"{name}/{image.bin.name} was changed (its hash is {actual[:12]}…, image.json says {image.sha256[:12]}…)"
    if binary != elf and not _loads(elf, binary):
        return f"{name}/{image.elf.name} was changed: it does not load what {image.bin.name} holds"
    if SOURCE in links and image.model_hash != links[SOURCE].hash.hex():
        return f"{name}/{IMAGE_JSON} was made for the model {(image.model_hash or 'none')[:12]}…"
    return None


def _loads(elf: bytes, binary: bytes) -> bool:
    """Whether the loaded segments of a 32-bit little-endian ELF file are the bytes of ``binary``, place by place."""
    try:
        if elf[:6] != b"\x7fELF\x01\x01":
            return False
        offset, size, count = struct.unpack_from("<I10xHH", elf, 28)
        segments = [struct.unpack_from("<8I", elf, offset + i * size) for i in range(count)]
    except struct.error:
        return False
    # type, offset, virtual and physical address, bytes in the file, in memory, flags, alignment
    loaded = sorted((s[3], elf[s[1] : s[1] + s[4]]) for s in segments if s[0] == _PT_LOAD and s[4])
    if not loaded:
        return False
    base, end = loaded[0][0], max(at + len(data) for at, data in loaded)
    if end - base != len(binary):
        return False
    made = bytearray(len(binary))
    for at, data in loaded:
        made[at - base : at - base + len(data)] = data
    return bytes(made) == binary


def check_own(image: Image, chain: Chain) -> None:
    """Refuse a board that this session started, where its image in the cache is not what was built.

    Raises:
        UserError: what does not hold.
    """
    links = {} if image.model_hash is None else {link.name: link for link in chain.links}
    if why := image_broken(image, links):
        raise UserError(
            f"the board is not armed: the hash chain is broken at the link 'image': {why}: remove {image.folder}"
        )


def which_image(folder: Path | None, chain: Chain, kind: str, port: str, running: bytes) -> str:
    """What image a board runs, for the record: "BOARD FORMAT, FILE", or the board's kind where nobody names it.

    Args:
        folder: the export folder; None: a session without a policy.
        chain: the policy's.
        kind: of the board, its name first: "qemu-m4f", "host board".
        port: of the board, for the error.
        running: the hash that the board reported (32 bytes).

    Raises:
        UserError: the export folder names another image for this board, or one that does not hold: it is not armed.
    """
    links = {link.name: link for link in chain.links}
    if folder is None:
        return kind
    images = named_images(folder)
    for image in images:
        if image.sha256 == running.hex():
            if why := image_broken(image, links):
                raise UserError(f"the board is not armed: the chain of {folder} is broken at the link 'image': {why}")
            return f"{image.board} {image.format}, {file_of(folder, image)}"
    for image in images:
        if image.board in kind.split():
            raise UserError(
                f"the board at {port} is not armed: the hash chain is broken at the link 'image': it runs "
                f"{running.hex()[:12]}…, {file_of(folder, image)} names {image.sha256[:12]}…"
            )
    return kind
