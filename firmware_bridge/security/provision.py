"""What a board without a file system is told of its device key: 48 bytes, and starts that are counted for ever.

``ports/cortex-m/key.h`` is the other end. The bytes hold the key: they go to a file with 0600 rights alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from envs.errors import UserError
from firmware_bridge.security.keys import DeviceKey

MAGIC = 0x4B414553
SECTION_BYTES = 48
MAX_COUNT = 0xFFFFFFFF  # a u32, part of each nonce
_HEX_ROW = 16  # data bytes of a row of an Intel HEX file


def section(key: DeviceKey, first_boot: int, boots: int) -> bytes:
    """The key section of a board that may start ``boots`` times, the first time as number ``first_boot``."""
    body = struct.pack("<III", MAGIC, first_boot, boots) + key.secret
    return body + zlib.crc32(body).to_bytes(4, "little")


def count_boots(key_file: Path, boots: int = 1) -> int:
    """Reserve start numbers that this key has never had, in ``KEY_FILE.boots``; the first of them.

    One more than the last, and never below the time in seconds, should that file be lost: the rule of the host board
    (``ports/host/key.c``), which counts in the same file, under the same lock.

    Raises:
        UserError: the file cannot be kept, is not the user's alone, or the numbers are used up.
    """
    path = Path(f"{key_file}.boots")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(f"the count of power-ons {path} cannot be kept: {error.strerror}") from None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o177:
            raise UserError(f"the count of power-ons {path} must be a plain file of your own with the rights 0600")
        text = os.pread(fd, 16, 0).decode("latin-1").strip()
        last = int(text) if text.isascii() and text.isdigit() else 0
        first = max(last + 1, int(time.time()))
        if first + boots - 1 > MAX_COUNT:
            raise UserError(f"the power-ons of the key {key_file} are used up ({last}): make a new key")
        os.pwrite(fd, b"%010d\n" % (first + boots - 1), 0)
        os.fsync(fd)
    except OSError as error:
        raise UserError(f"the count of power-ons {path} cannot be kept: {error.strerror}") from None
    finally:
        os.close(fd)
    return first


def intel_hex(data: bytes, address: int) -> bytes:
    """Data at an address as an Intel HEX file, which st-flash, openocd and STM32CubeProgrammer read."""

    def rows() -> Iterator[bytes]:
        yield b"\x02\x00\x00\x04" + (address >> 16).to_bytes(2, "big")
        for at in range(0, len(data), _HEX_ROW):
            part = data[at : at + _HEX_ROW]
            yield bytes([len(part)]) + ((address + at) & 0xFFFF).to_bytes(2, "big") + b"\x00" + part
        yield b"\x00\x00\x00\x01"

    assert (address & 0xFFFF) + len(data) <= 0x10000
    return b"".join(b":%s%02X\n" % (row.hex().upper().encode(), -sum(row) & 0xFF) for row in rows())
