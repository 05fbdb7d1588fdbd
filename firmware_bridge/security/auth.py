"""The tags of frames, as pure functions: the same bytes as ``firmware/core/sea_auth.c``.

HMAC-SHA-256 (RFC 2104, FIPS 180-4); a tag is its first 8 bytes (NIST SP 800-107 allows from 4 bytes where, as here,
forging is tried online). What a device key signs is told apart by its length: 17 bytes a board's nonce, 32 bytes a
session key, 81 bytes a release.
"""

from __future__ import annotations

import hmac
from enum import IntEnum

from firmware_bridge.layout import AUTH_SIZE
from firmware_bridge.security.keys import DeviceKey

NONCE_SIZE = 16  # bytes
TAG_SIZE = AUTH_SIZE  # bytes of a frame's tag
LAST_SEQUENCE = 0xFFFFFFFE  # the last that is signed or taken: a session is opened anew before it wraps
RELEASE = b"sea-dbs release 1"


class From(IntEnum):
    """Who signs: part of what is signed, so that a frame sent back to its sender is never taken."""

    HOST = 0x48
    BOARD = 0x42


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def board_nonce(key: DeviceKey, boots: int, session: int) -> bytes:
    """The board's 16 bytes for a session: never the same twice, as long as the count of boots never is."""
    said = b"board non" + boots.to_bytes(4, "little") + session.to_bytes(4, "little")
    return _hmac(key.secret, said)[:NONCE_SIZE]


def release_tag(key: DeviceKey, model_hash: bytes, verdict_hash: bytes) -> bytes:
    """32 bytes that say: whoever holds the key released this model (32 bytes) on this verdict (its SHA-256)."""
    return _hmac(key.secret, RELEASE + model_hash + verdict_hash)


def is_released(key: DeviceKey, model_hash: bytes, verdict_hash: bytes, tag: bytes) -> bool:
    """Whether the tag is that of the release."""
    return hmac.compare_digest(release_tag(key, model_hash, verdict_hash), tag)


class SessionAuth:
    """Signs and checks the frames of one session; both ends make it from the device key and the two nonces."""

    __slots__ = ("_key",)

    def __init__(self, key: DeviceKey, host_nonce: bytes, board_nonce: bytes) -> None:
        self._key = session_key(key, host_nonce, board_nonce)

    def tag(self, sender: From, body: bytes) -> bytes:
        """8 bytes for a frame's body up to its auth field; the body holds session and sequence."""
        return _hmac(self._key, bytes([sender]) + body)[:TAG_SIZE]

    def check(self, sender: From, body: bytes, tag: bytes) -> bool:
        """Whether a body has its tag: in time that does not depend on where they differ."""
        return hmac.compare_digest(self.tag(sender, body), tag)

    def __repr__(self) -> str:
        return "<session key>"

    def __reduce__(self) -> str:
        raise TypeError("a session key is not pickled")


def session_key(key: DeviceKey, host_nonce: bytes, board_nonce: bytes) -> bytes:
    """HMAC(device key, host nonce || board nonce), 32 bytes."""
    assert len(host_nonce) == len(board_nonce) == NONCE_SIZE
    return _hmac(key.secret, host_nonce + board_nonce)
