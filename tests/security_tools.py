"""What the security tests share: the board's cryptography in this process, alone, and random messages."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import random
from functools import cache
from typing import NamedTuple

from firmware_bridge.build import CORE, WARNINGS, cache_dir, compile_c, find_compiler

UNITS = ("sea_sha256.c", "sea_hmac.c", "sea_auth.c")


@cache
def crypto(compiler: str | None = None, optimise: str = "-O2") -> ctypes.CDLL:
    """The three files that stand alone, as a shared library."""
    compiler = compiler or find_compiler()
    files = [CORE / name for name in UNITS]
    flags = (*WARNINGS, optimise, "-fPIC", "-shared")
    key = hashlib.sha256(" ".join((compiler, *flags)).encode())
    for path in (*files, *(path.with_suffix(".h") for path in files), CORE / "sea_bytes.h"):
        key.update(path.read_bytes())
    target = cache_dir() / "tests" / f"crypto-{key.hexdigest()[:16]}.so"
    library = ctypes.CDLL(str(target if target.exists() else compile_c(target, files, flags, compiler)))
    for name in ("sea_sha256_update", "sea_hmac_init", "sea_hmac_update"):
        getattr(library, name).argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    for name in ("sea_sha256_init", "sea_sha256_final", "sea_hmac_final"):
        getattr(library, name).argtypes = [ctypes.c_char_p, ctypes.c_char_p][: 1 + name.endswith("final")]
    frame = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    library.sea_auth_open.argtypes = [ctypes.c_char_p] * 4
    library.sea_auth_nonce.argtypes = [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p]
    library.sea_auth_tag.argtypes = library.sea_auth_check.argtypes = frame
    library.sea_auth_release.argtypes = library.sea_auth_is_released.argtypes = [ctypes.c_char_p] * 4
    for name in ("sea_auth_check", "sea_auth_is_released"):
        getattr(library, name).restype = ctypes.c_bool
    return library


STATE = 1024  # bytes: more than any of the structures take


def c_sha256(message: bytes, pieces: tuple[int, ...] = (), library: ctypes.CDLL | None = None) -> bytes:
    """The board's SHA-256, the message taken in pieces that end at these places."""
    lib = library or crypto()
    state, digest = ctypes.create_string_buffer(STATE), ctypes.create_string_buffer(32)
    lib.sea_sha256_init(state)
    for start, end in zip((0, *pieces), (*pieces, len(message)), strict=True):
        lib.sea_sha256_update(state, message[start:end], end - start)
    lib.sea_sha256_final(state, digest)
    return digest.raw


def c_hmac(key: bytes, message: bytes, library: ctypes.CDLL | None = None) -> bytes:
    """The board's HMAC-SHA-256."""
    lib = library or crypto()
    state, tag = ctypes.create_string_buffer(STATE), ctypes.create_string_buffer(32)
    lib.sea_hmac_init(state, key, len(key))
    lib.sea_hmac_update(state, message, len(message))
    lib.sea_hmac_final(state, tag)
    return tag.raw


class Compared(NamedTuple):
    """Messages compared, and those on which the two differed."""

    messages: int
    differing: int


def compare(messages: int, seed: int) -> Compared:
    """SHA-256 and HMAC of random messages (0 to 600 bytes, keys 0 to 100) by the board's C and by Python's library."""
    draw = random.Random(seed)
    lib, differing = crypto(), 0
    for _ in range(messages):
        message = draw.randbytes(draw.randrange(601))
        key = draw.randbytes(draw.randrange(101))
        cut = draw.randrange(len(message) + 1)
        differing += c_sha256(message, (cut,), lib) != hashlib.sha256(message).digest()
        differing += c_hmac(key, message, lib) != hmac.digest(key, message, "sha256")
    return Compared(messages, differing)
