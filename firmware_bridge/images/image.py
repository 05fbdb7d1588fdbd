"""An image: its files, its sizes, and the hash that it carries inside.

The hash is the SHA-256 of what is loaded (``sea-board.bin``; for the host board the program file) while the 32 bytes of
its build field are zero; it is then written into that field, and HELLO_ACK carries it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from envs.errors import UserError
from sea_dbs.files import atomic_write_bytes

MARK = b"sea-dbs.build->\0"  # ports/common/image.c: the 32 bytes after it hold the hash
HASH_BYTES = 32
IMAGE_JSON = "image.json"


@dataclass(frozen=True)
class Image:
    """A built image. Sizes in bytes: flash = text + data, RAM = data + bss without the stack.

    A ``steady`` one never sleeps, so that an emulator can count its time in instructions (`QemuBoard`).
    """

    board: str
    format: str | None  # of the policy; None: no policy
    sha256: str
    model_hash: str | None
    flash_bytes: int
    ram_bytes: int
    policy_flash_bytes: int
    policy_ram_bytes: int
    compiler: str
    steady: bool
    folder: Path

    @property
    def elf(self) -> Path:
        """What a debugger and QEMU load; for the host board the program."""
        return self.folder / "sea-board.elf"

    @property
    def bin(self) -> Path:
        """What is flashed, byte for byte; for the host board the program."""
        return self.folder / "sea-board.bin"


def load_image(folder: Path) -> Image:
    """An image from its image.json.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        facts = json.loads((folder / IMAGE_JSON).read_text())
        return Image(**{name: facts[name] for name in Image.__dataclass_fields__ if name != "folder"}, folder=folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"there is no image in {folder}: {error}") from None


def patched(data: bytes) -> tuple[bytes, str]:
    """An image with its hash written into the build field, and that hash (hex).

    Raises:
        UserError: the image has no build field, or more than one.
    """
    if data.count(MARK) != 1:
        raise UserError(f"the image holds {data.count(MARK)} build fields instead of one")
    at = data.index(MARK) + len(MARK)
    digest = hashlib.sha256(data[:at] + bytes(HASH_BYTES) + data[at + HASH_BYTES :]).digest()
    return data[:at] + digest + data[at + HASH_BYTES :], digest.hex()


def copy_image(image: Image, out_dir: Path) -> Image:
    for name in ("sea-board.elf", "sea-board.bin", IMAGE_JSON):
        data = (image.folder / name).read_bytes()
        atomic_write_bytes(out_dir / name, data)
    if image.board == "host":
        (out_dir / "sea-board.elf").chmod(0o755)
    return load_image(out_dir)
