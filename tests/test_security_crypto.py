"""The board's SHA-256, HMAC and tags: against NIST's and the RFC's vectors, Python's library, and the host's own."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.build import CORE, WARNINGS
from firmware_bridge.security.auth import (
    NONCE_SIZE,
    TAG_SIZE,
    From,
    SessionAuth,
    board_nonce,
    is_released,
    release_tag,
    session_key,
)
from firmware_bridge.security.keys import DeviceKey
from tests.security_tools import STATE, UNITS, c_hmac, c_sha256, compare, crypto

VECTORS = json.loads((Path(__file__).parent / "golden" / "security_vectors.json").read_text())
COMPILERS = [name for name in ("gcc", "clang", "clang-14") if shutil.which(name)]
KEY = st.binary(min_size=32, max_size=32)
NONCE = st.binary(min_size=NONCE_SIZE, max_size=NONCE_SIZE)
BODY = st.binary(min_size=18, max_size=238)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("optimise", ["-O0", "-O3"])
def test_nist_and_rfc_vectors(compiler: str, optimise: str) -> None:
    library = crypto(compiler, optimise)
    for row in VECTORS["sha256_short"] + VECTORS["sha256_long"]:
        assert c_sha256(bytes.fromhex(row["message"]), (), library).hex() == row["digest"]
    for row in VECTORS["hmac"]:
        assert c_hmac(bytes.fromhex(row["key"]), bytes.fromhex(row["message"]), library).hex() == row["tag"]


def test_nist_monte_carlo() -> None:
    monte = VECTORS["sha256_monte"]
    seed, ends = bytes.fromhex(monte["seed"]), []
    for _ in range(100):
        last = [seed, seed, seed]
        for _ in range(1000):
            last = [*last[1:], c_sha256(b"".join(last))]
        seed = last[-1]
        ends.append(seed.hex())
    assert (ends[0], ends[-1]) == (monte["first"], monte["last"])


def test_random_messages_as_hashlib() -> None:
    assert compare(10_000, seed=1).differing == 0


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_million_random_messages_as_hashlib() -> None:
    assert compare(1_000_000, seed=2).differing == 0


@given(message=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_pieces_do_not_matter(message: bytes, cuts: list[int]) -> None:
    pieces = tuple(sorted(cut for cut in cuts if cut <= len(message)))
    assert c_sha256(message, pieces) == c_sha256(message)


@given(secret=KEY, host=NONCE, boots=st.integers(0, 2**32 - 1), session=st.integers(0, 2**32 - 1), body=BODY,
       sender=st.sampled_from(From))  # fmt: skip
def test_host_and_board_make_the_same_tags(
    secret: bytes, host: bytes, boots: int, session: int, body: bytes, sender: From
) -> None:
    key, lib = DeviceKey(secret), crypto()
    nonce = ctypes.create_string_buffer(NONCE_SIZE)
    lib.sea_auth_nonce(secret, boots, session, nonce)
    assert nonce.raw == board_nonce(key, boots, session)
    made = ctypes.create_string_buffer(32)
    lib.sea_auth_session_key(secret, host, nonce.raw, made)
    assert made.raw == session_key(key, host, nonce.raw)
    auth, tag = ctypes.create_string_buffer(STATE), ctypes.create_string_buffer(TAG_SIZE)
    lib.sea_auth_open(auth, secret, host, nonce.raw)
    lib.sea_auth_tag(auth, sender, body, len(body), tag)
    ours = SessionAuth(key, host, nonce.raw)
    assert tag.raw == ours.tag(sender, body)
    assert ours.check(sender, body, tag.raw)
    assert lib.sea_auth_check(auth, sender, body, len(body), tag.raw)
    other = From.BOARD if sender is From.HOST else From.HOST
    assert not lib.sea_auth_check(auth, other, body, len(body), tag.raw), "a frame sent back to its sender"
    assert not ours.check(other, body, tag.raw)


@given(secret=KEY, model=KEY, verdict=KEY, bit=st.integers(0, 255), which=st.integers(0, 2))
def test_a_release_holds_for_its_model_and_verdict_alone(
    secret: bytes, model: bytes, verdict: bytes, bit: int, which: int
) -> None:
    key, lib = DeviceKey(secret), crypto()
    tag = ctypes.create_string_buffer(32)
    lib.sea_auth_release(secret, model, verdict, tag)
    assert tag.raw == release_tag(key, model, verdict)
    assert lib.sea_auth_is_released(secret, model, verdict, tag.raw)
    parts = [model, verdict, tag.raw]
    parts[which] = flip(parts[which], bit)
    assert not lib.sea_auth_is_released(secret, *parts)
    assert not is_released(key, *parts)


@given(secret=KEY, host=NONCE, board=NONCE, body=BODY, data=st.data())
def test_any_changed_bit_is_found(secret: bytes, host: bytes, board: bytes, body: bytes, data: st.DataObject) -> None:
    lib, key = crypto(), DeviceKey(secret)
    tag = SessionAuth(key, host, board).tag(From.HOST, body)
    parts = [secret, host, board, body, tag]
    which = data.draw(st.integers(0, 4))
    parts[which] = flip(parts[which], data.draw(st.integers(0, 8 * len(parts[which]) - 1)))
    auth = ctypes.create_string_buffer(STATE)
    lib.sea_auth_open(auth, parts[0], parts[1], parts[2])
    assert not lib.sea_auth_check(auth, From.HOST, parts[3], len(body), parts[4])
    assert not SessionAuth(DeviceKey(parts[0]), parts[1], parts[2]).check(From.HOST, parts[3], parts[4])


def test_without_a_key_the_tag_is_zero_and_nothing_else_is_taken() -> None:
    lib, auth = crypto(), ctypes.create_string_buffer(STATE)
    lib.sea_auth_open(auth, None, bytes(16), bytes(16))
    tag = ctypes.create_string_buffer(b"12345678")
    lib.sea_auth_tag(auth, From.BOARD, b"body", 4, tag)
    assert tag.raw[:8] == bytes(8)
    assert lib.sea_auth_check(auth, From.HOST, b"body", 4, bytes(8))
    assert not lib.sea_auth_check(auth, From.HOST, b"body", 4, b"\0" * 7 + b"\1")


def test_the_hash_is_short_and_needs_nothing() -> None:
    parts = [CORE / f"sea_{name}.{end}" for name in ("sha256", "hmac") for end in "ch"]
    assert sum(len(path.read_text().splitlines()) for path in parts) <= 150
    for name in ("sea_sha256", "sea_hmac"):
        done = subprocess.run(
            ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-ffreestanding", "-Os", *WARNINGS, "-c", "-o", "-",
             "-S", str(CORE / f"{name}.c")], capture_output=True, text=True, check=True,
        )  # fmt: skip
        called = {line.split()[1] for line in done.stdout.splitlines() if line.split()[:1] in (["bl"], ["b.w"])}
        assert all(name.startswith(("sea_", "memcpy", "memset", ".L", "compress")) for name in called), called
    assert set(UNITS) >= {"sea_sha256.c", "sea_hmac.c"}


def flip(data: bytes, bit: int) -> bytes:
    """One bit of some bytes the other way round."""
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)
